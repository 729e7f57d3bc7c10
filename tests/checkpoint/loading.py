"""What the tests of loading share: sources, saving, and the two ways in which loading ends."""

import collections

import torch
from mistakes import mistake
from reference_networks import randomise

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint


def built(make, seed=11):
    """A network with trained-looking weights and statistics."""
    with torch.no_grad():
        return randomise(make(), seed=seed)


def saved(content, path):
    torch.save(content, path)
    return path


def shifted(weights):
    """Another network of the same shapes."""
    return {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}


def under(prefix, weights):
    return collections.OrderedDict((prefix + name, value) for name, value in weights.items())


def shallow(cls, depth=50, **options):
    """A residual backbone of mmseg's with one block a stage: bottlenecks (50) or basic (18)."""
    block, _ = cls.arch_settings[depth]

    class Shallow(cls):
        arch_settings = {depth: (block, (1, 1, 1, 1))}

    return Shallow(depth=depth, **options)


def compare(backbone, features, *, sizes=(64, 96), channels=3):
    """Every level of a backbone agrees with its source's, in evaluation mode, at every size."""
    backbone.eval()  # mmseg's return None
    for size in sizes:
        images = torch.randn(2, channels, size, size + 32)
        with torch.no_grad():
            found, expected = backbone(images), features(images)
        found = [found] if isinstance(found, torch.Tensor) else found
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert b.std() > 1e-3
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def check(backbone, features, file, naming, *, sizes=(64, 96)):
    """Loads a file: nothing is missing or unknown, and the function is the source's."""
    report = load_backbone_checkpoint(backbone, file)
    assert report.layout.renaming == naming
    assert report.missing == () and report.unexpected == () and report.share == 1
    compare(backbone, features, sizes=sizes)
    return report


def refuse(backbone, file, *problem, remedy=(), **options):
    """Refused with these facts as the problem, and the backbone is as it was."""
    before = hash_state_dict(backbone.state_dict())
    with mistake(str(file), problem, remedy):
        load_backbone_checkpoint(backbone, file, **options)
    assert hash_state_dict(backbone.state_dict()) == before
