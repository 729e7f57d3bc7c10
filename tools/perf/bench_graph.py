"""G1, G2: labels to triplets."""

from __future__ import annotations

import random
from functools import partial

import torch
from reference import graph as reference
from timing import Comparison, interleave

from mm_tuning_plugin.functional import graph_triplets

TARGETS = {144: 10.0, 1024: 250.0, 4096: 2000.0}
CLASSES = 21


def check(labels: torch.Tensor, generator: torch.Generator) -> None:
    """Asserts that both give each node that has a positive and a negative one valid triplet."""
    anchor, positive, negative = graph_triplets(labels, generator=generator)
    plain = torch.tensor(reference.triplets(labels.tolist(), random.Random(0), reference.grow_lean))
    assert anchor.sort().values.tolist() == plain[:, 0].sort().values.tolist()
    assert torch.equal(labels[anchor], labels[positive]) and not (anchor == positive).any()
    assert not (labels[anchor] == labels[negative]).any()


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs G1 at three sizes and G2."""
    draw = torch.Generator().manual_seed(0)
    generator = torch.Generator().manual_seed(1)  # on the host, as the tuner's
    rng = random.Random(2)
    labels = {n: torch.randint(0, CLASSES, (n,), generator=draw) for n in (*TARGETS, 16384)}
    ours = {
        n: partial(graph_triplets, values.to(device), generator=generator)
        for n, values in labels.items()
    }
    results = []
    for n, target in TARGETS.items() if 'G1' in wanted else ():
        check(labels[n].to(device), generator)
        numbers = labels[n].tolist()
        figures = interleave(
            {
                'ours': ours[n],
                'reference': partial(reference.triplets, numbers, rng),
                'reference, entered nodes only': partial(
                    reference.triplets, numbers, rng, reference.grow_lean
                ),
            }
        )
        mine = figures['ours']['median']
        ratio = {'reference': figures['reference']['median'] / mine}
        results.append(Comparison('G1', f'N = {n}', 'ms', figures, ratio, target))
    if 'G2' in wanted:
        figures = interleave({'ours': ours[16384], 'N = 4096': ours[4096]})
        ratio = {'over N = 4096': figures['ours']['median'] / figures['N = 4096']['median']}
        results.append(Comparison('G2', 'N = 16384', 'ms', figures, ratio, 6.0, True))
    return results
