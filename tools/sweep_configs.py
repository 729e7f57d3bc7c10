"""Derive the tuning config of every config: see ``mm_tuning_plugin/cli/sweep.py``."""

import sys

from mm_tuning_plugin.cli.sweep import entry

if __name__ == '__main__':
    sys.exit(entry())
