"""Values of wider files that mmseg's loader cuts to 8 bits, against that loader itself."""

import cv2
import numpy as np
import pytest
from mistakes import mistake
from mmengine.fileio import LocalBackend, register_backend
from mmengine.registry import DefaultScope
from PIL import Image

from mm_tuning_plugin.datasets import CheckLabels, MapLabels
from mm_tuning_plugin.datasets import label_files as module
from mm_tuning_plugin.datasets.label_files import LabelFiles, cut_value


def write(path, values, kind):
    values = np.asarray(values, dtype=kind).repeat(2, axis=0)  # mmseg squeezes single rows
    if path.suffix == '.png':
        assert cv2.imwrite(str(path), values)
    else:
        Image.fromarray(values).save(path, format='TIFF')
    return str(path)


def loaded(path, **results):
    """As mmseg loads it, beside an image of its size."""
    from mmseg.datasets.transforms import LoadAnnotations

    given = dict(seg_map_path=path, reduce_zero_label=False, label_map=None, seg_fields=[])
    done = LoadAnnotations().transform({**given, **results})
    return {**done, 'img': np.zeros((*done['gt_seg_map'].shape, 3), np.uint8)}


@pytest.mark.parametrize(
    ('values', 'kind', 'suffix', 'found'),
    [
        ([[0, 300]], np.uint16, '.png', ('300', '44')),
        ([[1, 2, 300, 65535]], np.uint16, '.png', ('300', '44')),
        ([[0, 257, 3]], np.uint16, '.png', ('257', '1')),
        ([[0, 256]], np.uint16, '.tif', ('256', '0')),
        ([[0, 1000]], np.int32, '.tif', ('1000', '232')),
        ([[0, -2]], np.int32, '.tif', ('-2', '254')),
        ([[0, 1.5]], np.float32, '.tif', ('1.5', '1')),
    ],
)
def test_a_value_that_was_cut_is_named(values, kind, suffix, found, tmp_path):
    path = write(tmp_path / f'a{suffix}', values, kind)
    results = loaded(path)
    assert int(found[1]) in results['gt_seg_map'], 'mmseg itself cuts'
    with mistake(path, (f' {found[0]} ', f' {found[1]}'), '0 to 255'):
        CheckLabels(255).transform(results)


@pytest.mark.parametrize(
    ('values', 'kind', 'suffix'),
    [
        ([[0, 1, 254, 255]], np.uint8, '.png'),
        ([[0, 1, 254, 255]], np.uint8, '.tif'),
        ([[0, 1, 254, 255]], np.uint16, '.png'),  # wide, and nothing is lost
        ([[0, 1, 65535]], np.uint16, '.png'),  # all bits set: 255, ignored as it was meant
        ([[0, 7, -1]], np.int32, '.tif'),
        ([[257, 514, 65535, 0]], np.uint16, '.png'),  # bytes written twice
        ([[0.0, 3.0]], np.float32, '.tif'),
    ],
)
def test_what_means_the_same_in_8_bits_passes(values, kind, suffix, tmp_path):
    results = loaded(write(tmp_path / f'a{suffix}', values, kind))
    expected = results['gt_seg_map'].copy()
    np.testing.assert_array_equal(CheckLabels(255).transform(results)['gt_seg_map'], expected)


@pytest.mark.parametrize(
    'options', [dict(reduce_zero_label=True), dict(label_map={44: 3, 7: 255}), {}]
)
@pytest.mark.parametrize('loader', ['mmseg', 'either'])
def test_it_is_found_behind_mmsegs_own_mappings(options, loader, tmp_path):
    results = loaded(write(tmp_path / 'a.png', [[0, 1, 7, 300]], np.uint16), **options)
    with mistake(str(tmp_path / 'a.png'), (' 300 ', ' 44')):
        CheckLabels(255, label_loader=loader).transform(results)


def test_it_is_found_behind_ours(tmp_path):
    results = loaded(write(tmp_path / 'a.png', [[0, 300]], np.uint16))
    with mistake(str(tmp_path / 'a.png'), (' 300 ', ' 44')):
        CheckLabels(3).transform(MapLabels({44: 2}).transform(results))


def test_a_loader_of_the_users_own_is_never_refused(tmp_path):
    """It may read the low byte on purpose, or what it likes."""
    low = loaded(write(tmp_path / 'a.png', [[0, 300]], np.uint16))
    done = CheckLabels(50, label_loader='own').transform(dict(low))
    assert done['gt_seg_map'].tolist() == [[0, 44]] * 2
    # behind mmseg's, only if what it gives is no longer what mmseg's gave
    mine = dict(low, gt_seg_map=np.array([[0, 5]] * 2, dtype=np.uint8))
    done = CheckLabels(50, label_loader='either').transform(dict(mine))
    assert done['gt_seg_map'].tolist() == [[0, 5]] * 2


