"""Names that can be imported and nothing else: whatever uses one raises."""

import enum


class Inert(type):
    """Of classes that cannot be called: neither built nor used as a function."""

    def __call__(cls, *args, **kwargs):
        raise RuntimeError(f'{cls.__qualname__}: torchvision is a stub here, which does nothing')


def names(*given):
    """A dict of inert classes of these names, for a module's namespace."""
    return {name: Inert(name, (), {'__module__': 'torchvision'}) for name in given}


class InterpolationMode(enum.Enum):
    """The only thing that is more than a name: timm makes tables of it as it is imported."""

    NEAREST = 'nearest'
    NEAREST_EXACT = 'nearest-exact'
    BILINEAR = 'bilinear'
    BICUBIC = 'bicubic'
    BOX = 'box'
    HAMMING = 'hamming'
    LANCZOS = 'lanczos'
