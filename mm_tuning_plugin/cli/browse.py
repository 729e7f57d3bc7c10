"""``tools/browse_patches.py CONFIG``: what the sampler will do to your data, before you train."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import make_folder, run
from mm_tuning_plugin.cli.common.usage import make_parser
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from mm_tuning_plugin.inspection.node_survey import Survey

SCRIPT = 'browse_patches.py'
OVERLAYS = 8  # images that are shown with their nodes
COLUMNS = (
    ('pixel_share', 'pixels', '{:.2%}'),
    ('nodes', 'nodes', '{}'),
    ('node_share', 'of nodes', '{:.1%}'),
    ('images', 'images', '{}'),
    ('purity', 'purity', '{:.2f}'),
    ('side', 'side', '{:.0f}'),
    ('covered', 'covered', '{:.2f}'),
)
"""Of the table on the terminal: key of a row, heading, format."""


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Draw the nodes that stage one will begin with, by its own config and pipeline, and show '
        'them: by class, on their images, and in figures: how often classes occur among pixels '
        'and nodes, sizes, purity (share of a patch that has its label), overlap. Warns of labels '
        'and settings that look wrong. Trains nothing and needs no checkpoint.',
        [
            'my_config.py',
            'my_config.py --images 100 --cfg-options mix_and_match.nodes=patches',
        ],
    )
    parser.add_argument('config', help='a config of an mmseg project')
    parser.add_argument(
        '--out', metavar='DIR', help='where pictures and figures go (work_dirs/CONFIG_browse)'
    )
    parser.add_argument(
        '--images', type=int, metavar='N', default=32, help='images to draw nodes from (32)'
    )
    parser.add_argument(
        '--window',
        type=int,
        metavar='PIXELS',
        default=33,
        help='side of what is shown and measured around a point (33)',
    )
    parser.add_argument(
        '--seed', type=int, help="of the draws; default: the config's, or 0 where it has none"
    )
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', default=[], help='override the config'
    )
    return parser


def read_config(args: argparse.Namespace) -> Config:
    """The config with the command's options in it, and a seed.

    Raises:
        UserError: A mistake in either.
    """
    from mm_tuning_plugin.cli.train import load_config, merge_cfg_options

    for name in ('images', 'window'):
        if getattr(args, name) < 1:
            raise UserError(
                f'--{name}', f'{getattr(args, name)} found', 'expected an integer of at least 1'
            )
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise UserError('--seed', f'{args.seed} found', f'expected 0 to {2**32 - 1}')
    cfg = load_config(args.config)
    merge_cfg_options(cfg, args.cfg_options)
    given = dict(cfg.get('randomness') or {})
    seed = given.get('seed') or 0 if args.seed is None else args.seed
    cfg['randomness'] = dict(given, seed=seed)
    # which weights it starts from changes no node, and the file need not be there yet
    options = cfg.get('mix_and_match')
    if isinstance(options, Mapping):
        cfg['mix_and_match'] = dict(options, checkpoint=None)
    return cfg


def remove_former_pictures(folder: Path) -> None:
    """Remove what an earlier call drew into a folder, lest it be taken for this one's."""
    try:
        names = json.loads((folder / 'figures.json').read_text(encoding='utf-8'))['pictures']
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing of ours is there
    for name in names:
        (folder / Path(name).name).unlink(missing_ok=True)


def draw_pictures(seen: Survey, folder: Path) -> list[Path]:
    """Save the nodes by class, on their images, and the bars of the classes."""
    import numpy as np

    from mm_tuning_plugin import visualization

    names, palette = seen.facts.class_names, seen.palette
    written = [folder / 'nodes_by_class.png', folder / 'class_frequencies.png']
    order = seen.spread
    mosaic = visualization.patch_mosaic(
        seen.joined('patches')[order], seen.labels[order], names, palette
    )
    visualization.save_image(written[0], mosaic)
    pixels, counts = seen.pixels[:-1], seen.counts
    bars = visualization.frequency_bars(
        pixels / max(1, pixels.sum()), counts / max(1, counts.sum()), names, palette
    )
    visualization.save_image(written[1], bars)
    for place, image in enumerate(seen.images[:OVERLAYS]):
        known = ~np.isnan(image.nodes).any(axis=1)
        nodes, labels = image.nodes[known].astype(int), image.labels[known]
        shown = visualization.node_overlay(image.picture, nodes, labels, palette, names)
        written.append(folder / f'image_{place:02}_{Path(image.path).stem}.png')
        visualization.save_image(written[-1], shown)
    return written


