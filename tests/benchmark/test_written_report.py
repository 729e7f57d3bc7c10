import json
import re

import numpy as np
import pytest
from html_page import Page
from mistakes import mistake
from synthetic_results import arms, job, write

from mm_tuning_plugin.benchmark.analysis.comparison import Comparison
from mm_tuning_plugin.benchmark.analysis.results import read_results
from mm_tuning_plugin.benchmark.report.notes import notes
from mm_tuning_plugin.benchmark.report.report import write_report
from mm_tuning_plugin.visualization import svg
from mm_tuning_plugin.visualization.document import (
    Code,
    Document,
    Section,
    Table,
    escape,
    to_markdown,
)

GAIN = {
    'direct': [40.0, 40.5, 39.8],
    'direct-matched': [40.3, 40.6, 40.2],
    'direct-2x': [40.4, 40.9, 40.2],
    'tuned': [42.3, 42.4, 42.3],
}
NO_GAIN = {**GAIN, 'tuned': [41.3, 39.6, 40.3]}


def compare(folder, jobs, plan=None):
    comparison = Comparison(read_results(write(folder, jobs, plan)), replicates=500)
    return comparison, comparison.rows()[0]


DRAWN = ('test_the_same_report_twice', 'test_hostile_names_are_shown_as_they_are',
         'test_the_page_is_whole_and_alone')  # fmt: skip


@pytest.fixture(autouse=True)
def _figures_set_up_but_not_drawn(request, monkeypatch):
    """Most of the time of a report goes into its figures, of which most tests here read nothing."""
    if request.node.name not in DRAWN:
        monkeypatch.setattr(svg, 'to_svg', lambda figure: '<svg viewBox="0 0 1 1"></svg>')


def texts(folder, jobs, plan=None):
    write_report(write(folder, jobs, plan))
    return [(folder / f'report.{kind}').read_text(encoding='utf-8') for kind in ('md', 'html')]


def test_a_planted_gain_is_found(tmp_path):
    comparison, row = compare(tmp_path, arms(GAIN, noise=0.3))
    gain = comparison.gain(row, 'tuned', comparison.baseline(row, 'tuned'))
    assert gain.baseline == 'direct-matched'
    assert gain.t.mean == pytest.approx(np.mean([2.0, 1.8, 2.1]), abs=0.02)
    assert gain.t.low > 1 and gain.bootstrap.low > 1 and gain.bootstrap.pairs == 3
    assert gain.verdict() == 'gain' == gain.verdict(1.9) and gain.verdict(2.0) == 'none'
    swapped = comparison.gain(row, 'direct-matched', 'tuned')
    assert swapped.verdict() == 'loss'


def test_no_gain_is_claimed_of_none(tmp_path):
    comparison, row = compare(tmp_path, arms(NO_GAIN))
    gain = comparison.gain(row, 'tuned', 'direct-matched')
    assert gain.t.low < 0 < gain.t.high and gain.verdict() == 'none'


def test_the_bootstrap_can_withhold_a_gain(tmp_path):
    """All seeds agree, but the gain comes from one block of images."""
    jobs = arms({'direct': [40, 41, 42]})
    for seed in range(3):
        iou = np.full((20, 1), 40.0 + seed)
        iou[:5] += 8 + 0.1 * seed
        iou[5:] -= 1
        jobs.append(job('tuned', seed, iou))
    comparison, row = compare(tmp_path, jobs)
    gain = comparison.gain(row, 'tuned', 'direct')
    assert gain.t.low > 0 > gain.bootstrap.low and gain.verdict() == 'none'


def test_the_same_report_twice(tmp_path):
    first = texts(tmp_path, arms(GAIN, noise=0.3))
    assert texts(tmp_path, arms(GAIN, noise=0.3)) == first
    assert not list(tmp_path.glob('*.writing'))


