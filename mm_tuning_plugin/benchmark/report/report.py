"""The report of a benchmark, report.md and report.html, from the files of its runs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from mm_tuning_plugin.atomic_write import write_text
from mm_tuning_plugin.benchmark.analysis.comparison import UNDER_TRAINED, Comparison
from mm_tuning_plugin.benchmark.analysis.results import read_results
from mm_tuning_plugin.benchmark.analysis.statistics import REPLICATES
from mm_tuning_plugin.benchmark.report.notes import PROVENANCE, notes
from mm_tuning_plugin.benchmark.report.sections import (
    label_efficiency,
    over_starts,
    row_section,
    verdicts,
)
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.visualization.document import Code, Document, Section, Table, to_markdown
from mm_tuning_plugin.visualization.html import to_html


def write_report(work_dir: str | os.PathLike) -> None:
    """Write ``report.md`` and ``report.html`` into a benchmark's folder.

    Args:
        work_dir: Holds ``results.csv``, ``plan.json`` and ``areas/``. Without the areas of a run
            there is no bootstrap where it takes part, and the report says so. ``bar`` in the plan
            is the gain, in points of mIoU, that is asked for (0 without it).

    Raises:
        UserError: A file is missing or damaged, there is no job, or no job is finished.
    """
    folder = Path(work_dir)
    document = build_document(folder)
    for name, text in (('report.md', to_markdown(document)), ('report.html', to_html(document))):
        write_text(folder / name, text)


def build_document(work_dir: Path) -> Document:
    """The report before it has a format.

    Raises:
        UserError: As `write_report`.
    """
    results = read_results(work_dir)
    if results.done.empty:
        raise UserError(
            f'{work_dir / "results.csv"}',
            f'{len(results.jobs)} jobs and none with an mIoU found',
            'expected at least one that is done',
        )
    bar = results.plan.get('bar') or 0
    if isinstance(bar, bool) or not isinstance(bar, (int, float)):
        raise UserError(
            f'{work_dir / "plan.json"}', f'bar {bar!r} found', 'expected a number of points'
        )
    comparison = Comparison(results)
    arm = comparison.headline_arm()
    found = notes(comparison)
    sections = [
        verdicts(comparison, arm, bar),
        *over_starts(comparison, arm, bar),
        *([Section('To be noted', found)] if found else []),
        *label_efficiency(comparison),
        *(row_section(comparison, row, arm) for row in comparison.rows()),
        reading(comparison),
        making(comparison),
    ]
    return Document('Does tuning pay? Results of the benchmark', sections)


def reading(comparison: Comparison) -> Section:
    """How figures are made, and their limits."""
    return Section(
        'How to read it',
        [
            'A pair is a fold and a seed that both arms have finished; within it they share '
            'images, order of data and the start of the head. Differences are of mIoU in points '
            '(percent), as mmseg computes it. sd is the standard deviation over runs.',
            'The baseline of a row is the better of direct and direct-matched (as many FLOPs as '
            'tuning and fine-tuning) in these very pairs: the choice favours the baseline.',
            'The t interval is over pairs, on these validation images. The bootstrap draws pairs '
            f'and, crossed with them, blocks of {comparison.block_size} consecutive validation '
            'images, the same for both arms, one fewer than there are; mIoU is computed anew '
            f'from the areas drawn ({REPLICATES} replicates, percentiles). It is too narrow '
            'over few pairs, as the other is blind to the choice of images: a gain is claimed '
            'where both exclude 0, and "no gain shown" is no proof that there is none.',
            f'A row is under-trained where twice the schedule adds more than {UNDER_TRAINED} '
            'points to direct: a gain there may be no more than a schedule that was too short.',
            "Classes: p-values of the paired t, adjusted by Holm (1979). An interval at Holm's "
            'step excludes 0 exactly where the adjusted p is below 0.05; only the wider '
            'ones (Bonferroni) hold jointly with 95 %.',
            'Shares of labels are interpolated in their logarithm between measured ones. FLOPs are '
            'of all training but the proxy task, which all arms of a row share.',
        ],
    )


def making(comparison: Comparison) -> Section:
    """The command, and what ran it."""
    command = comparison.results.plan.get('command') or 'not recorded'
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    lines = []
    for column in PROVENANCE:
        values = comparison.done[column].replace('', 'not known').value_counts()
        each = [f'{value} ({count})' if len(values) > 1 else value for value, count in
                values.items()]  # fmt: skip
        lines.append([column, ', '.join(each)])
    counts = comparison.jobs['status'].value_counts()
    lines.append(['jobs', ', '.join(f'{count} {status}' for status, count in counts.items())])
    seconds = comparison.jobs['seconds'].sum()
    lines.append(['hours of all jobs', f'{seconds / 3600:.2f}'])
    return Section('How it was made', [Code(str(command)), Table(['what', 'value'], lines)])