def write_figures(
    seen: Survey,
    args: argparse.Namespace,
    cfg: Config,
    warnings: Sequence[str],
    pictures: Sequence[Path],
    folder: Path,
) -> list[Path]:
    """Save ``classes.csv``, a row for each class, and ``figures.json``, which has all."""
    from mm_tuning_plugin.atomic_write import write_json
    from mm_tuning_plugin.benchmark.report.tables import write_csv
    from mm_tuning_plugin.inspection.survey_summary import class_rows, summary

    rows = class_rows(seen)
    content = dict(
        config=args.config,
        cfg_options=args.cfg_options,
        seed=cfg['randomness']['seed'],
        window=args.window,
        **summary(seen),
        warnings=list(warnings),
        by_class=rows,
        image_paths=[image.path for image in seen.images],
        pictures=[path.name for path in pictures],
    )
    write_csv(folder / 'classes.csv', rows)
    write_json(folder / 'figures.json', content)
    return [folder / 'classes.csv', folder / 'figures.json']


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures of the classes as text, columns without any value left out."""
    columns = [c for c in COLUMNS if any(row[c[0]] is not None for row in rows)]
    lines = [['class', *(heading for _, heading, _ in columns)]]
    for row in rows:
        values = [(row[key], form) for key, _, form in columns]
        lines.append([row['name'], *('-' if v is None else form.format(v) for v, form in values)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
        '  '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def summary_lines(seen: Survey) -> list[str]:
    """Summarise the draws in a few lines."""
    from mm_tuning_plugin.inspection.survey_summary import summary

    figures = summary(seen)
    quantiles = {
        name: ', '.join(f'{value:g}' for value in q.values() if value is not None)
        for name, q in figures['quantiles'].items()
    }
    lines = [
        f'{figures["nodes"]} {figures["node_kind"]} of {figures["images"]} images '
        f'(the data set has {figures["dataset_images"]}); '
        f'{figures["classes_with_nodes"]} of {figures["classes"]} classes; '
        f'{figures["ignored_share"] or 0:.1%} of the pixels ignored; '
        f'background: {figures["background"] or "none"}'
    ]
    if figures['nodes']:
        shown = '; '.join(f'{name} {values}' for name, values in quantiles.items())
        lines.append(f'10, 50, 90 % of the nodes have at most: {shown}')
    return lines


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Survey the data of a config.

    Raises:
        UserError: A mistake of the user's.
    """
    args = build_parser(prog).parse_args(argv)
    require_stack()
    cfg = read_config(args)
    from mm_tuning_plugin.engine.config.derive import derive_tuning_config
    from mm_tuning_plugin.engine.config.derive_pipelines import moving_warnings
    from mm_tuning_plugin.engine.config.user_config import read_user_config
    from mm_tuning_plugin.inspection.label_values import label_warnings, take_census
    from mm_tuning_plugin.inspection.node_survey import first_indices, survey
    from mm_tuning_plugin.inspection.survey_summary import class_rows, sampling_warnings

    warnings: list[str] = []

    def warn(lines: Sequence[str]) -> None:
        warnings.extend(lines)
        for line in lines:
            print(f'warning: {line}', flush=True)

    facts = read_user_config(cfg)
    tuning = derive_tuning_config(cfg)
    dataset = cfg['train_dataloader']['dataset']
    warn(moving_warnings(dataset, 'train_dataloader.dataset'))
    census = take_census(
        dataset,
        lambda size: first_indices(tuning, size, args.images),
        tuning['default_scope'],
    )
    warn(label_warnings(census, facts.class_names, facts.ignore_values))
    seen = survey(cfg, facts, args.images, args.window, OVERLAYS)
    warn(sampling_warnings(seen))
    name = os.path.splitext(os.path.basename(args.config))[0]
    folder = make_folder(args.out or os.path.join('work_dirs', f'{name}_browse'), '--out')
    remove_former_pictures(folder)
    written = draw_pictures(seen, folder)
    written += write_figures(seen, args, cfg, warnings, written, folder)
    print(table(class_rows(seen)))
    print('\n'.join(summary_lines(seen)))
    print(f'{len(written)} files in {folder}')


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
