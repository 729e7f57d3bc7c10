"""Read self-supervised files, fit them to a backbone, and report the result."""

from mm_tuning_plugin.checkpoint.io.read import read_tensors
from mm_tuning_plugin.checkpoint.io.store import (
    hash_file,
    hash_state_dict,
    load_backbone_strict,
    read_backbone,
    save_backbone,
)
from mm_tuning_plugin.checkpoint.match.arguments import as_python, needed_arguments
from mm_tuning_plugin.checkpoint.verdict.report import Layout, LoadReport

from .load import load_backbone_checkpoint
from .naming import Naming, register_naming

__all__ = [
    'Layout',
    'LoadReport',
    'Naming',
    'as_python',
    'hash_file',
    'hash_state_dict',
    'load_backbone_checkpoint',
    'load_backbone_strict',
    'needed_arguments',
    'read_backbone',
    'read_tensors',
    'register_naming',
    'save_backbone',
]
