"""Networks for small devices in the layouts of their projects: MobileNetV3 and STDC.

Written from the papers' tables and the projects' names; nothing here uses mmseg or mmcv.
"""

import torch
import torch.nn.functional as F
from torch import nn

# kernel, hidden, outer, squeeze, activation, stride, dilation: MobileNetV3's tables 1 and 2 (Howard
# et al., 2019), with the strides and dilations that mmseg gives it for segmentation.
SMALL = (
    (3, 16, 16, True, nn.ReLU, 2, 1),
    (3, 72, 24, False, nn.ReLU, 2, 1),
    (3, 88, 24, False, nn.ReLU, 1, 1),
    (5, 96, 40, True, nn.Hardswish, 1, 2),
    (5, 240, 40, True, nn.Hardswish, 1, 2),
    (5, 240, 40, True, nn.Hardswish, 1, 2),
    (5, 120, 48, True, nn.Hardswish, 1, 2),
    (5, 144, 48, True, nn.Hardswish, 1, 2),
    (5, 288, 96, True, nn.Hardswish, 1, 4),
    (5, 576, 96, True, nn.Hardswish, 1, 4),
    (5, 576, 96, True, nn.Hardswish, 1, 4),
)
LARGE = (
    (3, 16, 16, False, nn.ReLU, 1, 1),
    (3, 64, 24, False, nn.ReLU, 2, 1),
    (3, 72, 24, False, nn.ReLU, 1, 1),
    (5, 72, 40, True, nn.ReLU, 2, 1),
    (5, 120, 40, True, nn.ReLU, 1, 1),
    (5, 120, 40, True, nn.ReLU, 1, 1),
    (3, 240, 80, False, nn.Hardswish, 1, 2),
    (3, 200, 80, False, nn.Hardswish, 1, 2),
    (3, 184, 80, False, nn.Hardswish, 1, 2),
    (3, 184, 80, False, nn.Hardswish, 1, 2),
    (3, 480, 112, True, nn.Hardswish, 1, 2),
    (3, 672, 112, True, nn.Hardswish, 1, 2),
    (5, 672, 160, True, nn.Hardswish, 1, 4),
    (5, 960, 160, True, nn.Hardswish, 1, 4),
    (5, 960, 160, True, nn.Hardswish, 1, 4),
)


def conv_bn_act(inner, outer, kernel, stride=1, dilation=1, groups=1, act=None):
    """Named 0, 1, 2 as in torchvision; its epsilon is 0.001."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inner, outer, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer, eps=1e-3), *([act()] if act else []))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        inner += 8 if inner < 0.9 * (channels // 4) else 0
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class V3Block(nn.Module):
    def __init__(self, inner, kernel, hidden, outer, squeeze, act, stride, dilation):
        super().__init__()
        self.same = stride == 1 and inner == outer
        layers = [conv_bn_act(inner, hidden, 1, act=act)] if hidden != inner else []
        layers.append(conv_bn_act(hidden, hidden, kernel, stride, dilation, hidden, act))
        layers += [SqueezeExcitation(hidden)] if squeeze else []
        layers.append(conv_bn_act(hidden, outer, 1))
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.block(x) if self.same else self.block(x)


class TorchvisionMobileNetV3(nn.Module):
    """Names ``features.0 .. features.n``, the last a 1x1 convolution; then the classifier."""

    def __init__(self, table):
        super().__init__()
        layers, inner = [conv_bn_act(3, 16, 3, 2, act=nn.Hardswish)], 16
        for row in table:
            layers.append(V3Block(inner, *row))
            inner = row[2]
        layers.append(conv_bn_act(inner, 6 * inner, 1, act=nn.Hardswish))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(6 * inner, 5))

    def published(self):
        """The state dict in torchvision's names."""
        return {
            name.replace('layers.', 'features.', 1): value
            for name, value in self.state_dict().items()
        }

    def features(self, x):
        outs = []
        for layer in self.layers:
            x = layer(x)
            outs.append(x)
        return outs


class ConvX(nn.Module):
    def __init__(self, inner, outer, kernel=3, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outer)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class CatBottleneck(nn.Module):
    """STDC's block: four convolutions of falling width, concatenated (Fan et al., 2021)."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        half = outer // 2
        self.conv_list = nn.ModuleList(
            (
                ConvX(inner, half, 1),
                ConvX(half, outer // 4),
                ConvX(outer // 4, outer // 8),
                ConvX(outer // 8, outer // 8),
            )
        )
        self.avd_layer = None
        if stride == 2:
            self.avd_layer = nn.Sequential(
                nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False), nn.BatchNorm2d(half)
            )

    def forward(self, x):
        first = self.conv_list[0](x)
        x = first if self.avd_layer is None else self.avd_layer(first)
        outs = [first if self.avd_layer is None else F.avg_pool2d(first, 3, 2, 1)]
        for conv in self.conv_list[1:]:
            x = conv(x)
            outs.append(x)
        return torch.cat(outs, dim=1)


class OriginalSTDC(nn.Module):
    """A flat list of features, listed again by resolution; a classifier behind them."""

    def __init__(self, base=16, blocks=(2, 2, 2)):
        super().__init__()
        layers = [ConvX(3, base // 2, 3, 2), ConvX(base // 2, base, 3, 2)]
        inner, self.ends = base, []
        for index, count in enumerate(blocks):
            outer = base * 4 * 2**index
            for number in range(count):
                layers.append(CatBottleneck(inner, outer, 1 if number else 2))
                inner = outer
            self.ends.append(len(layers))
        self.layers = nn.Sequential(*layers)
        first, second, _ = self.ends
        self.x4 = nn.Sequential(self.layers[1:2])
        self.x8 = nn.Sequential(self.layers[2:first])
        self.x16 = nn.Sequential(self.layers[first:second])
        self.conv_last = ConvX(inner, max(1024, inner), 1)
        self.fc = nn.Linear(1024, 8, bias=False)
        self.bn = nn.BatchNorm1d(8)
        self.linear = nn.Linear(8, 5, bias=False)

    def published(self):
        """The state dict in the original's names, under 'state_dict'."""
        weights = {
            name.replace('layers.', 'features.', 1): value
            for name, value in self.state_dict().items()
        }
        return {'epoch': 1, 'state_dict': weights}

    def features(self, x, last=False):
        outs = []
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if index in self.ends:
                outs.append(x)
        if last:
            outs[-1] = self.conv_last(outs[-1])
        return outs
