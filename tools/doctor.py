"""Say what is installed and how to mend what is not: see ``mm_tuning_plugin/cli/doctor.py``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # to say that it is not installed

from mm_tuning_plugin.cli.doctor import entry

if __name__ == '__main__':
    sys.exit(entry())
