"""Write a file that stock mmseg loads in full: see ``mm_tuning_plugin/cli/convert.py``."""

import sys

from mm_tuning_plugin.cli.convert import entry

if __name__ == '__main__':
    sys.exit(entry())
