"""Show which nodes will be sampled from your data: see ``mm_tuning_plugin/cli/browse.py``."""

import sys

from mm_tuning_plugin.cli.browse import entry

if __name__ == '__main__':
    sys.exit(entry())
