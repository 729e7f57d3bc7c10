"""Names of a run's files."""

from __future__ import annotations

TUNED_BACKBONE = 'tuned_backbone.pth'
LOAD_REPORT = 'load_report.json'
FINGERPRINT = 'fingerprint.json'
PREVIOUS_BACKBONE = 'tuned_backbone.previous.pth'
CARRIED = 'mm_tuning_plugin'  # key of a checkpoint under which hooks store their state
