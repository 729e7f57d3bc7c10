"""What a kind of node declares, and the look-up of kinds by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.errors import UserError


class DataFacts(NamedTuple):
    """What a transform needs to know of the data.

    Attributes:
        background_index: The background class; None: there is none.
        fill: Value of each channel outside the image, in the file's order of channels.
    """

    background_index: int | None
    fill: Sequence[float]


class NodeKind:
    """A kind of node. A subclass sets the attributes and writes `transform` and `embedding`.

    Attributes:
        name: What ``mix_and_match.nodes`` calls it.
        options: Options of ``mix_and_match`` that `transform` and `embedding` read.
        nodes_per_image: Default of the option of that name.
        kept_transforms: Types of the config's transforms that tuning keeps by default; None: all
            geometric and photometric ones.
        whole_images: Whether nodes are pixels of whole images, one image having many. If not, each
            node is an image of its own, which was cut out of the loaded one.
        figures: Measures of `mm-tuning browse`, in addition to purity: ``side``, ``covered``
            (share that other nodes cover) and ``outside`` (share outside the image), for kinds
            that have boxes.
    """

    name: str
    options: tuple[str, ...] = ('nodes_per_image',)
    nodes_per_image: int
    kept_transforms: tuple[str, ...] | None = None
    whole_images: bool
    figures: tuple[str, ...] = ()

    def transform(self, options: Mapping[str, Any], facts: DataFacts) -> dict[str, Any]:
        """Config of the transform that draws the nodes.

        ``num_classes`` and ``ignore_values`` are added to it.

        Args:
            options: Values of the kind's own `options`.
            facts: Of the data.
        """
        raise NotImplementedError

    def embedding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Config of the embedding head, without what the loss decides (projection, length).

        Args:
            options: As for `transform`.
        """
        raise NotImplementedError

    def more_nodes(self, options: Mapping[str, Any]) -> str:
        """What a user can do if classes get no node; a part of a sentence, for warnings."""
        return 'raise mix_and_match.nodes_per_image'

    def own_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of all options that this kind reads."""
        return {name: options[name] for name in self.options}


_kinds: dict[str, NodeKind] = {}


def register_node_kind(kind: NodeKind) -> NodeKind:
    """Make a kind known by its name; returns it.

    Raises:
        UserError: Another kind has that name.
    """
    known = _kinds.setdefault(kind.name, kind)
    if type(known).__qualname__ != type(kind).__qualname__:
        raise UserError(
            'mix_and_match.nodes',
            f'{kind.name!r} is the name of {type(known).__name__} and of {type(kind).__name__}',
            'expected a name of its own for each kind of node',
        )
    _kinds[kind.name] = kind
    return kind


def node_kinds() -> tuple[str, ...]:
    """Names of all kinds.

    Examples:
        >>> node_kinds()
        ('patches', 'points')
    """
    return tuple(sorted(_kinds))


def node_kind(nodes: str | Mapping[str, Any]) -> NodeKind:
    """The kind that the option ``nodes`` means.

    Args:
        nodes: A name, or the config of a transform of the user's, whose ``like`` names the kind
            that its nodes are like; without it they are like points.

    Examples:
        >>> node_kind('points').nodes_per_image
        128
        >>> node_kind(dict(type='SampleGrid', like='patches')).name
        'patches'
    """
    return _kinds[nodes if isinstance(nodes, str) else nodes.get('like', 'points')]


def node_name(nodes: str | Mapping[str, Any]) -> str:
    """What a person calls the nodes: the name of a kind, or the type of the user's transform.

    Examples:
        >>> node_name(dict(type='my_project.SampleGrid', like='points'))
        'SampleGrid'
    """
    return nodes if isinstance(nodes, str) else base_type(nodes)


def sample_config(
    options: Mapping[str, Any], facts: DataFacts, labels: Mapping[str, Any]
) -> dict[str, Any]:
    """Config of the transform that draws the nodes: of a kind, or the user's own.

    Args:
        options: All options.
        facts: Of the data.
        labels: ``num_classes`` and ``ignore_values``; the user's own values win.
    """
    nodes = options['nodes']
    if isinstance(nodes, str):
        kind = node_kind(nodes)
        return {**kind.transform(kind.own_options(options), facts), **labels}
    return {**labels, **{key: value for key, value in nodes.items() if key != 'like'}}


def embedding_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the embedding head of the kind that the nodes are of, or are like."""
    kind = node_kind(options['nodes'])
    return kind.embedding(kind.own_options(options))


def draws_background(options: Mapping[str, Any]) -> bool:
    """Whether the nodes are drawn with a share of background."""
    nodes = options['nodes']
    return isinstance(nodes, str) and 'background_ratio' in node_kind(nodes).options


def more_nodes(options: Mapping[str, Any]) -> str:
    """What a user can do if classes get no node; a part of a sentence, for warnings."""
    nodes = options['nodes']
    if isinstance(nodes, str):
        kind = node_kind(nodes)
        return kind.more_nodes(kind.own_options(options))
    return f'let {node_name(nodes)} draw more of them'
