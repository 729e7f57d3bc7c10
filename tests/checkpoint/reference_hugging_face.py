"""Tiny models of transformers with trained-looking weights, and the names they are published in."""

import torch
from reference_networks import randomise
from safetensors.torch import load_file
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint


def trained(model, seed=11):
    """The model, every parameter away from its initial value."""
    with torch.no_grad():
        return randomise(model, seed)


def published(model, folder):
    """The state dict in the names of files on the hub, which `save_pretrained` goes back to."""
    model.save_pretrained(folder)
    return load_file(folder / 'model.safetensors')


def outputs_of(modules, run):
    """What each of some modules returns while `run()` is at work: the first, if it is a tuple."""
    outputs = []

    def keep(_module, _inputs, output):
        outputs.append(output if isinstance(output, torch.Tensor) else output[0])

    handles = [module.register_forward_hook(keep) for module in modules]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return outputs


def to_grid(tokens, height, width):
    """(B, H*W, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def loaded(backbone, weights, folder, **options):
    """Loads a state dict by way of a file; the report. Dropout and drop path are off afterwards."""
    torch.save(weights, folder / 'a.pth')
    report = load_backbone_checkpoint(backbone, folder / 'a.pth', **options)
    backbone.eval()
    return report


def check_levels(backbone, levels, sizes=((64, 64), (80, 96))):
    """Every output of the backbone equals the reference's, on images of several sizes."""
    for number, size in enumerate(sizes):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(number))
        expected = levels(images)
        with torch.no_grad():
            found = backbone(images)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert other.std() > 0.1
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def renamed(weights, rules):
    """Replaces substrings in all names."""
    named = {}
    for name, value in weights.items():
        for old, new in rules:
            name = name.replace(old, new)
        named[name] = value
    return named


def channels_first_norm(norm, x):
    """LayerNorm over the channels of (B, C, H, W)."""
    assert isinstance(norm, nn.LayerNorm)
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
