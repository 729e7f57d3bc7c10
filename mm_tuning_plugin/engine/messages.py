"""What a run says to its user."""

from __future__ import annotations

import logging

from mmengine.logging import print_log


def warn(message: str) -> None:
    """Log one line as a warning."""
    print_log(message, logger='current', level=logging.WARNING)
