import numpy as np
import torch
from mistakes import mistake
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mm_tuning_plugin.datasets import GreyImage


def test_grey_is_the_plain_mean_and_the_preprocessor_makes_it_the_paper_s():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    grey = GreyImage()(dict(img=image))['img']
    assert grey.shape == (5, 7) and grey.dtype == np.float32
    assert np.allclose(grey, image.astype(float).sum(2) / 3, atol=1e-4)
    with DefaultScope.overwrite_default_scope('mmseg'):
        preprocess = MODELS.build(dict(type='SegDataPreProcessor', mean=[114.444], std=[255.0]))
    inputs = preprocess(dict(inputs=[torch.from_numpy(grey)[None]]))['inputs']
    assert torch.allclose(inputs[0, 0], torch.from_numpy(grey) / 255 - 0.4488, atol=1e-5)


def test_an_image_without_channels_is_one_line():
    with mistake('GreyImage', '(4, 4)', '(H, W, C)'):
        GreyImage()(dict(img=np.zeros((4, 4), np.uint8)))
