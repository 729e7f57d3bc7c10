"""The pictures of finished runs, from the files that a run leaves."""

import copy

import cv2
import numpy as np
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mm_tuning_plugin.benchmark.report import pictures
from mm_tuning_plugin.engine.config.user_config import read_user_config


def test_predictions_are_those_of_each_arms_checkpoint(toy_cfg, tmp_path, monkeypatch):
    """A checkpoint of mmengine's own, histories and all, is read under every torch."""
    toy_cfg.train_cfg.update(max_iters=1, val_interval=2)
    toy_cfg.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(toy_cfg).train()
    trained, certain = tmp_path / 'work' / 'iter_1.pth', tmp_path / 'certain.pth'
    content = torch.load(trained, weights_only=False)
    assert content['message_hub']['log_scalars'], 'what torch refuses by itself'
    content['state_dict']['decode_head.conv_seg.bias'][3] = 1e6
    torch.save(content, certain)

    drawn = {}
    draw = pictures.visualization.prediction_sheet

    def spy(images, truths, predictions, *args, **kwargs):
        drawn.update(predictions)
        return draw(images, truths, predictions, *args, **kwargs)

    monkeypatch.setattr(pictures.visualization, 'prediction_sheet', spy)
    path = tmp_path / 'predictions.png'
    scores = {'certain': 1.0, 'trained': 2.0}
    files = {'certain': certain, 'trained': trained}
    pictures.draw_predictions(toy_cfg, files, scores, path, images=2)
    assert all((prediction == 3).all() for prediction in drawn['certain'])
    assert any((prediction != 3).any() for prediction in drawn['trained'])
    assert [prediction.shape for prediction in drawn['trained']] == [(64, 64)] * 2
    assert cv2.imread(str(path)).std() > 10


def test_one_output_is_a_class_and_every_ignored_value_is_ignored(toy_cfg):
    """mmseg's threshold of one output gives floats, and -1 can mean "ignore"."""
    head = toy_cfg.model.decode_head
    head.update(num_classes=1, ignore_index=-1, loss_decode=dict(use_sigmoid=True))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(copy.deepcopy(toy_cfg.model)).eval()
    labels = torch.tensor([[0, 1], [-1, 255]])[None]
    data = SegDataSample(
        gt_sem_seg=PixelData(data=labels),
        metainfo=dict(img_path='a.jpg', ori_shape=(64, 64), img_shape=(64, 64)),
    )
    sample = dict(inputs=torch.zeros(3, 64, 64, dtype=torch.uint8), data_samples=data)
    for bias in (-50.0, 50.0):
        model.decode_head.conv_seg.bias.data.fill_(bias)
        with torch.no_grad():
            prediction = pictures._predict(model, sample)
        assert prediction.dtype == np.int64 and (prediction == (bias > 0)).all()
    assert pictures._truth(sample, read_user_config(toy_cfg)).tolist() == [[0, 1], [255, 255]]
