"""The sections of a report: the questions to a comparison and the layout of the answers."""

from __future__ import annotations

import math

from mm_tuning_plugin.benchmark.analysis.comparison import BASELINES, LONGER, Comparison, Gain, Row
from mm_tuning_plugin.benchmark.analysis.statistics import Paired
from mm_tuning_plugin.benchmark.report import plots
from mm_tuning_plugin.benchmark.report.wording import (
    NOTHING,
    average,
    difference,
    finding,
    interval,
    marks,
    p_value,
    pairs,
    row_name,
    share,
    signed,
    spread,
    times,
    verdict,
)
from mm_tuning_plugin.visualization.document import Block, Drawing, Section, Table

T_HEAD, BOOTSTRAP_HEAD = '95 %, paired t', '95 %, pairs x images'


def anchor(comparison: Comparison, row: Row) -> str:
    """The name of a row's section in the page."""
    return f'row-{comparison.rows().index(row) + 1}'


def verdicts(comparison: Comparison, arm: str | None, bar: float) -> Section:
    """One sentence a row, and all gains in one figure and table."""
    if arm is None:
        text = f'No arm that tunes is among {", ".join(comparison.arms())}: nothing to judge.'
        return Section('Verdict', [text])
    rows = comparison.rows()
    blocks: list[Block] = [
        verdict(comparison, row, arm, bar, anchor(comparison, row)) for row in rows
    ]
    chosen = {row: comparison.baseline(row, arm) for row in rows}
    gains = {row: comparison.gain(row, arm, name) for row, name in chosen.items() if name}
    gains = {row: gain for row, gain in gains.items() if gain.t.pairs}
    if gains:
        blocks += _all_gains(comparison, gains, bar)
    return Section('Verdict', blocks)


def _all_gains(comparison: Comparison, gains: dict[Row, Gain], bar: float) -> list[Block]:
    arm = next(iter(gains.values())).arm
    look = plots.looks(comparison.arms())[arm]
    drawing = plots.forest(
        [f'{row.backbone}, {row.start}, {share(row.fraction)}' for row in gains],
        [(gain.t, gain.bootstrap) for gain in gains.values()],
        f'mIoU: {arm} minus its baseline',
        [look] * len(gains),
        bar,
    )
    table, marked = [], set()
    for line, (row, gain) in enumerate(gains.items()):
        scores = comparison.scores(row, arm), comparison.scores(row, gain.baseline)
        reservations = marks(comparison, row, gain)
        if reservations:
            marked.add(line)
        table.append(
            [
                *(row.backbone, row.start, share(row.fraction), pairs(gain)),
                *(signed(gain.t.mean), interval(gain.t), interval(gain.bootstrap)),
                *(gain.baseline, '; '.join(reservations)),
                *(spread(scores[1]), spread(scores[0])),
                times(comparison.cost(row, arm, gain.baseline)),
                difference(comparison.convergence(row)),
                average(comparison.scores(row, arm, 'images'), 0),
            ]
        )
    columns = [
        *('backbone', 'start', 'labels', 'pairs', 'gain', T_HEAD, BOOTSTRAP_HEAD, 'baseline'),
        *('reservations', 'baseline mIoU, sd', f'{arm} mIoU, sd', 'FLOPs / baseline'),
        *(f'{LONGER} - direct', 'training images'),
    ]
    caption = f'{arm} minus the better of direct and direct-matched: thick the paired t interval, '
    caption += 'thin the bootstrap over pairs and images.'
    return [Drawing(drawing, caption), Table(columns, table, frozenset(marked))]


