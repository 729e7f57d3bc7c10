import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from mm_tuning_plugin.benchmark.worker.step_kinds import read_metrics
from mm_tuning_plugin.evaluation import ImageIoUMetric
from mm_tuning_plugin.evaluation.image_iou import short_names

CLASSES = ('sky', 'road', 'tree', 'absent')


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        maps = torch.randint(0, 3, (2, 6, 5), generator=generator)
        maps[1, 0, :2] = 255
        sample = SegDataSample(metainfo=dict(img_path=f'/data/val/{index % 2}/{index}.jpg'))
        sample.pred_sem_seg = PixelData(data=maps[:1])
        sample.gt_sem_seg = PixelData(data=maps[1:])
        yield sample.to_dict()


def evaluated(metric, batches):
    metric.dataset_meta = dict(classes=CLASSES)
    for batch in batches:
        metric.process({}, batch)
    return metric.evaluate(sum(map(len, batches)))


@pytest.fixture
def batches():
    made = list(samples(5))
    return [made[:2], made[2:4], made[4:]]


def test_it_measures_what_mmseg_measures(batches, tmp_path):
    ours = evaluated(ImageIoUMetric(str(tmp_path / 'areas.npz'), iou_metrics=['mIoU']), batches)
    assert ours == evaluated(IoUMetric(iou_metrics=['mIoU']), batches)
    exact = read_metrics(tmp_path / 'areas.npz')
    for name, value in ours.items():
        assert exact[name] == pytest.approx(value, abs=0.0051)
    assert exact['IoU.absent'] is None
    assert list(exact)[3:] == [f'IoU.{name}' for name in CLASSES]


def test_areas_of_each_image(batches, tmp_path):
    evaluated(ImageIoUMetric(str(tmp_path / 'areas.npz')), batches)
    with np.load(tmp_path / 'areas.npz') as file:
        areas = {name: file[name] for name in file.files}
    assert areas['names'].tolist() == ['0/0', '1/1', '0/2', '1/3', '0/4']
    assert areas['classes'].tolist() == list(CLASSES)
    for row, sample in enumerate(samples(5)):
        found, truth = (sample[k]['data'][0].numpy() for k in ('pred_sem_seg', 'gt_sem_seg'))
        kept = truth != 255
        for k in range(4):
            one, other = (found == k) & kept, (truth == k) & kept
            assert areas['intersect'][row, k] == (one & other).sum()
            assert areas['union'][row, k] == (one | other).sum()
            assert areas['label'][row, k] == other.sum()
    assert {areas[k].dtype for k in ('intersect', 'union', 'label')} == {np.dtype('int64')}


def test_the_last_validation_is_kept(batches, tmp_path):
    metric = ImageIoUMetric(str(tmp_path / 'areas.npz'))
    evaluated(metric, batches)
    evaluated(metric, batches[:1])
    with np.load(tmp_path / 'areas.npz') as file:
        assert len(file['names']) == 2


def test_names_are_short_and_differ():
    assert short_names(['/a/b/x.jpg', '/a/b/y.z.jpg']) == ['x', 'y.z']
    assert short_names(['/a/b/x.jpg', '/a/c/x.jpg']) == ['b/x', 'c/x']
    assert short_names(['x.jpg', 'y.jpg']) == ['x', 'y']
    assert short_names(['s3://b/x.jpg', '/a/x.jpg']) == ['s3://b/x', '/a/x']


def test_it_is_found_by_name():
    from mmseg.registry import METRICS

    assert METRICS.get('mm_tuning_plugin.ImageIoUMetric') is ImageIoUMetric
