"""Convolutional networks in the layouts that other projects publish, from those projects' names.

Nothing here uses mmseg or mmcv: the features of a loaded backbone are compared with these. Each has
``features(images)``: the maps after every stage.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inner, outer, kernel, stride=1, groups=1, activation=True):
    layers = [
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if activation else []))


class Bottleneck(nn.Module):
    """torchvision's (stride on the 3x3), grouped for ResNeXt; timm's shortcut with pooling."""

    def __init__(self, inner, planes, stride, groups=1, base_width=64, pooled=False):
        super().__init__()
        width, outer = planes * base_width // 64 * groups, planes * 4
        self.conv1 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)]
            self.downsample = nn.Sequential(
                *(pool if pooled else []),
                nn.Conv2d(inner, outer, 1, 1 if pooled else stride, bias=False),
                nn.BatchNorm2d(outer),
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class SplitAttention(nn.Module):
    """ResNeSt's convolution, radix 2, one cardinal group (Zhang et al., 2020, section 3)."""

    def __init__(self, channels):
        super().__init__()
        inter = max(channels * 2 // 4, 32)
        self.conv = nn.Conv2d(channels, channels * 2, 3, 1, 1, groups=2, bias=False)
        self.bn0 = nn.BatchNorm2d(channels * 2)
        self.fc1 = nn.Conv2d(channels, inter, 1)
        self.bn1 = nn.BatchNorm2d(inter)
        self.fc2 = nn.Conv2d(inter, channels * 2, 1)

    def forward(self, x):
        x = F.relu(self.bn0(self.conv(x)))
        first, second = x.chunk(2, dim=1)
        gap = (first + second).mean((2, 3), keepdim=True)
        gap = self.fc2(F.relu(self.bn1(self.fc1(gap))))
        weights = torch.stack(gap.chunk(2, dim=1)).softmax(0)  # over the radix
        return weights[0] * first + weights[1] * second


class SplitBottleneck(nn.Module):
    """ResNeSt's block: pooling after the split attention where it strides."""

    def __init__(self, inner, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = SplitAttention(planes)
        self.avd_layer = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = None
        if stride != 1 or inner != planes * 4:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(inner, planes * 4, 1, bias=False),
                nn.BatchNorm2d(planes * 4),
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.avd_layer(self.conv2(x))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class DeepStemResNet(nn.Module):
    """A ResNet with a stem of three convolutions, timm's and ResNeSt's names; or a plain one."""

    def __init__(self, block, depths=(1, 1, 1, 1), deep=32, width=64, **options):
        super().__init__()
        if deep:
            self.conv1 = nn.Sequential(
                nn.Conv2d(3, deep, 3, 2, 1, bias=False),
                nn.BatchNorm2d(deep),
                nn.ReLU(),
                nn.Conv2d(deep, deep, 3, 1, 1, bias=False),
                nn.BatchNorm2d(deep),
                nn.ReLU(),
                nn.Conv2d(deep, width, 3, 1, 1, bias=False),
            )
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inner = width
        for index, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if index and not number else 1
                blocks.append(block(inner, width * 2**index, stride, **options))
                inner = 4 * width * 2**index
            setattr(self, f'layer{index + 1}', nn.Sequential(*blocks))
        self.fc = nn.Linear(inner, 5)
        self.depths = depths

    def features(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        outs = []
        for index in range(len(self.depths)):
            x = getattr(self, f'layer{index + 1}')(x)
            outs.append(x)
        return outs


class InvertedResidual(nn.Module):
    def __init__(self, inner, outer, stride, expand):
        super().__init__()
        hidden = inner * expand
        layers = [conv_bn(inner, hidden, 1)] if expand != 1 else []
        self.conv = nn.Sequential(
            *layers,
            conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.same = stride == 1 and inner == outer

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


class TorchvisionMobileNetV2(nn.Module):
    """Names ``features.0 .. features.18``; the last one is the classifier's."""

    def __init__(self):
        super().__init__()
        settings = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        layers, inner, self.ends = [conv_bn(3, 32, 3, 2)], 32, []
        for expand, outer, count, stride in settings:
            for number in range(count):
                layers.append(InvertedResidual(inner, outer, 1 if number else stride, expand))
                inner = outer
            self.ends.append(len(layers))
        layers.append(conv_bn(320, 1280, 1))
        self.features_ = None
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 5))

    def published(self):
        """The state dict in torchvision's names."""
        return {
            name.replace('layers.', 'features.', 1): value
            for name, value in self.state_dict().items()
        }

    def features(self, x):
        outs = []
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if index in self.ends:
                outs.append(x)
        return outs


VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class TorchvisionVGG(nn.Module):
    """vgg11, with or without norms; ``features.N`` counts every layer."""

    def __init__(self, norm, widths=VGG11, channels=3):
        super().__init__()
        layers, inner, self.ends = [], channels, []
        for stage in widths:
            for outer in stage:
                layers.append(nn.Conv2d(inner, outer, 3, 1, 1))
                layers += [nn.BatchNorm2d(outer)] if norm else []
                layers.append(nn.ReLU())
                inner = outer
            layers.append(nn.MaxPool2d(2, 2))
            self.ends.append(len(layers))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(512 * 49, 5))

    def published(self):
        """The state dict in torchvision's names."""
        return {
            name.replace('layers.', 'features.', 1): value
            for name, value in self.state_dict().items()
        }

    def features(self, x):
        outs = []
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if index in self.ends:
                outs.append(x)
        return outs


class MmpretrainVGG(nn.Module):
    """The names and the function of mmpretrain's VGG: a module holds convolution, norm, ReLU."""

    def __init__(self, norm, widths=VGG11):
        super().__init__()
        layers, inner, self.ends = [], 3, []
        for stage in widths:
            for outer in stage:
                module = nn.Module()
                module.conv = nn.Conv2d(inner, outer, 3, 1, 1)
                if norm:
                    module.bn = nn.BatchNorm2d(outer)
                layers.append(module)
                inner = outer
            layers.append(nn.MaxPool2d(2, 2))
            self.ends.append(len(layers))
        self.features = nn.Sequential(*layers)

    def forward(self, x):
        outs = []
        for index, layer in enumerate(self.features, start=1):
            if hasattr(layer, 'conv'):
                x = layer.conv(x)
                x = F.relu(layer.bn(x) if hasattr(layer, 'bn') else x)
            else:
                x = layer(x)
            if index in self.ends:
                outs.append(x)
        return outs
