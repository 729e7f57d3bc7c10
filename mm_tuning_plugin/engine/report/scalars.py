"""Reading back what a stage logged: the scalars of mmengine's local backend."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

Series = dict[int, float]
"""Step to value."""


def read_scalars(folder: Path) -> dict[str, Series]:
    """All scalars that the runs in a folder logged, by name.

    A resumed run has a file for each part, in order of time; of a step that two have, the later
    counts. A line that a kill cut off is left out.

    Args:
        folder: The ``work_dir`` of a stage.
    """
    series: dict[str, Series] = defaultdict(dict)
    for file in sorted(folder.glob('[0-9]*_[0-9]*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            step = row.pop('step', None)
            if isinstance(step, int):
                for name, value in row.items():
                    if isinstance(value, (int, float)):
                        series[name][step] = float(value)
    return dict(series)