def test_without_areas_the_t_interval_decides_and_the_report_says_so(tmp_path):
    jobs = [(row, None if row['arm'] == 'tuned' else areas) for row, areas in arms(GAIN)]
    comparison, row = compare(tmp_path, jobs)
    gain = comparison.gain(row, 'tuned', 'direct')
    assert not gain.bootstrap.has_interval and gain.verdict() == 'gain'
    assert '**⚠ images not resampled**' in texts(tmp_path, jobs)[0]


def test_the_better_baseline_over_common_pairs(tmp_path):
    scores = {'direct': [50, 40, 40], 'direct-matched': [41, 41, 41], 'tuned': [45, 45, 45]}
    comparison, row = compare(tmp_path, arms(scores))
    assert comparison.baseline(row, 'tuned') == 'direct'
    jobs = [j for j in arms(scores) if (j[0]['arm'], j[0]['seed']) != ('tuned', 0)]
    comparison, row = compare(tmp_path / 'without', jobs)
    assert comparison.baseline(row, 'tuned') == 'direct-matched'
    jobs = [j for j in arms(scores) if j[0]['arm'] != 'direct-matched']
    comparison, row = compare(tmp_path / 'alone', jobs)
    assert comparison.baseline(row, 'tuned') == 'direct'


@pytest.mark.parametrize(
    'added, state', [(0.5, 'converged'), (0.51, 'under-trained'), (-3, 'converged')]
)
def test_convergence_on_both_sides(tmp_path, added, state):
    scores = {**GAIN, 'direct-2x': [score + added for score in GAIN['direct']]}
    comparison, row = compare(tmp_path, arms(scores))
    assert comparison.training(row) == state
    markdown, page = texts(tmp_path, arms(scores))
    assert ('**⚠ under-trained**' in markdown) == (state == 'under-trained')
    assert ('⚠ under-trained</span>' in page) == (state == 'under-trained')
    assert ('direct has converged' in markdown) == (state == 'converged')


def test_convergence_that_was_not_measured(tmp_path):
    scores = {arm: line for arm, line in GAIN.items() if arm != 'direct-2x'}
    markdown = texts(tmp_path, arms(scores))[0]
    assert 'whether direct has converged was not measured' in markdown
    assert '**⚠ convergence not measured**' in markdown


def test_a_single_seed_has_no_interval_and_no_claim(tmp_path):
    markdown, _ = texts(tmp_path, arms({arm: line[:1] for arm, line in GAIN.items()}))
    assert 'one pair only, no interval, no gain shown: tuned +2.00 mIoU' in markdown
    assert '**⚠ 1 pair only**' in markdown
    assert 'nan' not in markdown.lower()


def test_verdicts_of_both_kinds_and_the_bar(tmp_path):
    gain = texts(tmp_path, arms(GAIN), {'bar': 1.0})[0]
    assert re.search(r'tuned gains \+1\.97 \[\+1\.\d\d, \+2\.\d\d\] mIoU over direct-matched', gain)
    assert 'above the bar of 1;' in gain
    high = texts(tmp_path, arms(GAIN), {'bar': 2.5})[0]
    assert 'tuned gains' in high and 'not shown to reach the bar of 2.5' in high
    assert 'no gain shown: tuned +0.03 [' in texts(tmp_path, arms(NO_GAIN))[0]


def test_failed_and_missing_jobs_are_left_out_and_said(tmp_path):
    jobs = arms({**GAIN, 'tuned': [42.0, 42.5, 42.1]})
    for number, status, error in ((9, 'failed', 'out of memory'), (1, 'missing', '')):
        jobs[number] = ({**jobs[number][0], 'status': status, 'error': error, 'mIoU': ''}, None)
    comparison, row = compare(tmp_path, jobs)
    gain = comparison.gain(row, 'tuned', 'direct')
    assert list(gain.differences.index.get_level_values('seed')) == [2] and gain.planned == 3
    markdown = texts(tmp_path, jobs)[0]
    assert 'Failed: s-1-tuned-fold0-seed0: out of memory' in markdown
    assert 'Not run yet: 1 of 12 jobs.' in markdown
    assert '**⚠ 1 of 3 pairs lacking**' in markdown and '2 of 3 pairs' in markdown