def over_starts(comparison: Comparison, arm: str | None, bar: float) -> list[Section]:
    """The mean gain over the starts with weights, if there are several."""
    starts = comparison.results.plan.get('starts')
    starts = starts if isinstance(starts, dict) else {}
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in comparison.rows():
        if starts.get(row.start, not starts and row.start != 'random'):
            groups.setdefault((row.backbone, row.fraction), []).append(row)
    sentences: list[Block] = []
    lines = []
    for (backbone, fraction), rows in groups.items():
        chosen = [comparison.baseline(row, arm) for row in rows] if arm else []
        if len(rows) < 2 or arm is None or None in chosen:
            continue
        names = ', '.join(row.start for row in rows)
        kinds = [('the better of each', chosen), *((b, [b] * len(rows)) for b in BASELINES)]
        for kind, baselines in kinds:
            gain = comparison.over_starts(rows, arm, baselines)
            if gain is None:
                continue
            amounts = signed(gain.t.mean), interval(gain.t), interval(gain.bootstrap)
            lines.append([backbone, share(fraction), names, kind, pairs(gain), *amounts])
            if baselines is chosen:
                where = f'{backbone}, {share(fraction)} of labels, mean of {names}'
                sentences.append(f'{where}: {finding(gain, bar)}.')
    if not lines:
        return []
    text = 'Differences are averaged over the starts within each pair first, then over pairs: '
    text += 'starts that share seeds and images are no further pairs.'
    columns = ['backbone', 'labels', 'starts', f'{arm} minus', 'pairs', 'mIoU']
    table = Table([*columns, T_HEAD, BOOTSTRAP_HEAD], lines)
    return [Section('Mean over starts', [*sentences, table, text])]


def label_efficiency(comparison: Comparison) -> list[Section]:
    """Scores over the share of labels, if there are several."""
    blocks: list[Block] = []
    for backbone, start in dict.fromkeys(row[:2] for row in comparison.rows()):
        curves = [comparison.efficiency(backbone, start, arm) for arm in comparison.arms()]
        curves = [curve for curve in curves if curve is not None]
        if not curves:
            continue
        shares = sorted({fraction for curve in curves for fraction in curve.fractions})
        table = []
        for curve in curves:
            points = dict(zip(curve.fractions, curve.scores))
            scores = [f'{points[s]:.2f}' if s in points else NOTHING for s in shares]
            table.append([curve.arm, str(curve.pairs), *scores, _reached(curve)])
        heads = [f'mIoU at {share(s)}' for s in shares]
        reach = f'labels to reach direct at {share(shares[-1])}'
        name = f'{backbone}, {start}'
        blocks += [
            f'{name}:',
            Table(['arm', 'pairs', *heads, reach], table),
            Drawing(
                plots.efficiency(curves, plots.looks(comparison.arms())),
                f'{name}: mean mIoU over the share of labels; dashed, direct with all of them.',
            ),
        ]
    return [Section('Label efficiency', blocks)] if blocks else []


def _reached(curve) -> str:
    if math.isnan(curve.reached):
        return 'not reached'
    return share(curve.reached) if curve.crossed else f'at most {share(curve.reached)}'


def row_section(comparison: Comparison, row: Row, arm: str | None) -> Section:
    """All arms of a row."""
    title, mark = row_name(row), anchor(comparison, row)
    arms = [name for name in comparison.arms(row) if len(comparison.scores(row, name))]
    if not arms:
        return Section(title, ['No run of this row is finished.'], mark)
    baseline = (comparison.baseline(row, arm) if arm else None) or arms[0]
    gains = {n: comparison.gain(row, n, baseline) for n in arms if n != baseline}
    blocks: list[Block] = [_arms_table(comparison, row, arms, baseline)]
    if arm in arms and len(arms) > 1:
        blocks += [f'{arm} minus each other arm:', _controls(comparison, row, arm, arms)]
    blocks += _figures(comparison, row, arms, gains, baseline)
    if arm in arms and arm != baseline:
        blocks += _class_blocks(comparison, row, arm, baseline)
    return Section(title, blocks, mark)


