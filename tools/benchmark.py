"""Compare tuning with its baselines, over seeds: see ``mm_tuning_plugin/cli/benchmark.py``."""

import sys

from mm_tuning_plugin.cli.benchmark import entry

if __name__ == '__main__':
    sys.exit(entry())
