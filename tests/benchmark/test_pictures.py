"""The pictures of finished runs, from the files that a run leaves."""

import cv2
import torch
from mmengine.runner import Runner

from mm_tuning_plugin.benchmark import pictures


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
