"""Modules that only wrap another one: their names inside a tensor's name mean nothing.

``torch.compile``, FSDP, activation checkpointing and low-rank adapters put a module around each
block or layer, so that ``blocks.0.attn.qkv.weight`` becomes
``blocks.0._fsdp_wrapped_module.attn.qkv.base_layer.weight``. A file and a backbone may be wrapped
in different ways, so both are compared without these names.
"""

from __future__ import annotations

from collections.abc import Iterable

WRAPPERS = frozenset(
    (
        '_checkpoint_wrapped_module',  # torch's activation checkpointing
        '_forward_module',  # Lightning's Fabric
        '_fpw_module',  # fairscale's FSDP
        '_fsdp_wrapped_module',
        '_orig_mod',  # torch.compile
        'base_layer',  # peft
        'original_layer',  # mmpretrain's LoRAModel
    )
)
# DataParallel and others name what they wrap 'module', which may be a network's own name too. It is
# a wrapper for sure inside a list of blocks, where nothing stands beside it.
_MAYBE = 'module'


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Remove the names of wrappers, anywhere in a name.

    Args:
        names: Dotted names of tensors.

    Returns:
        Each name -> the plain one, in the same order. Where two names would become one, both stay
        as they are, so that no tensor takes the place of another.
    """
    names = list(names)
    lone = _lone_modules(names)
    plain = {name: _without_wrappers(name, lone) for name in names}
    counts: dict[str, int] = {}
    for short in plain.values():
        counts[short] = counts.get(short, 0) + 1
    return {name: short if counts[short] == 1 else name for name, short in plain.items()}


def plain_place(name: str) -> str:
    """A container's name or a prefix without those of wrappers that are certain anywhere."""
    return '.'.join(part for part in name.split('.') if part not in WRAPPERS)


def _without_wrappers(name: str, lone: set[str]) -> str:
    parts = name.split('.')
    kept = [
        part
        for i, part in enumerate(parts[:-1])
        if part not in WRAPPERS and not (part == _MAYBE and '.'.join(parts[:i]) in lone)
    ]
    return '.'.join((*kept, parts[-1]))


def _lone_modules(names: Iterable[str]) -> set[str]:
    """Parents, inside a list, of which 'module' is the only child."""
    children: dict[str, set[str]] = {}
    for name in names:
        parts = name.split('.')
        for i in range(1, len(parts)):
            if any(part.isdigit() for part in parts[:i]):
                children.setdefault('.'.join(parts[:i]), set()).add(parts[i])
    return {parent for parent, found in children.items() if found == {_MAYBE}}
