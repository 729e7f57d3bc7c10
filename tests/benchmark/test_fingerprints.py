import copy
import json

import pytest

from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.fingerprints import Fingerprints, made_by_other_code


@pytest.fixture
def content(tmp_path):
    file = tmp_path / 'names.txt'
    file.write_text('a\nb\n')
    return dict(
        model=dict(type='X', levels=(1, 2)),
        data=dict(data_root=str(tmp_path), ann_file=str(file), pipeline=[dict(type='L'), 'A.py']),
        needs=str(tmp_path / 'cache' / 'tuning-abc' / 'tuned.pth'),
    )


def of(tmp_path, content, cache='cache'):
    return Fingerprints(tmp_path / cache).of('kind', content)


def test_the_content_of_a_file_counts_and_its_place_does_not(tmp_path, content):
    first = of(tmp_path, content)
    other = tmp_path / 'elsewhere.txt'
    other.write_text('a\nb\n')
    moved = copy.deepcopy(content)
    moved['data'].update(ann_file=str(other), data_root='/mnt')
    assert of(tmp_path, moved) == first
    other.write_text('a\nc\n')
    assert of(tmp_path, moved) != first


def test_products_count_by_their_names_there_or_not(tmp_path, content):
    first = of(tmp_path, content)
    product = tmp_path / 'cache' / 'tuning-abc' / 'tuned.pth'
    product.parent.mkdir(parents=True)
    product.write_text('made')
    assert of(tmp_path, content) == first
    moved = {**content, 'needs': str(tmp_path / 'second' / 'tuning-abc' / 'tuned.pth')}
    assert of(tmp_path, moved, 'second') == first
    assert of(tmp_path, {**content, 'needs': str(product).replace('abc', 'abd')}) != first
    beside = str(tmp_path / 'cache-2' / 'tuning-abc' / 'tuned.pth')
    assert of(tmp_path, {**content, 'needs': beside}) != first


def test_everything_else_counts(tmp_path, content):
    first = of(tmp_path, content)
    changed = copy.deepcopy(content)
    changed['model']['levels'] = (1, 3)
    assert of(tmp_path, changed) != first
    assert Fingerprints(tmp_path / 'cache').of('another', content) != first
    listed = copy.deepcopy(content)
    listed['model'] = dict(levels=[1, 2], type='X')
    assert of(tmp_path, listed) == first, 'a config that was written and read is the same'


def test_cached_images_do_not_count(tmp_path, content):
    cached = copy.deepcopy(content)
    load = cached['data']['pipeline'][0]
    cached['data']['pipeline'][0] = dict(
        type='mm_tuning_plugin.Cached', transforms=[load], max_bytes=5
    )
    assert of(tmp_path, cached) == of(tmp_path, content)


def test_what_other_code_made_is_told_in_one_line(tmp_path):
    assert made_by_other_code(tmp_path / 'none') == ''
    for name, record in (('a', {'code': code_digest()}), ('b', {'code': 'old'}), ('c', {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'record.json').write_text(json.dumps(record))
    told = made_by_other_code(tmp_path)
    assert '2 of 3 results' in told and '\n' not in told
    for name in 'bc':
        (tmp_path / name / 'record.json').unlink()
    assert made_by_other_code(tmp_path) == ''