def test_means_over_starts_are_no_further_pairs(tmp_path):
    """Two starts whose gains move against each other: averaged first, seeds agree."""
    first = arms({'direct': [40, 40, 40], 'tuned': [41, 42, 43]}, start='a')
    second = arms({'direct': [30, 30, 30], 'tuned': [33.1, 32, 31.1]}, start='b')
    random = arms({'direct': [20, 20, 20], 'tuned': [20, 20, 20]}, start='random')
    plan = {'starts': {'a': 'a.pth', 'b': {'proxy': 'b.py'}, 'random': None}}
    comparison, _ = compare(tmp_path, first + second + random, plan)
    gain = comparison.over_starts(comparison.rows()[:2], 'tuned', ['direct', 'direct'])
    assert gain.differences.tolist() == pytest.approx([2.05, 2, 2.05])
    assert gain.t.pairs == 3 and gain.t.low > 1.9 and gain.bootstrap.low > 1.9
    markdown = texts(tmp_path, first + second + random, plan)[0]
    assert 'mean of a, b: tuned gains +2.03' in markdown
    without = [j for j in first if (j[0]['arm'], j[0]['seed']) != ('tuned', 1)]
    comparison, _ = compare(tmp_path / 'b', without + second, plan)
    gain = comparison.over_starts(comparison.rows(), 'tuned', ['direct', 'direct'])
    assert gain.differences.tolist() == pytest.approx([2.05, 2.05])


def test_label_efficiency(tmp_path):
    jobs = []
    for fraction, direct, tuned in ((0.25, 30, 38), (0.5, 36, 42), (1.0, 40, 41)):
        scores = {'direct': [direct, direct + 1], 'tuned': [tuned, tuned + 1]}
        jobs += arms(scores, fraction=fraction)
    comparison, _ = compare(tmp_path, jobs)
    curve = comparison.efficiency('r18', 's', 'tuned')
    assert curve.fractions == [0.25, 0.5, 1.0] and curve.scores == pytest.approx([38.5, 42.5, 41.5])
    assert curve.target == pytest.approx(40.5) and curve.pairs == 2 and curve.crossed
    assert curve.reached == pytest.approx(0.25 * 2**0.5)
    assert '| tuned | 2 | 38.50 | 42.50 | 41.50 | 35.4 % |' in texts(tmp_path, jobs)[0]


def test_a_class_that_is_absent_is_left_out_and_said(tmp_path):
    jobs = []
    for row, (intersect, union) in arms(GAIN):
        intersect[:, 1] = union[:, 1] = 0
        score = 100 * intersect[:, [0, 2]].sum() / union[:, [0, 2]].sum()
        jobs.append(({**row, 'mIoU': round(score, 2), 'IoU.road': 'nan'}, (intersect, union)))
    comparison, row = compare(tmp_path, jobs)
    assert [change.index for change in comparison.classes(row, 'tuned', 'direct')] == [0, 2]
    assert comparison.gain(row, 'tuned', 'direct').bootstrap.low > 0
    markdown = texts(tmp_path, jobs)[0]
    assert 'left out of the mean as mmseg does: road.' in markdown
    assert '1 of 3 have no IoU in some run and are left out' in markdown
    assert not [note for note in notes(comparison) if 'its areas give' in note]


def test_mixtures_and_contradictions_are_pointed_out(tmp_path):
    jobs = arms(GAIN)
    assert notes(compare(tmp_path / 'clean', jobs)[0]) == []
    jobs[0][0].update(commit='other', device='H100', code='def')
    jobs[5][0].update(mIoU=77.0)
    jobs[7][0].update(images=50)
    found = '\n'.join(notes(compare(tmp_path, jobs)[0]))
    assert 'more than one commit are compared: abc (11 jobs), other (1 jobs)' in found
    assert 'more than one code are compared: not known (11 jobs), def (1 jobs)' in found
    assert 'more than one device' in found and 'torch' not in found
    assert 's-1-direct-matched-fold0-seed2: its areas give an mIoU of 40.20' in found
    assert 'arms of fold 0 were trained on 50, 100 images' in found


