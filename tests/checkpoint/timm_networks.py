"""timm's own networks with random weights, as the source whose features must arrive."""

import sys
from pathlib import Path

import pytest
import torch
from reference_networks import randomise
from torch import nn

sys.path.append(str(Path(__file__).parent.parent / 'backbones'))

from stubbed import stubbed_torchvision


def timm_network(name, seed=21, **options):
    """A network of timm's by its name there, every parameter and statistic random."""
    with stubbed_torchvision():
        timm = pytest.importorskip('timm')
    with torch.no_grad():
        return randomise(timm.create_model(name, pretrained=False, **options), seed=seed)


def stage_maps(network, images, modules):
    """The outputs of some of its modules, by dotted name, in one pass up to the last of them."""
    maps = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: maps.setdefault(name, output.clone())
        )
        for name in modules
    ]
    with torch.no_grad():
        network.forward_features(images)
    for hook in hooks:
        hook.remove()
    return [maps[name] for name in modules]


def dilated(network, rates):
    """Depthwise convolutions without stride and with a dilation, as mmseg's MobileNetV3 has them.

    Args:
        network: timm's MobileNetV3.
        rates: (stage, block) -> dilation; strided ones among them lose their stride.
    """
    for (stage, block), rate in rates.items():
        conv = network.blocks[stage][block].conv_dw
        assert isinstance(conv, nn.Conv2d)
        conv.stride, conv.dilation = (1, 1), (rate, rate)
        if conv.padding != (0, 0):  # TensorFlow's padding is found at run time
            conv.padding = (rate * (conv.kernel_size[0] // 2),) * 2
    return network
