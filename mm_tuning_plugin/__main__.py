"""``python -m mm_tuning_plugin``: the same as ``mm-tuning``."""

import sys

from mm_tuning_plugin.cli.main import entry

if __name__ == '__main__':
    sys.exit(entry(prog='python -m mm_tuning_plugin'))
