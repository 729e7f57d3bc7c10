"""The part of docs/backbones.md on mmseg's own configs, from the records of two sweeps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

RECORDS = ('fork', 'original')
TEXT = """## Every config of mmseg

```text
python tools/sweep_configs.py [FOLDER_OR_PATTERN ...] [--build] [--json FILE]
```

derives the tuning config of every config that it finds (default: those that the installed mmseg
brings; `_base_` fragments are none), runs nothing, and checks what was derived:

- the user's config was not changed, and nothing that belongs to the run is left in the derived one;
- the derived config, written to a file, reads back equal;
- all that stage one builds by name is registered: data sets, transforms, model, hooks, loop,
  optimizer;
- with initial weights given (and `recipe='paper'`, BatchNorm's statistics estimated) nothing else
  loads weights in either stage, nested `pretrained` and `init_cfg` included;
- with `--build`: the backbone, without memory for its weights, and the optimizer over it, by the
  config's own constructor (rates that decay by layer, multipliers by name), which must reach every
  parameter that trains.

Exit status 0: each was derived or refused with one line. 1: something else was raised, or a check
failed; the config and what went wrong are on stderr. 2: there was nothing to sweep.

TABLE

Both runs with `--build`; config by config: [fork](results/configs/fork.json),
[original](results/configs/original.json). The tests repeat
every twelfth, one for each rule, and those that import mmpretrain, over an inert torchvision. A
config whose types come from a package that is not installed ends before tuning, with a line that
names the place and the package.

The decode head says which outputs of the backbone are tuned: its `in_index`, wherever it is nested.
Of a cascade (OCRNet, PointRend) those that *any* of its heads reads count.
"""


def section(folder: Path) -> str:
    """The text, with the counts of the records in `folder`."""
    records = [json.loads((folder / f'{name}.json').read_text()) for name in RECORDS]
    counts = [Counter(record['configs'].values()) for record in records]
    outcomes = sorted(set().union(*counts), key=lambda o: (-max(c[o] for c in counts), o))
    titles = ' | '.join(f'mmseg {record["mmsegmentation"]}' for record in records)
    rows = [f'| outcome | {titles} |', '|---|---:|---:|']
    rows += [f'| {o} | {" | ".join(str(c[o]) for c in counts)} |' for o in outcomes]
    rows.append(f'| **all** | {" | ".join(str(c.total()) for c in counts)} |')
    return TEXT.replace('TABLE', '\n'.join(rows))
