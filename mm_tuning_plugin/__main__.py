"""``python -m mm_tuning_plugin``: the same as ``mm-tuning``."""

import sys

from mm_tuning_plugin.cli.main import entry

sys.exit(entry())
