"""``tools/convert_checkpoint.py``: any file as one that stock mmseg loads, or a look into it.

The weights are found and fitted by `load_backbone_checkpoint`; how they are written, so that
mmseg's own loader takes all of them, is the matter of `stock_file`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.stock_file import SAFETENSORS_NOTE, build_backbone, write_tried
from mm_tuning_plugin.cli.common.usage import make_parser
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor, nn

    from mm_tuning_plugin.checkpoint import LoadReport

SCRIPT = 'convert_checkpoint.py'
ENDINGS = ('.pth', '.safetensors')


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        "Write a self-supervised file under the names of a config's backbone, so that "
        "mmseg's own init_cfg=dict(type='Pretrained', checkpoint=DST) loads all of it; that is "
        f'tried before DST is written. Note: {SAFETENSORS_NOTE}.',
        [
            'moco_v2_r50.pth.tar r50.pth --config my_config.py',
            '--inspect moco_v2_r50.pth.tar',
        ],
    )
    parser.add_argument('src', metavar='SRC', help='a checkpoint in any common layout')
    parser.add_argument('dst', metavar='DST', nargs='?', help='.pth or .safetensors')
    parser.add_argument('--config', metavar='CONFIG', help='a config of an mmseg project')
    parser.add_argument(
        '--inspect',
        action='store_true',
        help='write nothing: print what SRC holds, and which known architecture it fits best',
    )
    parser.add_argument(
        '--min-matched',
        type=float,
        default=0.9,
        metavar='SHARE',
        help='of each stage of the backbone that must be found, from 0 to 1 (0.9)',
    )
    parser.add_argument(
        '--prefix', help='where in SRC the weights are (state_dict.net_a), if two networks fit'
    )
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='let SRC run code while it is read; only for files you trust',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', default=[], help='override the config'
    )
    return parser


def check_target(src: str, dst: str, overwrite: bool) -> Path:
    """Refuse a file that is not to be written, before anything long is done.

    Raises:
        UserError: Another ending, the source itself, a folder, or there already.
    """
    target = Path(dst)
    if target.suffix not in ENDINGS:
        raise UserError(dst, f'ending {target.suffix!r} found', f'expected {" or ".join(ENDINGS)}')
    if target.is_dir():
        raise UserError(dst, 'is a directory', 'expected the name of a file')
    if os.path.realpath(src) == os.path.realpath(dst) or (
        os.path.exists(dst) and os.path.exists(src) and os.path.samefile(src, dst)
    ):
        raise UserError(dst, 'SRC and DST are one file', 'expected another name for DST')
    if target.exists() and not overwrite:
        raise UserError(dst, 'exists already', 'expected a new name, or --overwrite')
    return target


def backbone_config(path: str, cfg_options: Sequence[str]) -> dict[str, Any]:
    """Return the backbone of a config, and set mmengine's default scope to the config's.

    Raises:
        UserError: The config is missing or has no backbone.
    """
    from mmengine.registry import init_default_scope

    from mm_tuning_plugin.cli.train import load_config, merge_cfg_options

    cfg: Config = load_config(path)
    merge_cfg_options(cfg, cfg_options)
    model = cfg.get('model')
    if not isinstance(model, Mapping) or not isinstance(model.get('backbone'), Mapping):
        raise UserError(path, 'no model.backbone found', 'expected the config of a segmentor')
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return cfg.to_dict()['model']['backbone']


def plain_weights(backbone: nn.Module, report: LoadReport) -> dict[str, Tensor]:
    """What goes into the file: the backbone's tensors that were loaded or filled.

    Left out: what the file did not have, which the backbone initialises by itself; and index
    tables, which the backbone computes for its own size and which would not fit another one.
    """
    from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer

    missing = set(report.missing)
    return {
        name: value.detach().cpu().clone().contiguous()
        for name, value in backbone.state_dict().items()
        if name not in missing
        and (value.is_floating_point() or not is_buffer(name) or 'num_batches' in name)
    }


def describe(src: str, report: LoadReport, backbone: nn.Module) -> dict[str, Any]:
    """Source of the weights, as plain built-ins that torch's safe loader reads."""
    import mmcv
    import mmengine
    import mmseg
    import torch

    import mm_tuning_plugin
    from mm_tuning_plugin.checkpoint import hash_file

    modules = (mm_tuning_plugin, torch, mmengine, mmcv, mmseg)
    return dict(
        source=Path(src).name,
        source_sha256=hash_file(src),
        layout=str(report.layout),
        backbone=type(backbone).__name__,
        share=report.share,
        resized=dict(report.resized),
        filled=list(report.filled),
        missing=list(report.missing),
        hash=report.hash_after,
        versions={module.__name__: str(module.__version__) for module in modules},
    )


def snippet(config: Mapping[str, Any], freed: Mapping[str, Any], target: Path) -> str:
    """What the user writes into the config."""
    arguments = f"init_cfg=dict(type='Pretrained', checkpoint={str(target)!r})"
    if config.get('pretrained') or freed.get('pretrained') is False:
        arguments = f'pretrained={freed.get("pretrained")}, {arguments}'
    return f'model = dict(pretrained=None, backbone=dict({arguments}))'


def convert(args: argparse.Namespace) -> None:
    """Convert one file.

    Raises:
        UserError: A mistake of the user's.
    """
    target = check_target(args.src, args.dst, args.overwrite)
    require_stack()
    from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
    from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained

    config = backbone_config(args.config, args.cfg_options)
    freed = remove_pretrained(config)
    freed.pop('init_cfg', None)  # 'Pretrained' takes its place
    backbone = build_backbone(freed)
    report = load_backbone_checkpoint(
        backbone,
        args.src,
        min_matched=args.min_matched,
        allow_pickle=args.allow_pickle,
        prefix=args.prefix,
    )
    print(report, flush=True)
    weights, meta = plain_weights(backbone, report), describe(args.src, report, backbone)
    where, reason = write_tried(target, freed, weights, meta)
    print(f'{target}: {len(weights)} tensors {where}')
    if reason:
        print(f'  mmseg itself does not load it here: {reason}; {SAFETENSORS_NOTE}')
    else:
        print("  mmseg's own loader was run on it: all of them arrive")
        print(f'  in the config: {snippet(config, freed, target)}')


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Convert or inspect.

    Raises:
        UserError: A mistake of the user's.
    """
    args = build_parser(prog).parse_args(argv)
    if args.inspect:
        if args.dst is not None:
            raise UserError(
                '--inspect', f'DST {args.dst} found', 'expected none, as it writes nothing'
            )
        require_stack()
        from mm_tuning_plugin.cli.common.checkpoint_summary import inspect_checkpoint

        print(inspect_checkpoint(args.src, args.allow_pickle, args.prefix))
        return
    if args.dst is None:
        raise UserError(
            'DST', 'none found', 'expected the name of the file to write (or --inspect)'
        )
    if args.config is None:
        raise UserError('--config', 'none found', 'expected a config of an mmseg project')
    convert(args)


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
