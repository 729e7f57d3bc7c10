"""Both stages from a file of Caffe's, and from the other order of channels a word."""

import pytest
from caffe_writer import alexnet_layers, caffemodel

from mm_tuning_plugin.engine import MixAndMatchRunner


@pytest.mark.parametrize('tuning', [True, False])
@pytest.mark.parametrize('rgb', [True, False])
def test_a_config_that_reads_rgb_is_told(tuning, rgb, toy_cfg, tmp_path, capfd):
    (tmp_path / 'a.caffemodel').write_bytes(caffemodel(alexnet_layers(0.05, 3, 'bn{}')))
    toy_cfg.model.backbone = dict(type='mm_tuning_plugin.AlexNetBN', width=0.05)
    toy_cfg.model.decode_head.update(in_channels=12, in_index=0)
    toy_cfg.model.pop('auxiliary_head', None)
    toy_cfg.model.data_preprocessor.bgr_to_rgb = rgb
    toy_cfg.mix_and_match = dict(
        enabled=tuning, checkpoint=str(tmp_path / 'a.caffemodel'), max_iters=1, images_per_batch=2,
        retrieval_images=0,
    )  # fmt: skip
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    lines = [line for line in ''.join(capfd.readouterr()).splitlines() if ' WARNING ' in line]
    assert any('bgr_to_rgb=True' in line for line in lines) == rgb
