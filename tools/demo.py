"""The whole story on a small drawn data set: see ``mm_tuning_plugin/cli/demo.py``."""

import sys

from mm_tuning_plugin.cli.demo import entry

if __name__ == '__main__':
    sys.exit(entry())
