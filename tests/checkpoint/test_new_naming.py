"""A new naming is one file in the package; docs/extending.md's example is the one out of tree."""

import pytest
from new_files import run_with

from mm_tuning_plugin.checkpoint.naming import NAMINGS

CODE = """
from .rules import Naming

def rename(tensors, targets):
    return {name.replace('step.', 'layer'): tensor for name, tensor in tensors.items()}

NAMINGS = (Naming('toy project', rename),)
"""
LOAD = """
import torch
import mmseg.models
from mmseg.registry import MODELS
from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

build = dict(type='mmseg.ResNet', depth=18, base_channels=8, stem_channels=8)
tensors = MODELS.build(build).state_dict()
torch.save({name.replace('layer', 'step.'): t for name, t in tensors.items()}, 'toy.pth')
backbone = MODELS.build(build)
report = load_backbone_checkpoint(backbone, 'toy.pth', min_matched=1)
assert all(torch.equal(tensors[name], t) for name, t in backbone.state_dict().items())
print(report.layout.renaming)
"""


@pytest.mark.walk
def test_in_tree(tmp_path):
    assert run_with('checkpoint/naming/toy.py', CODE, LOAD, tmp_path).strip() == 'toy project'


def test_conventions_are_tried_in_the_order_of_their_ranks():
    titles = [naming.title for naming in NAMINGS]
    assert titles[0] == 'same names' and titles[-1] == 'Caffe'
    assert len(titles) == len(set(titles))