def test_another_loader_of_the_same_name_is_the_users_own(tmp_path, monkeypatch):
    from mmseg.datasets.transforms import LoadAnnotations
    from mmseg.registry import TRANSFORMS

    class Mine(LoadAnnotations):
        def _load_seg_map(self, results):
            results['gt_seg_map'] = None

    low = loaded(write(tmp_path / 'a.png', [[0, 300]], np.uint16))
    monkeypatch.setitem(TRANSFORMS._module_dict, 'LoadAnnotations', Mine)
    with DefaultScope.overwrite_default_scope('mmseg'):
        check = CheckLabels(50)
    assert check.transform(low)['gt_seg_map'].tolist() == [[0, 44]] * 2


def test_files_of_8_bits_are_not_decoded_again(tmp_path, monkeypatch):
    paths = [
        write(tmp_path / 'a.png', [[1, 2]], np.uint8),
        write(tmp_path / 'a.tif', [[1, 2]], np.uint8),
    ]
    for name in ('a.jpg', 'a.bmp', 'palette.png'):
        paths.append(str(tmp_path / name))
        kind = 'P' if 'palette' in name else 'L'
        Image.fromarray(np.ones((2, 2), np.uint8)).convert(kind).save(paths[-1])
    big = tmp_path / 'big_endian.tif'
    big.write_bytes(b'MM\0*\0\0\0\x08\0\x01\x01\x02\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0')
    monkeypatch.setattr(module, '_decode', lambda content: pytest.fail('decoded'))
    for path in [*paths, str(big)]:
        assert LabelFiles().read_deep(path) is None
    monkeypatch.setattr(module, '_decode', lambda content: 'decoded')
    big.write_bytes(big.read_bytes().replace(b'\x01\0\x08\0\0', b'\x01\0\x10\0\0'))
    assert LabelFiles().read_deep(str(big)) == 'decoded'


class CountingBackend(LocalBackend):
    fetched = 0

    def get(self, filepath):
        CountingBackend.fetched += 1
        return super().get(str(filepath).replace('counting://', ''))


@pytest.mark.parametrize('backend_args', [dict(backend='counting'), None])
def test_of_other_storage_only_the_first_files_are_looked_at(backend_args, tmp_path, monkeypatch):
    register_backend('counting', CountingBackend, force=True, prefixes='counting')
    path = f'counting://{write(tmp_path / "a.png", [[0, 300]], np.uint16)}'
    monkeypatch.setattr(module, 'REMOTE_FILES_READ', 2)
    monkeypatch.setattr(CountingBackend, 'fetched', 0)
    files = LabelFiles(backend_args)
    assert [files.read_deep(path) is None for _ in range(3)] == [False, False, True]
    assert CountingBackend.fetched == 2
    results = loaded(path.replace('counting://', ''), seg_map_path=path)
    with mistake(path, (' 300 ', ' 44')):
        CheckLabels(255, backend_args=backend_args).transform(results)


def test_a_file_that_is_not_there_is_left_to_its_loader(tmp_path):
    files = LabelFiles()
    assert files.read_deep(str(tmp_path / 'no.png')) is None
    assert not files.is_jpeg(str(tmp_path / 'no.png'))
    assert not files.is_jpeg('label map')


@pytest.mark.parametrize('name', ['a.png', 'a.jpg'])
def test_a_jpeg_is_called_one_whatever_its_name(name, tmp_path):
    labels = np.kron([[0, 3], [2, 1]], np.ones((9, 9))).astype(np.uint8)
    grey, colour = tmp_path / name, tmp_path / f'colour_{name}'
    Image.fromarray(labels * 60).save(grey, format='JPEG')
    Image.fromarray(labels).convert('RGB').save(colour, format='JPEG')
    for path in (grey, colour):
        with mistake(str(path), remedy=('JPEG', 'PNG')):
            CheckLabels(4).transform(loaded(str(path)))
    # what a loader makes of one is its own affair, as long as the values are classes
    rounded = dict(loaded(str(grey)), gt_seg_map=labels)
    CheckLabels(4).transform(rounded)
    png = write(tmp_path / 'b.png', labels + 60, np.uint8)
    with mistake(png, ' 60') as error:
        CheckLabels(4).transform(loaded(png))
    assert 'JPEG' not in str(error.value)


def test_cut_values_of_arrays():
    assert cut_value(np.array([[True, False]])) is None
    assert cut_value(np.zeros((0, 2), np.uint16)) is None
    assert cut_value(np.array([3, 258], np.uint16)) == (258, 2)
    value, _ = cut_value(np.array([1, np.nan], np.float32))
    assert np.isnan(value)
