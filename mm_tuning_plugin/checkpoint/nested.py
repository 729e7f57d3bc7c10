"""Backbones around an encoder: what is published is the encoder, the rest is new by nature.

BiSeNetV1, ICNet and STDCContextPathNet build paths and fusions around a network that was
pre-trained, as mmseg does with their ``backbone_cfg.pretrained``; TIMMBackbone wraps timm's model.
A file may hold the whole or the encoder alone.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

ENCODERS = ('backbone', 'timm_model')


class Encoder(NamedTuple):
    """A network inside a backbone.

    Attributes:
        name: Its dotted name, ending in a dot; '' for the backbone itself.
        module: The network.
    """

    name: str
    module: nn.Module


def encoders(backbone: nn.Module) -> list[Encoder]:
    """The backbone itself, then the encoder that it is built around, if there is one."""
    found = [Encoder('', backbone)]
    for name, module in backbone.named_modules():
        if name.rpartition('.')[2] in ENCODERS:
            found.append(Encoder(f'{name}.', module))
            break
    return found
