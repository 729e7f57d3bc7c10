import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from mm_tuning_plugin.models.embedding_heads import PooledEmbedding
from mm_tuning_plugin.paper.backbones import VGG16BN, AlexNetBN
from mm_tuning_plugin.paper.backbones.vgg import BLOCKS
from mm_tuning_plugin.paper.heads import FCN32sHead


def images(channels=3, height=96, width=128):
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def settled(module):
    """In evaluation mode, with running statistics that are not those of the start."""
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias)
    return module.eval()


def normalised(net, name, x):
    part = getattr(net, name)
    return F.batch_norm(
        x, part.running_mean, part.running_var, part.weight, part.bias, False, 0.0, part.eps
    )


def convolved(net, name, x, **options):
    part = getattr(net, name)
    return F.conv2d(x, part.weight, part.bias, **options)


def caffe_pool(x, kernel, padding):
    """Maximum over windows, size rounded up, as a plain loop over the output would give it."""
    size = [-(-(n + 2 * padding - kernel) // 2) + 1 for n in x.shape[2:]]
    size = [s - 1 if (s - 1) * 2 >= n + padding else s for s, n in zip(size, x.shape[2:])]
    rows = []
    for i in range(size[0]):
        row = []
        for j in range(size[1]):
            y, z = 2 * i - padding, 2 * j - padding
            window = x[:, :, max(y, 0) : y + kernel, max(z, 0) : z + kernel]
            row.append(window.amax((2, 3)))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


def response(x):
    """Local response normalisation over five channels, as a plain sum."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
    return x / (1 + 1e-4 / 5 * total) ** 0.75


def reference_alexnet(net, x, jigsaw):
    def stage(x, number, **options):
        return normalised(net, f'bn{number}', convolved(net, f'conv{number}', x, **options)).relu()

    levels = {}
    for number, options in enumerate([{'stride': 4, 'padding': 5}, {'padding': 2, 'groups': 2}], 1):
        x = levels[f'conv{number}'] = stage(x, number, **options)
        x = response(caffe_pool(x, 3, 1)) if jigsaw else caffe_pool(response(x), 3, 0)
    for number, groups in ((3, 1), (4, 2), (5, 2)):
        x = levels[f'conv{number}'] = stage(x, number, padding=1, groups=groups)
    levels['pool5'] = caffe_pool(x, 3, 1 if jigsaw else 0)
    return levels


@pytest.mark.parametrize('variant', ['colorize', 'jigsaw'])
@pytest.mark.parametrize('channels', [1, 3])
def test_alexnet_computes_what_its_layers_say(variant, channels):
    net = settled(AlexNetBN(variant, channels, out_indices=(1, 2, 3, 4, 5, 6), width=0.1))
    x = 3000 * images(channels, 99, 127)  # so that responses are large enough to be normalised
    outputs = net(x)
    expected = reference_alexnet(net, x, variant == 'jigsaw')
    for name, output in zip(('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'pool5'), outputs):
        assert torch.allclose(output, expected[name], rtol=1e-4, atol=1e-3), name


def test_vgg_computes_what_its_layers_say():
    net = settled(VGG16BN(1, out_indices=range(19), with_fc=True, extra_blocks=2, width=0.05))
    x = images(1, 130, 94)
    outputs = dict(zip(net.names, net(x)))
    assert torch.equal(outputs['input'], x)
    for block, (_, count) in enumerate(BLOCKS, 1):
        for number in range(1, count + 1):
            name = f'{block}_{number}'
            x = normalised(net, f'bn{name}', convolved(net, f'conv{name}', x, padding=1)).relu()
            assert torch.allclose(outputs[f'conv{name}'], x, atol=1e-4), name
        x = caffe_pool(x, 2, 0)
    assert torch.allclose(outputs['pool5'], x, atol=1e-4)
    for name, padding in (('fc6', 3), ('fc7', 0)):
        x = convolved(net, name, x, padding=padding).relu()
        assert torch.allclose(outputs[name], x, atol=1e-4)
    for name in ('conv8', 'conv9'):
        x = caffe_pool(convolved(net, name, x, padding=1).relu(), 2, 0)
        assert torch.allclose(outputs[name], x, atol=1e-4)


@pytest.mark.parametrize(
    ('net', 'size', 'width'),
    [
        (AlexNetBN(), 4, 4096),
        (AlexNetBN('jigsaw'), 5, 6400),
        (VGG16BN(), 4, 8192),
    ],
)
def test_the_paper_s_embeddings(net, size, width):
    """pool5 of a patch of 128 pixels, flattened."""
    (level,) = net.eval()(torch.zeros(1, 3, 128, 128))
    assert level.shape[2:] == (size, size)
    head = PooledEmbedding([level.shape[1]], projection_channels=0, grid_size=size)
    rows = head([level], torch.tensor([[0, 64, 64]]), (128, 128))
    assert rows.shape == (1, width)


def test_parameters_groups_and_norms():
    net = AlexNetBN(in_channels=3)
    assert not any(name.startswith('bn') for name, _ in net.named_parameters())  # not affine
    # 96 x 3 x 121 + 96, and so on, halves of the inputs where there are two groups
    expected = 96 * 363 + 256 * 48 * 25 + 384 * 256 * 9 + 384 * 192 * 9 + 256 * 192 * 9
    expected += 96 + 256 + 384 + 384 + 256
    assert sum(p.numel() for p in net.parameters()) == expected
    vgg = VGG16BN()
    assert sum(p.numel() for p in vgg.parameters()) == 14_714_688 + 2 * 4224  # torchvision's too
    assert {'conv1_1.weight', 'bn5_3.weight', 'bn5_3.running_var'} <= set(vgg.state_dict())


@pytest.mark.parametrize(('kind', 'last'), [(AlexNetBN, 6), (VGG16BN, 14)])
@pytest.mark.parametrize('stride', [8, 16, 32])
def test_dilation_keeps_the_grid_finer_with_the_same_weights(kind, last, stride):
    coarse = kind(width=0.1, out_indices=(last,))
    fine = kind(width=0.1, out_indices=(last,), output_stride=stride)
    fine.load_state_dict(coarse.state_dict())
    (level,) = fine.eval()(images(3, 128, 128))
    assert abs(level.shape[2] - 128 / stride) <= 1
    taps = (fine.conv5_1 if kind is VGG16BN else fine.conv5).dilation[0]
    assert taps == {8: 2, 16: 1, 32: 1}[stride]  # pool5, behind it, keeps the grid from 16 on
    if stride == 32:
        assert torch.equal(level, coarse.eval()(images(3, 128, 128))[0])


@pytest.mark.parametrize(
    'net',
    [
        AlexNetBN(width=0.05, with_fc=True, out_indices=(0, 6, 8)),
        AlexNetBN('jigsaw', width=0.05, out_indices=(-1,)),
        VGG16BN(width=0.05, with_fc=True, extra_blocks=2, out_indices=(1, 18)),
    ],
)
@pytest.mark.parametrize('size', [(128, 128), (97, 65), (33, 200)])
def test_gradients_reach_everything_at_any_size(net, size):
    net.zero_grad()
    outputs = net.train()(images(3, *size))
    sum(output.square().sum() for output in outputs).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_it_stops_behind_the_last_output_that_is_asked_for():
    net = VGG16BN(width=0.05, out_indices=(1,))
    net.conv1_2.forward = None  # would fail if it were called
    assert net(images())[0].shape[2:] == (96, 128)


def test_norm_eval_holds_the_statistics():
    net = VGG16BN(width=0.05, norm_eval=True).train()
    before = net.bn1_1.running_mean.clone()
    net(images())
    assert torch.equal(before, net.bn1_1.running_mean) and net.training
    assert isinstance(VGG16BN(width=0.05, norm_cfg=dict(type='SyncBN')).bn1_1, nn.SyncBatchNorm)


@pytest.mark.parametrize(
    ('build', 'where', 'problem', 'remedy'),
    [
        (lambda: AlexNetBN('colour'), 'AlexNetBN.variant', "'colour'", ["'colorize'", "'jigsaw'"]),
        (lambda: AlexNetBN(in_channels=2), 'AlexNetBN.in_channels', '2', '1 or 3'),
        (
            lambda: AlexNetBN(out_indices=(7,)),
            'AlexNetBN.out_indices',
            '[7]',
            ['0 input', '1 conv1'],
        ),
        (lambda: AlexNetBN(out_indices=()), 'AlexNetBN.out_indices', '[]', '0 input'),
        (
            lambda: AlexNetBN(norm_cfg=dict(type='BN', affine=True)),
            'AlexNetBN.norm_cfg',
            "'affine': True",
            'affine',
        ),
        (lambda: AlexNetBN(output_stride=4), 'AlexNetBN.output_stride', '4', '8, 16 or 32'),
        (lambda: VGG16BN(extra_blocks=2), 'VGG16BN.extra_blocks', '2 ', 'with_fc=True'),
        (
            lambda: VGG16BN(extra_blocks=1, with_fc=True),
            'VGG16BN.extra_blocks',
            ['1 ', 'with_fc=True'],
            'with_fc=True',
        ),
        (lambda: VGG16BN(output_stride=64), 'VGG16BN.output_stride', '64', '8, 16 or 32'),
        (lambda: VGG16BN(1, width=0.05)(images(3)), 'VGG16BN', '3 channels', ['1', 'in_channels']),
        (
            lambda: AlexNetBN(width=0.05)(images(1)),
            'AlexNetBN',
            '1 channels',
            ['3', 'in_channels'],
        ),
    ],
)
def test_a_wrong_argument_is_one_line(build, where, problem, remedy):
    with mistake(where, problem, remedy):
        build()


@pytest.mark.parametrize(('kernel', 'more'), [(6, 1), (7, 0)])
@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN', affine=False)])
def test_the_head_of_fcn_32s(kernel, more, norm_cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MMSEG_MODELS.build(
            dict(
                type='mm_tuning_plugin.FCN32sHead',
                in_channels=5,
                in_index=0,
                channels=8,
                kernel_size=kernel,
                num_classes=4,
                norm_cfg=norm_cfg,
                loss_decode=dict(type='CrossEntropyLoss'),
            )
        )
    assert isinstance(head, FCN32sHead)
    head = settled(head)
    level = torch.randn(2, 5, 3, 4)
    x = level
    layers = [part for part in head.fc if isinstance(part, nn.Conv2d)]
    norms = [part for part in head.fc if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (2 if norm_cfg else 0)
    for i, (layer, padding) in enumerate(zip(layers, (kernel // 2, 0))):
        x = F.conv2d(x, layer.weight, layer.bias, padding=padding)
        if norm_cfg:
            x = F.batch_norm(x, norms[i].running_mean, norms[i].running_var)
        x = x.relu()
    scores = head([level])
    assert torch.allclose(scores, F.conv2d(x, head.conv_seg.weight, head.conv_seg.bias), atol=1e-5)
    assert scores.shape == (2, 4, 3 + more, 4 + more)
    assert [type(p).__name__ for p in head.fc].count('Dropout') == 2 and head.dropout is None
    assert 0.003 < layers[0].weight.std() < 0.007 and float(layers[0].bias.mean()) == (
        pytest.approx(0.1)
    )
