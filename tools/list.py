"""Print what is registered: see ``mm_tuning_plugin/cli/list.py``."""

import sys

from mm_tuning_plugin.cli.list import entry

if __name__ == '__main__':
    sys.exit(entry())
