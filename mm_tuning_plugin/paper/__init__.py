"""The paper's own systems: AlexNet and VGG-16, their heads, the segmentor."""

from mm_tuning_plugin.paper import backbones, heads
from mm_tuning_plugin.paper.segmentor import SummedSoftmaxEncoderDecoder

__all__ = ['SummedSoftmaxEncoderDecoder', 'backbones', 'heads']
