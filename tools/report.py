"""Write the report of a finished run: see ``mm_tuning_plugin/cli/report.py``."""

import sys

from mm_tuning_plugin.cli.report import entry

if __name__ == '__main__':
    sys.exit(entry())