def test_unequal_compute_is_marked(tmp_path):
    scores = {'direct': [40, 41], 'tuned': [42, 43]}
    assert "**⚠ 1.40 times the baseline's compute**" in texts(tmp_path, arms(scores))[0]
    unknown = arms(scores, flops=0)
    assert '**⚠ compute not known**' in texts(tmp_path, unknown)[0]
    assert "baseline's compute**" not in texts(tmp_path, arms(GAIN))[0]


HOSTILE = '<script>alert(1)</script>|`$x$ [a](javascript:b) "\' &amp; _c_'


def test_hostile_names_are_shown_as_they_are(tmp_path):
    jobs = arms(GAIN, start=HOSTILE)
    for number, (row, areas) in enumerate(jobs):
        jobs[number] = (
            {**row, 'job': f'j{number}', 'backbone': HOSTILE, f'IoU.{HOSTILE}': 9},
            areas,
        )
    jobs[0] = ({**jobs[0][0], 'status': 'failed', 'error': HOSTILE, 'mIoU': ''}, None)
    markdown, page = texts(tmp_path, jobs, {'command': f'{HOSTILE}```'})
    seen = Page(page)
    assert not seen.open and not [tag for tag, _ in seen.tags if tag == 'script']
    assert HOSTILE in ''.join(seen.text)
    for line in markdown.replace(f'{HOSTILE}```', '').splitlines():
        assert '<' not in line and not re.search(r'(?<!\\)\]\(', line)
    tables = re.findall(r'(?:^\|.*\n)+', markdown, flags=re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert '````\n' in markdown


def test_escape():
    assert escape('a|b\n*c* <d> & `e` [f](g)') == r'a\|b \*c\* &lt;d&gt; &amp; \`e\` [f\](g)'
    assert escape('- x') == r'\- x' and escape('1. x') == r'1\. x'
    assert escape('+1.20 [+0.10, +2.30]') == '+1.20 [+0.10, +2.30]'
    code = Document('t', [Section('s', [Code('a ``` b'), Table(['x'], [['|']])])])
    assert to_markdown(code) == '# t\n\n## s\n\n````\na ``` b\n````\n\n| x |\n| --- |\n| \\| |\n'


def test_the_page_is_whole_and_alone(tmp_path):
    jobs = arms(GAIN) + arms(GAIN, fraction=0.5)
    _, page = texts(tmp_path, jobs)
    seen = Page(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">') and not seen.open
    assert len(seen.ids) == len(set(seen.ids))
    svgs = [attrs for tag, attrs in seen.tags if tag == 'svg']
    assert len(svgs) >= 8 and all('viewbox' in a and 'width' not in a for a in svgs)
    for _, attributes in seen.tags:
        for name in ('src', 'href', 'xlink:href', 'clip-path', 'style'):
            value = attributes.get(name) or ''
            if name in ('clip-path', 'style'):
                value = (re.findall(r'url\((.*?)\)', value) or [''])[0]
            assert not value or (value.startswith('#') and value[1:] in seen.ids)
    assert '@import' not in page and 'name="viewport"' in page
    boxes = page.count('<div class="scroll"')
    assert boxes == page.count('<table>') >= 4


def test_how_it_was_made_is_at_the_end(tmp_path):
    markdown = texts(tmp_path, arms(GAIN), {'command': ['python', 'tools/benchmark.py', 'A PLAN']})[
        0
    ]
    last = markdown[markdown.index('## How it was made') :]
    assert "```\npython tools/benchmark.py 'A PLAN'\n```" in last
    for line in ('| commit | abc |', '| device | CPU |', '| torch | 2 |', '| jobs | 12 done |'):
        assert line in last


def damage_csv(text):
    return lambda folder: (folder / 'results.csv').write_text(text(
        (folder / 'results.csv').read_text(encoding='utf-8')), encoding='utf-8')  # fmt: skip


def other_images(folder):
    path = folder / 'areas' / 's-1-tuned-fold0-seed1.npz'
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, 'names': arrays['names'][::-1]})


