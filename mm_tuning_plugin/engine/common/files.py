"""Files of a run: their names, and how JSON is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm_tuning_plugin.checkpoint import write_aside

TUNED_BACKBONE = 'tuned_backbone.pth'
LOAD_REPORT = 'load_report.json'
FINGERPRINT = 'fingerprint.json'
PREVIOUS_BACKBONE = 'tuned_backbone.previous.pth'
CARRIED = 'mm_tuning_plugin'  # the key in a checkpoint under which the hooks leave what they know


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file that is whole or not there."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1, default=str) + '\n', encoding='utf-8')
