"""Says in how far two finished runs ended with the same weights, stage by stage.

python tools/perf/same_weights.py WORK_DIR WORK_DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mm_tuning_plugin.engine.resume.checkpoint_files import newest_sound, places
from mm_tuning_plugin.engine.resume.history_globals import allow_histories


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint."""
    with allow_histories():
        return torch.load(path, map_location='cpu')['state_dict']


def main() -> None:
    """Compare."""
    first, second = map(Path, sys.argv[1:3])
    pairs = {
        'tuned backbone': [folder / 'tuning' / 'tuned_backbone.pth' for folder in (first, second)],
        'fine-tuned model': [newest_sound(places(folder)) for folder in (first, second)],
    }
    for name, (one, other) in pairs.items():
        one, other = weights(one), weights(other)
        apart = max(float((one[key].double() - other[key].double()).abs().max()) for key in one)
        print(f'{name}: {"the same to the bit" if apart == 0 else f"apart by up to {apart:.3g}"}')


if __name__ == '__main__':
    main()
