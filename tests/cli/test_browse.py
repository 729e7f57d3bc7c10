"""``tools/browse_patches.py``: pictures, figures, warnings, and mistakes in one line."""

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from mistakes import check_mistake
from PIL import Image

from mm_tuning_plugin.cli.browse import entry

KINDS = {
    'points': ['mix_and_match.nodes=points'],
    'patches': ['mix_and_match.nodes=patches', 'mix_and_match.size_range=10,40'],
    'SamplePatches': [  # as any registered sampler
        f'mix_and_match.nodes.{option}'
        for option in (
            'type=mm_tuning_plugin.SamplePatches',
            'like=patches',
            'num_patches=5',
            'size_range=10,40',
            'patch_size=32',
        )
    ],
}


@pytest.fixture
def browse(project, tmp_path, capfd):
    """Runs the command; returns its status, what it said, and the folder."""
    config, _ = project

    def run(*options, out='out', argv=()):
        words = [config, '--out', tmp_path / out, '--images', 4, *argv]
        words += ['--cfg-options', *options] if options else []
        status = entry([str(word) for word in words])
        captured = capfd.readouterr()
        assert 'Traceback' not in captured.err
        return status, captured.out, captured.err, tmp_path / out

    return run


def warnings(out):
    return [line for line in out.splitlines() if line.startswith('warning: ')]


@pytest.mark.parametrize('kind', KINDS)
def test_pictures_and_figures(browse, kind):
    status, out, err, folder = browse(*KINDS[kind])
    assert status == 0, err
    figures = json.loads((folder / 'figures.json').read_text())
    assert figures['node_kind'] == kind and figures['images'] == 4 and figures['seed'] == 7
    assert warnings(out) == [f'warning: {line}' for line in figures['warnings']]
    with open(folder / 'classes.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['nodes']) for row in rows] == [row['nodes'] for row in figures['by_class']]
    pictures = {path.name for path in folder.glob('*.png')}
    assert pictures == set(figures['pictures']) and len(pictures) == 2 + 4
    assert {'nodes_by_class.png', 'class_frequencies.png'} < pictures
    for name in pictures:
        pixels = np.asarray(Image.open(folder / name))
        assert pixels.ndim == 3 and pixels.std() > 1
    table = out[out.index('class ') :].splitlines()
    assert ('side' in table[0]) == (kind != 'points')
    assert [line.split()[0] for line in table[1:9]] == [row['name'].split()[0] for row in rows]
    assert f'{figures["nodes"]} {kind} of 4 images (the data set has 8)' in out
    assert out.strip().splitlines()[-1] == f'8 files in {folder}'


def test_what_an_earlier_call_drew_is_gone(browse):
    folder = browse()[3]
    (folder / 'mine.png').touch()
    before = {path.name for path in folder.glob('image_*.png')}
    status, *_ = browse(argv=['--images', '1', '--seed', '1'])
    after = {path.name for path in folder.glob('image_*.png')}
    assert status == 0 and len(before) == 4 and len(after) == 1
    assert (folder / 'mine.png').exists()


def test_the_seed_decides_what_is_drawn(browse):
    figures = []
    for out, argv in (('a', []), ('b', []), ('c', ['--seed', '3'])):
        folder = browse(out=out, argv=argv)[3]
        figures.append(json.loads((folder / 'figures.json').read_text()))
    assert figures[0] == figures[1]
    assert figures[2]['seed'] == 3 and figures[2]['image_paths'] != figures[0]['image_paths']


def test_the_start_need_not_be_there(browse):
    assert browse('mix_and_match.checkpoint=nowhere.pth')[0] == 0


def relabel(data, change):
    for path in (data / 'ann' / 'train').iterdir():
        seg_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), change(seg_map))


def test_a_wrong_reduce_zero_label(browse, project):
    """Files from 0 on, reduced all the same: it runs, and that is the trouble."""
    relabel(project[1], lambda seg_map: np.arange(64)[None].repeat(64, 0).astype(np.uint8) // 8)
    assert warnings(browse()[1]) == []
    status, out, *_ = browse('train_dataloader.dataset.reduce_zero_label=True')
    assert status == 0
    first, second = warnings(out)
    assert re.search('^warning: reduce_zero_label: True .* 0 to .* reduce_zero_label=False$', first)
    assert re.search('^warning: classes: 1 of 8 .* 4 images', second)


def test_labels_beyond_the_classes_are_told_before_they_are_refused(browse, project):
    relabel(project[1], lambda seg_map: np.arange(64)[None].repeat(64, 0).astype(np.uint8) // 8 + 1)
    status, out, err, folder = browse()
    assert status == 2 and not folder.exists()
    (line,) = warnings(out)
    assert line.endswith('reduce_zero_label=True')
    last = mistake_of(err)
    check_mistake(last, re.compile('png$'), '8')
    assert '0 to 7' in last
    status, out, *_ = browse('train_dataloader.dataset.reduce_zero_label=True')
    assert status == 0 and warnings(out) == []


def test_a_wrong_background(browse):
    options = [*KINDS['patches'], 'mix_and_match.background_index=1']
    (line,) = [w for w in warnings(browse(*options)[1]) if 'background' in w.split(':')[1]]
    assert line.endswith('mix_and_match.background_index=None')


def mistake_of(err):
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    return last.removeprefix('error: ')


def test_mistakes_are_one_line(browse, project, tmp_path, capfd):
    def fails(*options, argv=()):
        status, _, err, folder = browse(*options, argv=argv)
        assert status == 2 and not folder.exists()
        return mistake_of(err)

    check_mistake(fails(argv=['--images', '0']), '--images', '0', '1')
    check_mistake(fails(argv=['--window', '-1']), '--window', '-1', '1')
    check_mistake(fails(argv=['--seed', '-1']), '--seed', '-1', f'0 to {2**32 - 1}')
    check_mistake(fails('mix_and_match.node=points'), 'mix_and_match.node', remedy='nodes')
    check_mistake(fails('mix_and_match=3'), 'mix_and_match', '3')
    file = tmp_path / 'file'
    file.touch()
    assert entry([str(project[0]), '--images', '1', '--out', str(file)]) == 2
    check_mistake(mistake_of(capfd.readouterr().err), '--out', str(file))
    shutil.rmtree(project[1])
    check_mistake(fails(), re.compile('data_root$'), str(project[1]))
    assert entry(['nowhere.py']) == 2
    check_mistake(mistake_of(capfd.readouterr().err), 'nowhere.py', 'no such file')
