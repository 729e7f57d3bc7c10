"""Backbones around an encoder: only the encoder is published, the rest is always new.

BiSeNetV1, ICNet and STDCContextPathNet build paths and fusions around a network that was
pre-trained, as mmseg does with their ``backbone_cfg.pretrained``. TIMMBackbone wraps timm's model,
which may be wrapped once more; a user's own class holds a network of another project as
``self.model``. A file may hold the whole or the encoder alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.store import own_tensors
from mm_tuning_plugin.checkpoint.match.wrappers import plain_names

ENCODERS = ('backbone', 'timm_model')
LISTS = (nn.ModuleList, nn.Sequential)  # of layers: no file is of them alone


class Encoder(NamedTuple):
    """A network inside a backbone.

    Attributes:
        name: Its dotted name, ending in a dot; '' for the backbone itself.
        module: The network.
        targets: Its own tensors, by names without those of wrapper modules.
        names: Each of these names -> the network's own.
    """

    name: str
    module: nn.Module
    targets: dict[str, Tensor]
    names: dict[str, str]


def encoders(backbone: nn.Module) -> list[Encoder]:
    """The backbone itself, then what may be the encoder that it is built around, outermost first.

    A module that holds all tensors of its parent is one, at any depth. So is the first of the names
    `ENCODERS`, and a part that holds more than half of the parameters and is another project's.
    """
    places = ['']
    places += _wrapped(backbone)
    named = (n for n, _ in backbone.named_modules() if n.rpartition('.')[2] in ENCODERS)
    around = backbone.get_submodule(places[-1])
    for inner in (*_main_part(around, places[-1]), *[name for name in [next(named, '')] if name]):
        places += [inner, *_wrapped(backbone.get_submodule(inner), inner)]
    return [_encoder(backbone, place) for place in dict.fromkeys(places)]


def _encoder(backbone: nn.Module, place: str) -> Encoder:
    module = backbone.get_submodule(place)
    tensors = own_tensors(module)
    plain = plain_names(tensors)
    targets = {plain[name]: tensor for name, tensor in tensors.items()}
    return Encoder(
        f'{place}.' if place else '', module, targets, {short: n for n, short in plain.items()}
    )


def _wrapped(module: nn.Module, place: str = '') -> Iterator[str]:
    """What a module wraps: the only child that holds anything, the only one of that, ..."""
    while True:
        children = {name.split('.')[0] for name in own_tensors(module)}
        if len(children) != 1:
            return
        name = children.pop()
        inner = getattr(module, name)
        if not isinstance(inner, nn.Module) or isinstance(inner, LISTS):
            return
        module, place = inner, _join(place, name)
        yield place


def _main_part(module: nn.Module, place: str) -> Iterator[str]:
    """The child that holds more than half of a module's parameters, if it is another project's."""
    total = sum(parameter.numel() for parameter in module.parameters())
    for name, child in module.named_children():
        size = sum(parameter.numel() for parameter in child.parameters())
        foreign = _project(child) not in ('torch', _project(module))
        if 2 * size > total and foreign and not isinstance(child, LISTS):
            yield _join(place, name)


def _project(module: nn.Module) -> str:
    return type(module).__module__.split('.')[0]


def _join(parent: str, name: str) -> str:
    return f'{parent}.{name}' if parent else name
