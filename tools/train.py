"""Tune a backbone by mix-and-match, then fine-tune: see ``mm_tuning_plugin/cli/train.py``."""

import sys

from mm_tuning_plugin.cli.train import entry

if __name__ == '__main__':
    sys.exit(entry())
