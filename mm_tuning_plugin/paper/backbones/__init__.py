"""The backbones of the paper's own systems."""

from mm_tuning_plugin.paper.backbones.alexnet import AlexNetBN
from mm_tuning_plugin.paper.backbones.vgg import VGG16BN

__all__ = ['VGG16BN', 'AlexNetBN']
