"""``report.html`` of a two-stage run: what ran, what came out, and how to make it again.

It is made from the files of the run alone, so it can be made again later.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mm_tuning_plugin.atomic_write import write_json, write_text
from mm_tuning_plugin.config_types import ConfigMap, PlainConfig
from mm_tuning_plugin.engine.common.files import LOAD_REPORT
from mm_tuning_plugin.engine.hooks.class_iou import FILE as CLASS_IOU
from mm_tuning_plugin.engine.pictures.captions import captioned
from mm_tuning_plugin.engine.pictures.hook import PICTURES_DIR
from mm_tuning_plugin.engine.report.scalars import Series, read_scalars
from mm_tuning_plugin.engine.report.versions import commit, device_name, versions
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.extras import need_extra
from mm_tuning_plugin.visualization.document import (
    Block,
    Code,
    Document,
    Drawing,
    Picture,
    Section,
    Table,
)
from mm_tuning_plugin.visualization.html import to_html
from mm_tuning_plugin.visualization.report_colours import COLOURS
from mm_tuning_plugin.visualization.svg import as_svg, new_axes

REPORT, CIRCUMSTANCES, STAGES = 'report.html', 'circumstances.json', 'stages.json'
STAGE_NAMES = {'tuning': 'Stage one, tuning', '': 'Stage two, fine-tuning'}
# Of what a stage logs, in this order; a loss with parts shows them too.
CURVES = ('loss', 'recall@1', 'mIoU')


def note_circumstances(work_dir: Path) -> None:
    """Write what only the running process knows: command, versions, device.

    Args:
        work_dir: Of the run.
    """
    write_json(
        work_dir / CIRCUMSTANCES,
        dict(
            command=shlex.join([Path(sys.executable).name, *sys.argv]),
            device=device_name(),
            commit=commit(),
            versions=versions(),
        ),
    )


def check_finished(folder: Path) -> None:
    """Look for what a finished run leaves.

    Raises:
        UserError: It is not there.
    """
    if not (folder / STAGES).is_file():
        raise UserError(
            str(folder),
            f'no {STAGES} found',
            'expected the work_dir of a finished run of both stages or of --no-tuning',
        )


def write_report(work_dir: Path, compare: Path | None = None) -> Path:
    """Write ``report.html`` into the folder of a run.

    Args:
        work_dir: Of a finished run of `MixAndMatchRunner`, with tuning or without.
        compare: Folder of another run, usually the baseline, to compare classes with.

    Returns:
        The file.

    Raises:
        UserError: A folder is of no finished run; a package of the extra `report` is missing.
    """
    need_extra('report')
    check_finished(work_dir)
    if compare is not None:
        check_finished(compare)
    write_text(work_dir / REPORT, to_html(build_document(work_dir, compare)))
    return work_dir / REPORT


def build_document(work_dir: Path, compare: Path | None = None) -> Document:
    """The report, before it has a format."""
    stages = _read(work_dir / STAGES)
    scalars = {stage: read_scalars(work_dir / stage) for stage in STAGE_NAMES}
    title = f'{work_dir.resolve().name}: ' + (
        'tuning and fine-tuning' if 'tuning' in stages else 'fine-tuning without tuning'
    )
    sections = [
        Section('Outcome', _outcome(stages, compare)),
        Section('Classes', _classes(work_dir, compare)),
        Section('Curves', _curves(scalars)),
        Section('Pictures', _pictures(work_dir)),
        Section('The start of the backbone', _start(work_dir)),
        Section('Time and memory', [_costs(stages, scalars)]),
        Section('What ran, and how to run it again', _making(work_dir)),
    ]
    return Document(title, [section for section in sections if section.blocks])


def _outcome(stages: ConfigMap, compare: Path | None) -> list[Block]:
    rows = []
    tuning = stages.get('tuning') or {}
    if tuning.get('reused'):
        rows.append(['tuning', 'an earlier one was used again'])
    for when, values in (tuning.get('retrieval') or {}).items():
        rows.append([f'recall@1 of nodes, iteration {when}', _recall(values)])
    metrics = (stages.get('fine_tuning') or {}).get('metrics') or {}
    other = _read(compare / STAGES) if compare else {}
    others = (other.get('fine_tuning') or {}).get('metrics') or {}
    for name, value in metrics.items():
        beside = ''
        if name in others:
            beside = f', in {compare.name} {others[name]:.2f} ({value - others[name]:+.2f})'
        rows.append([name, f'{value:.2f}{beside}'])
    blocks: list[Block] = [Table(['what', 'value'], rows)] if rows else []
    if compare:
        blocks.append(
            'One run beside another tells no more than this: seeds alone move mIoU by points, and '
            'tuning is training that a baseline of the same length did not get. '
            'tools/benchmark.py compares fairly.'
        )
    return blocks


def _recall(values: object) -> str:
    if isinstance(values, Mapping):
        values = next((v for name, v in values.items() if name.endswith('recall@1')), None)
    return f'{values:.3f}' if isinstance(values, (int, float)) else 'not measured'


def _classes(work_dir: Path, compare: Path | None) -> list[Block]:
    found = _by_class(work_dir)
    if not found:
        return []
    others = _by_class(compare) if compare else {}
    columns = ['class', 'IoU'] + ([f'IoU in {compare.name}', 'difference'] if compare else [])
    rows = []
    for name, value in found.items():
        row = [name, _percent(value)]
        if compare:
            other = others.get(name)
            both = value is not None and other is not None
            row += [_percent(other), f'{value - other:+.2f}' if both else '']
        rows.append(row)
    return [Table(columns, rows)]


def _by_class(work_dir: Path) -> dict[str, float | None]:
    content = _read(work_dir / CLASS_IOU)
    values = content.get('iou') or []
    names = content.get('classes') or []
    return {
        str(names[i]) if i < len(names) else f'class {i}': value for i, value in enumerate(values)
    }


def _percent(value: float | None) -> str:
    return '' if value is None else f'{value:.2f}'


def _curves(scalars: Mapping[str, Mapping[str, Series]]) -> list[Block]:
    drawings: list[Block] = []
    for stage, series in scalars.items():
        for wanted in CURVES:
            named = {
                name: values
                for name, values in series.items()
                if name == wanted or name.endswith(f'/{wanted}')
            }
            for name, values in named.items():
                if len(values) < 2:
                    continue  # the outcome has it
                drawings.append(Drawing(_curve(name, values), f'{STAGE_NAMES[stage]}: {name}'))
    return drawings


@as_svg
def _curve(name: str, values: Series) -> Picture:
    figure, axes = new_axes(2.4)
    steps = sorted(values)
    mark = 'o' if len(steps) < 30 else ''
    axes.plot(steps, [values[step] for step in steps], color=COLOURS[4], marker=mark)
    axes.set_xlabel('iteration (or epoch, where it is logged by epochs)')
    axes.set_ylabel(name)
    return figure


def _pictures(work_dir: Path) -> list[Block]:
    return [Picture(*shown) for shown in captioned(work_dir / 'tuning' / PICTURES_DIR)]


def _start(work_dir: Path) -> list[Block]:
    report = _read(work_dir / LOAD_REPORT)
    if not report:
        return ['No checkpoint was given: the config initialises the backbone.']
    layout = report.get('layout') or {}
    rows = [
        ['file', str(report.get('path'))],
        ['found in', f'{layout.get("container")!r}, prefix {layout.get("prefix")!r}'],
        ['names', str(layout.get('renaming'))],
        ['share of the parameters', f'{100 * float(report.get("share") or 0):.1f} %'],
    ]
    rows += [
        [stage, f'{loaded:,} of {expected:,} parameters']
        for stage, (loaded, expected) in (report.get('stages') or {}).items()
    ]
    rows += [['note', str(note)] for note in report.get('notes') or []]
    return [Table(['what', 'value'], rows)]


def _costs(stages: ConfigMap, scalars: Mapping[str, Mapping[str, Series]]) -> Table:
    rows = []
    for stage, title in STAGE_NAMES.items():
        series, record = scalars[stage], stages.get(stage or 'fine_tuning') or {}
        if not record:
            continue
        memory = max((series.get('memory') or {0: 0.0}).values())
        rows.append([
            title,
            f'{record["seconds"]:.0f}' if 'seconds' in record else '',
            _median(series.get('time')),
            _median(series.get('data_time')),
            f'{memory:.0f}' if memory else '',
        ])  # fmt: skip
    columns = ['stage', 'seconds', 'ms an iteration', 'of them for data', 'peak MiB on the GPU']
    return Table(columns, rows)


def _median(series: Series | None) -> str:
    return f'{1000 * statistics.median(series.values()):.1f}' if series else ''


def _making(work_dir: Path) -> list[Block]:
    known = _read(work_dir / CIRCUMSTANCES)
    blocks: list[Block] = []
    if known.get('command'):
        blocks.append(Code(str(known['command'])))
    rows = [['device', str(known.get('device', 'not noted'))]]
    if known.get('commit'):
        rows.append(['commit of mm_tuning_plugin', str(known['commit'])])
    rows += [[name, str(version)] for name, version in (known.get('versions') or {}).items()]
    blocks.append(Table(['what', 'version'], rows))
    configs: Sequence[Path] = [
        work_dir / 'tuning' / 'tuning_config.py', *sorted(work_dir.glob('*.py'))
    ]  # fmt: skip
    for file in configs:
        if file.is_file():
            blocks += [f'{file.relative_to(work_dir)}:', Code(file.read_text(encoding='utf-8'))]
    return blocks


def _read(path: Path) -> PlainConfig:
    """Return a JSON file's content; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