@pytest.mark.parametrize(
    'damage, file, facts',
    [
        (lambda f: (f / 'results.csv').unlink(), 'results.csv', 'no such file'),
        (damage_csv(lambda text: ''), 'results.csv', 'No columns'),
        (damage_csv(lambda text: text.splitlines()[0]), 'results.csv', 'no job'),
        (damage_csv(lambda text: text.replace('arm,', 'leg,')), 'results.csv', "'arm'"),
        (damage_csv(lambda text: text.replace(',40.5,', ',4o.5,')), 'results.csv',
         ('line', 'mIoU', "'4o.5'")),
        (damage_csv(lambda text: text.replace(',done,', ',dome,')), 'results.csv',
         ('line 2', "'dome'")),
        (damage_csv(lambda text: text.replace('seed1', 'seed0')), 'results.csv',
         ('line', '-seed0')),
        (damage_csv(lambda text: text.replace(',done,', ',missing,')), 'results.csv',
         ('12 jobs', 'mIoU')),
        (damage_csv(lambda text: text + 'a,b\n"'), 'results.csv', 'EOF'),
        (lambda f: (f / 'plan.json').unlink(), 'plan.json', 'no such file'),
        (lambda f: (f / 'plan.json').write_text('{"a":'), 'plan.json', 'line 1 column'),
        (lambda f: (f / 'plan.json').write_text('[]'), 'plan.json', 'list'),
        (lambda f: (f / 'plan.json').write_text('{"block_size": 0}'), 'plan.json', 'block_size 0'),
        (lambda f: (f / 'plan.json').write_text('{"bar": "x"}'), 'plan.json', "bar 'x'"),
        (lambda f: (f / 'areas/s-1-tuned-fold0-seed1.npz').write_bytes(b'PK'),
         'areas/s-1-tuned-fold0-seed1.npz', 'pickle'),
        (other_images, 'areas/s-1-tuned-fold0-seed1.npz', 's-1-direct-fold0-seed0.npz'),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named_in_one_line(tmp_path, damage, file, facts):
    write(tmp_path, arms(GAIN))
    damage(tmp_path)
    with mistake(str(tmp_path / file), facts):
        write_report(tmp_path)
    assert not (tmp_path / 'report.md').exists()


def test_areas_of_another_shape_are_refused(tmp_path):
    jobs = arms(GAIN)
    jobs[3] = (jobs[3][0], (jobs[3][1][0][:, :2], jobs[3][1][1]))
    with mistake(re.compile(r'\.npz$'), ('intersect', '(20, 2)'), '(20, 3)'):
        write_report(write(tmp_path, jobs))


def test_without_an_arm_that_tunes_there_is_nothing_to_judge(tmp_path):
    jobs = arms({'direct': [40, 41], 'direct-2x': [40, 41]})
    markdown = texts(tmp_path, jobs)[0]
    assert 'No arm that tunes is among direct, direct-2x: nothing to judge.' in markdown


def test_a_row_without_any_finished_pair(tmp_path):
    jobs = arms(GAIN) + [({**row, 'status': 'missing', 'mIoU': ''}, None)
                         for row, _ in arms(GAIN, fraction=0.5)]  # fmt: skip
    markdown = texts(tmp_path, jobs)[0]
    assert '50 % of labels**: not measured: no pair of tuned and direct' in markdown
    assert json.loads((tmp_path / 'plan.json').read_text())['block_size'] == 5
