"""Why a file does not fit: the nearest recognisable difference, in half a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.store import own_tensors
from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer
from mm_tuning_plugin.checkpoint.match.fit import Fit
from mm_tuning_plugin.checkpoint.match.wrappers import plain_names

_DEPTHS = {
    (2, 2, 2, 2): ('18', '18'),
    (3, 4, 6, 3): ('34', '50'),
    (3, 4, 23, 3): ('101', '101'),
    (3, 8, 36, 3): ('152', '152'),
}
# Names that only one family of networks has, in any project's convention; the first that occurs
# decides. Other families get no explanation.
_FAMILIES = tuple(
    (kind, rf'(?:^|\.)(?:{pattern})')
    for kind, pattern in (
        (
            'language model',
            r'word_embeddings\.|embed_tokens\.|wte\.|token_type_embeddings\.',
        ),
        ('CLIP model', r'visual\.(conv1|trunk|transformer|class_embedding)|attnpool\.'),
        ('SwinV2', r'(attn|attention\.self)\.(cpb_mlp|logit_scale|continuous_position_bias_mlp)'),
        (
            'Swin',
            r'(attn\.w_msa|layers\.\d+\.blocks\.\d+\.attn(ention\.self)?)\.relative_position_bias_table',
        ),
        ('MSCAN', r'(block\d\.\d+\.)?attn\.spatial_gating_unit\.'),
        ('PVT', r'pos_embed1$|patch_embeddings\.0\.position_embeddings$'),
        (
            'MiT',
            r'block1\.0\.attn\.q\.|layers\.0\.1\.0\.attn\.|block\.0\.0\.attention\.self\.query\.',
        ),
        (
            'MobileNetV3',
            r'features\.\d+\.block\.0\.0\.|layer\d+\.depthwise_conv\.conv\.',
        ),
        ('MobileNetV2', r'features\.\d+\.conv\.0\.0\.|layer\d+\.0\.conv\.0\.conv\.'),
        ('MobileNet or EfficientNet of timm', r'blocks\.\d+\.\d+\.conv_dw\.'),
        ('STDC', r'features\.\d+\.conv_list\.|stages\.2\.0\.layers\.0\.(conv|0)\.'),
        ('ConvNeXt', r'\w+\.\d+\.(\w+\.\d+\.)*(depthwise_conv|dwconv|conv_dw)\.weight'),
        ('HRNet', r'stage2\.0\.branches\.'),
        (
            'ViT',
            r'(layers|blocks|encoder\.layer)\.\d+\.(attn|attention|norm1|ln1|layernorm_before)\.',
        ),
        ('ResNeSt', r'layer1\.0\.conv2\.fc1\.'),
        ('VGG', r'features\.\d+\.(conv\.)?(weight|bias)$'),
        ('ResNet', r'layer1\.0\.conv1\.|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution'),
    )
)
Shapes = Mapping[str, tuple[int, ...]]


def explain(backbone: nn.Module, fit: Fit, tensors: Mapping[str, Tensor]) -> str:
    """The nearest explanation of a misfit, to be appended to the error; '' if none is recognised.

    Args:
        backbone: To be loaded.
        fit: The best fit that was found.
        tensors: All tensors of the file.
    """
    own = own_tensors(backbone)
    plain = plain_names(own)
    wanted = {plain[name]: tuple(t.shape) for name, t in own.items()}
    found = {name: tuple(t.shape) for name, t in {**fit.values, **fit.unused}.items()}
    for name in fit.resized:
        found[name] = wanted[name]
    kinds = _kind(found) or _kind(tensors), _kind(wanted)
    reason = ''
    if kinds[0] and kinds[0] != kinds[1]:
        reason = f'the file holds a {kinds[0]}, the backbone is a '
        reason += kinds[1] or type(backbone).__name__
    elif kinds == ('ResNet', 'ResNet'):
        reason = _resnet(found, wanted)
    elif kinds == ('VGG', 'VGG'):
        reason = _vgg(found, wanted)
    elif kinds[1] == 'ViT':
        reason = _vit(found, wanted)
    if not reason:
        reason = _example(fit, wanted)
    if any('decode_head.' in name for name in tensors):
        reason = f'{reason}; ' if reason else ''
        reason += 'the file is a whole segmentor, of another backbone'
    return f': {reason}' if reason else ''


def _example(fit: Fit, wanted: Shapes) -> str:
    """One tensor that does not fit, where nothing better is known."""
    if fit.mismatched:
        name, (found, expected) = next(iter(fit.mismatched.items()))
        return f"e.g. '{name}' is {found} in the file, {expected} in the backbone"
    missing = next((name for name in wanted if name not in fit.values and not is_buffer(name)), '')
    unused = next((name for name in fit.unused if not is_buffer(name)), '')
    if missing:
        return f"e.g. '{missing}' is missing" + (f"; the file has '{unused}'" if unused else '')
    return ''


def _kind(names: Iterable[str]) -> str:
    """The family of a network, by its names in any project's convention, under any prefix."""
    text = '\n'.join(names)
    for kind, pattern in _FAMILIES:
        if re.search(pattern, text, re.MULTILINE):
            return kind
    return ''