def _arms_table(comparison: Comparison, row: Row, arms: list[str], baseline: str) -> Table:
    references = list(dict.fromkeys([baseline, 'direct']))
    lines = []
    for arm in arms:
        scores = comparison.scores(row, arm)
        gains = [comparison.gain(row, arm, name) for name in references]
        recall = [average(comparison.scores(row, arm, c), 3) for c in ('recall_start', 'recall')]
        lines.append(
            [
                *(arm, spread(scores), ', '.join(f'{score:.2f}' for score in scores)),
                *('' if gain.baseline == arm else difference(gain.t) for gain in gains),
                times(comparison.cost(row, arm)),
                '' if set(recall) == {NOTHING} else ', '.join(recall),
                average(comparison.scores(row, arm, 'seconds'), 0),
                average(comparison.scores(row, arm, 'peak_memory_mib'), 0),
            ]
        )
    heads = [f'minus {name} [{T_HEAD}]' for name in references]
    columns = ['arm', 'mIoU, sd', 'each run', *heads, 'FLOPs / direct']
    return Table([*columns, 'recall@1 before, after', 'seconds', 'peak MiB'], lines)


def _controls(comparison: Comparison, row: Row, arm: str, arms: list[str]) -> Table:
    gains = [comparison.gain(row, arm, other) for other in arms if other != arm]
    lines = [
        [g.baseline, pairs(g), signed(g.t.mean), interval(g.t), interval(g.bootstrap),
         times(comparison.cost(row, arm, g.baseline))]
        for g in gains
    ]  # fmt: skip
    columns = [f'{arm} minus', 'pairs', 'mIoU', T_HEAD, BOOTSTRAP_HEAD, f'FLOPs of {arm} / its']
    return Table(columns, lines)


def _figures(
    comparison: Comparison, row: Row, arms: list[str], gains: dict[str, Gain], baseline: str
) -> list[Drawing]:
    styles = plots.looks(comparison.arms())
    drawings = []
    gains = {name: gain for name, gain in gains.items() if gain.t.pairs}
    if gains:
        svg = plots.forest(
            list(gains),
            [(gain.t, gain.bootstrap) for gain in gains.values()],
            f'mIoU minus {baseline}',
            [styles[name] for name in gains],
        )
        drawings.append(Drawing(svg, f'{row_name(row)}: arms minus {baseline}.'))
    by_pair = {name: comparison.scores(row, name).to_dict() for name in arms}
    text = f'{row_name(row)}: every run; lines join runs of one fold and seed.'
    drawings.append(Drawing(plots.seeds(by_pair, styles), text))
    points: dict[str, tuple[float, Paired]] = {}
    for name in arms:
        flops, gain = comparison.cost(row, name), comparison.gain(row, name, 'direct').t
        if gain.pairs and not math.isnan(flops):
            points[name] = flops, gain
    if len(points) > 1:
        text = f'{row_name(row)}: gain over direct against compute.'
        drawings.append(Drawing(plots.cost(points, styles), text))
    return drawings


def _class_blocks(comparison: Comparison, row: Row, arm: str, baseline: str) -> list[Block]:
    changes = comparison.classes(row, arm, baseline)
    if not changes:
        return []
    names = comparison.results.classes
    lines = [
        [names[c.index], signed(c.plain.mean), interval(c.plain), interval(c.holm),
         interval(c.joint), p_value(c.p_value)]
        for c in sorted(changes, key=lambda change: -change.plain.mean)
    ]  # fmt: skip
    columns = [
        *('class', f'IoU: {arm} minus {baseline}', '95 % alone', "95 % at Holm's step"),
        *('95 % jointly (Bonferroni)', 'p, Holm'),
    ]
    svg = plots.classes(names, changes, f'IoU: {arm} minus {baseline}')
    text = f"{row_name(row)}: by class, with intervals at Holm's step; filled where p < 0.05."
    left_out = len(names) - len(changes)
    more = f' {left_out} of {len(names)} have no IoU in some run and are left out.'
    return ['Classes:' + (more if left_out else ''), Table(columns, lines), Drawing(svg, text)]
