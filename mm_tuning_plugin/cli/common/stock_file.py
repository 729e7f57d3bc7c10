"""Write the weights of a backbone so that stock mmseg loads all of them.

Backbones have different loaders, and few of them are strict. So mmseg itself initialises a backbone
from the file, and the file is kept only if every weight is equal to the bit.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

SAFETENSORS_NOTE = (
    "mmseg's own init_cfg reads .safetensors only if torch.load does (torch 2.13 does); "
    '--ssl-checkpoint, init_cfg of type mm_tuning_plugin.SelfSupervised and other tools read it '
    'with any torch'
)


def build_backbone(config: Mapping[str, Any], **more: Any) -> nn.Module:
    """Build a backbone as mmseg does.

    Raises:
        UserError: It can't be built.
    """
    import mmseg.models  # noqa: F401  registers them
    from mmseg.registry import MODELS

    from mm_tuning_plugin.engine.common.messages import config_named

    with config_named(RuntimeError):
        built: nn.Module = MODELS.build({**copy.deepcopy(dict(config)), **more})
    return built


def write_pth(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file with ``torch.save``."""
    import torch

    with open(path, 'wb') as file:  # not a path: torch would write its name into the file
        torch.save(dict(content), file)


def write_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, with ``meta`` as strings."""
    from safetensors.torch import save_file

    weights = {name: value for name, value in content.items() if name != 'meta'}
    texts = {name: str(value) for name, value in content['meta'].items()}
    save_file(weights, str(path), metadata={'format': 'pt', **texts})


def layouts(
    ending: str, weights: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Layouts of a file, in order of preference: a description and a function that writes it.

    mmseg's PIDNet finds its weights only at the top level of a file.
    """
    flat = dict(weights, meta=meta)
    if ending == '.safetensors':
        yield 'at its top', partial(write_safetensors, content=flat)
        return
    nested = dict(state_dict=dict(weights), meta=meta)
    yield "under 'state_dict'", partial(write_pth, content=nested)
    yield 'at its top', partial(write_pth, content=flat)


def differing_from_stock(
    config: Mapping[str, Any], path: Path, wanted: Mapping[str, Tensor]
) -> str:
    """Load a file with mmseg's own loader, as its Runner does, and compare the weights.

    Args:
        config: Config of the backbone, without other weights.
        path: The file, with its final suffix.
        wanted: Name -> tensor that the backbone must have after loading.

    Returns:
        '' if all are equal; otherwise the reason, in half a line.
    """
    import torch
    from mmengine.logging import MMLogger

    MMLogger.get_instance('convert_checkpoint', log_level='ERROR')  # no lists of keys
    start = dict(type='Pretrained', checkpoint=str(path))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        backbone = build_backbone(config, init_cfg=start)
        try:
            backbone.init_weights()
        except Exception as error:  # loaders of backbones can raise anything
            return ' '.join(f'it fails with {type(error).__name__}: {error}'.split())[:200]
    found = backbone.state_dict()
    lost = [name for name in wanted if not torch.equal(found[name], wanted[name])]
    return f'{len(lost)} of {len(wanted)} tensors are not loaded, e.g. {lost[0]}' if lost else ''


def write_tried(
    target: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
) -> tuple[str, str]:
    """Write a file in the first layout that stock mmseg loads in full.

    Returns:
        Where the weights are in the file; and '', or why stock mmseg does not load a .safetensors
        file, which is written anyway, as other loaders read it.

    Raises:
        UserError: Stock mmseg loads no layout of a .pth, or the file can't be written.
    """
    from mm_tuning_plugin.atomic_write import atomic_write

    where = reason = ''
    with atomic_write(target) as aside, tempfile.TemporaryDirectory() as folder:
        named = Path(folder, target.name)  # torch.load depends on the suffix
        named.symlink_to(aside.resolve())
        for place, write in layouts(target.suffix, weights, meta):
            where = place
            write(aside)
            reason = differing_from_stock(config, named, weights)
            if not reason:
                break
        if reason and target.suffix == '.pth':
            raise UserError(
                f'{target}',
                f"not written, as init_cfg of type 'Pretrained' does not load it into "
                f'{config.get("type")} ({reason})',
                'use --ssl-checkpoint of tools/train.py, or '
                "model.init_cfg=dict(type='mm_tuning_plugin.SelfSupervised', checkpoint=SRC)",
            )
    return where, reason
