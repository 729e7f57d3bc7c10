"""Reading any self-supervised file, fitting it to a backbone, and the report of what was done."""

from .load import load_backbone_checkpoint
from .read import read_tensors
from .report import Layout, LoadReport
from .store import hash_file, hash_state_dict, load_backbone_strict, save_backbone

__all__ = [
    'Layout',
    'LoadReport',
    'hash_file',
    'hash_state_dict',
    'load_backbone_checkpoint',
    'load_backbone_strict',
    'read_tensors',
    'save_backbone',
]
