import torch
from mistakes import mistake
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mm_tuning_plugin.registry import MODELS

CROP, STRIDE = 16, 8


def build(mode):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(
            dict(
                type='mm_tuning_plugin.SummedSoftmaxEncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor'),
                backbone=dict(
                    type='mm_tuning_plugin.VGG16BN', width=0.05, out_indices=(2,), in_channels=3
                ),
                decode_head=dict(
                    type='FCNHead', in_channels=3, channels=4, num_convs=1, concat_input=False,
                    num_classes=3, loss_decode=dict(type='CrossEntropyLoss'),
                ),
                test_cfg=ConfigDict(mode=mode, crop_size=(CROP, CROP), stride=(STRIDE, STRIDE)),
            )
        )  # fmt: skip
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.normal_(part.weight, std=0.5)
    return model.eval()


def metas(size):
    return [dict(img_shape=size, ori_shape=size, pad_shape=size)]


@torch.no_grad()
def test_windows_are_the_plain_loop_of_summed_probabilities():
    model, image = build('slide'), torch.randn(1, 3, 24, 32)
    found = model.slide_inference(image, metas((24, 32)))
    total, count = torch.zeros(1, 3, 24, 32), torch.zeros(24, 32)
    for y in (0, 8):
        for x in (0, 8, 16):
            window = image[:, :, y : y + CROP, x : x + CROP]
            scores = model.encode_decode(window, metas((CROP, CROP)))
            total[:, :, y : y + CROP, x : x + CROP] += scores.softmax(1)
            count[y : y + CROP, x : x + CROP] += 1
    assert torch.allclose(found, total / count, atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(1, 24, 32), atol=1e-5)


@torch.no_grad()
def test_a_whole_image_gives_scores_before_and_after_windows():
    model, image = build('whole'), torch.randn(1, 3, 24, 32)
    before = model.encode_decode(image, metas((24, 32)))
    model.slide_inference(image, metas((24, 32)))
    assert torch.equal(model.encode_decode(image, metas((24, 32))), before)
    assert not torch.allclose(before.sum(1), torch.ones(1, 24, 32))


def test_a_window_that_fails_leaves_it_as_it_was():
    model = build('slide')
    plain = model.encode_decode
    with mistake('VGG16BN', '1 channels', '3'):
        model.slide_inference(torch.randn(1, 1, 24, 32), metas((24, 32)))
    assert model.encode_decode == plain