def _resnet(found: Shapes, wanted: Shapes) -> str:
    """Stem, depth or width of two ResNets."""
    deep = tuple(
        any(name.startswith(('stem.', 'conv1.0.')) for name in names) for names in (found, wanted)
    )
    depths = _depth(found), _depth(wanted)
    if depths[0] != depths[1]:
        return f'the file is a ResNet-{depths[0]}, the backbone a ResNet-{depths[1]}'
    if deep == (False, True):
        return "the file has the plain stem 'conv1', the backbone the deep stem of ResNetV1c/V1d"
    if deep == (True, False):
        return "the file has the deep stem of ResNetV1c/V1d, the backbone the plain stem 'conv1'"
    if any('downsample.2.' in name for name in found) != any('downsample.2.' in n for n in wanted):
        return 'the shortcuts differ: one of the two is ResNetV1d, with pooling in them'
    return _width(found, wanted, 'layer1.0.conv1.weight')


def _vgg(found: Shapes, wanted: Shapes) -> str:
    """Depth or norms of two VGGs; their names are by three linear layers more than convolutions."""
    kinds = []
    for shapes in (found, wanted):
        layers = [len(s) for n, s in shapes.items() if re.fullmatch(r'features\..*weight', n)]
        kinds.append(f'VGG-{layers.count(4) + 3} with{"" if 1 in layers else "out"} norms')
    return f'the file is a {kinds[0]}, the backbone a {kinds[1]}' if kinds[0] != kinds[1] else ''


def _depth(names: Shapes) -> str:
    """'50' for a ResNet-50; the block counts where they are not one of the usual."""
    counts = []
    for layer in range(1, 5):
        pattern = re.compile(rf'layer{layer}\.(\d+)\.')
        blocks = {match.group(1) for match in map(pattern.match, names) if match}
        if blocks:
            counts.append(len(blocks))
    bottleneck = 'layer1.0.conv3.weight' in names
    for usual, titles in _DEPTHS.items():
        if usual[: len(counts)] == tuple(counts):
            return titles[bottleneck]
    return f'with {"-".join(str(count) for count in counts)} blocks'


def _vit(found: Shapes, wanted: Shapes) -> str:
    """Patch size, width or depth of two transformers."""
    patch = 'patch_embed.projection.weight'
    if patch in found and patch in wanted and found[patch][2:] != wanted[patch][2:]:
        return f'the file has patches of {found[patch][2]}, the backbone of {wanted[patch][2]}'
    width = _width(found, wanted, patch) or _width(found, wanted, 'layers.0.ln1.weight')
    if width:
        return width
    layers = [
        len({m.group(1) for m in map(re.compile(r'layers\.(\d+)\.').match, names) if m})
        for names in (found, wanted)
    ]
    if layers[0] != layers[1]:
        return f'the file has {layers[0]} layers, the backbone {layers[1]}'
    return ''


def _width(found: Shapes, wanted: Shapes, name: str) -> str:
    if name in found and name in wanted and found[name][0] != wanted[name][0]:
        return f'the file is {found[name][0]} channels wide, the backbone {wanted[name][0]}'
    return ''
