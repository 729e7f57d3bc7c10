"""Read and compare the ``type`` of a config.

A type is written as a registered name ('ResNet'), with its scope ('mmseg.ResNet'), as the path of a
class ('mmseg.models.backbones.resnet.ResNet', which mmengine writes for new-style configs), or as
the class itself. All four mean the same to mmengine's registries. To treat them alike, read a type
with `base_type`, `full_type` or `class_of` and never compare the entries of a config.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS, Registry, root
from mmengine.utils import get_object_from_string

from mm_tuning_plugin.errors import UserError

ConfigMap = Mapping[str, Any]
"""A part of a config that is only read."""

PlainConfig = dict[str, Any]
"""A part of a config that is built or changed."""

# The keys that mmengine's Runner reads, and this package's options. Others may name missing types.
READ_KEYS = (
    'model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'val_dataloader', 'val_cfg',
    'val_evaluator', 'optim_wrapper', 'param_scheduler', 'default_hooks', 'custom_hooks',
    'visualizer', 'log_processor', 'model_wrapper_cfg', 'mix_and_match',
)  # fmt: skip


class TypeName(NamedTuple):
    """A type by its name.

    Attributes:
        scope: Of the registry; '' where the config leaves it open; of a class that nobody
            registered its module.
        name: In the registry; for an unregistered class, its own name.
    """

    scope: str
    name: str

    def __str__(self) -> str:
        return f'{self.scope}.{self.name}' if self.scope else self.name


def base_type(config: Mapping[str, Any]) -> str:
    """The type of a config without its scope: 'mmseg.ResNet' -> 'ResNet'; '' without one."""
    return name_of(config.get('type')).name


def shown_type(config: Mapping[str, Any]) -> str:
    """Format the type for an error message: as in the config, or the name of the class."""
    kind = _built(config.get('type'))
    return kind if isinstance(kind, str) else _own_name(kind)


def full_type(config: Mapping[str, Any], scope: str = 'mmengine') -> str:
    """The type of a config with its scope: 'ResNet' -> 'mmseg.ResNet'.

    Args:
        config: Of anything that mmengine builds.
        scope: What a name without one is meant in.
    """
    found = name_of(config.get('type'))
    return str(found if found.scope else found._replace(scope=scope))


def class_of(config: Mapping[str, Any], registry: Registry, scope: str | None = None) -> Any:
    """Return the class that mmengine would build for a config; None if it finds nothing.

    Args:
        config: It may have no type.
        registry: Where names are looked up.
        scope: Of a name without one. None: the current default scope.
    """
    kind = _built(config.get('type'))
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    with registry.switch_scope_and_registry(scope) as found:
        return _looked_up(kind, found)


def name_of(kind: Any) -> TypeName:
    """The name that a type has in its registry, however a config gives it.

    The path of a class that cannot be imported gives its package for a scope.
    """
    kind = _built(kind)
    if kind is None:
        return TypeName('', '')
    if isinstance(kind, str):
        known = _imported(kind)
        if known is None:
            scope, _, name = kind.rpartition('.')
            return TypeName(scope.split('.')[0], name)
        kind = known
    return _registered(kind) or TypeName(_module(kind), _own_name(kind))


def plain_name(kind: Any, scope: str = 'mmseg') -> str:
    """Return the shortest name of a type. A registered name in the config is kept.

    Args:
        kind: A type.
        scope: The ``default_scope`` that the name is to be read in.

    Returns:
        A class by its registered name, without its scope if that equals `scope`. An unregistered
        class by its path, which distinguishes it from others of the same name.
    """
    kind = _built(kind)
    known = _imported(kind) if isinstance(kind, str) else kind
    if known is None:
        return str(kind)
    found = _registered(known)
    if found is None:
        return kind if isinstance(kind, str) else f'{_module(kind)}.{_own_name(kind)}'
    if found.scope not in (scope, 'mmengine'):
        return str(found)
    own = [r.module_dict.get(found.name) for r in _registries() if r.scope == scope]
    taken = any(other is not None and other is not known for other in own)
    return str(found) if taken and found.scope != scope else found.name


def with_plain_types(config: Any, scope: str = 'mmseg') -> Any:
    """Copy nested configs with `plain_name` for every type, and for classes that are arguments."""
    if isinstance(config, Mapping):
        return {
            key: plain_name(value, scope)
            if key in ('type', 'constructor') and isinstance(value, str)
            else with_plain_types(value, scope)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(with_plain_types(item, scope) for item in config)
    return plain_name(config, scope) if _is_class(_built(config)) else config


def with_named_types(cfg: Config) -> Config:
    """A config as mmengine writes it, and can read it again: classes by their paths.

    The path does what the class does: mmengine, mmcv and mmseg compare some types with registered
    names ('Pretrained', 'PReLU'), and do other things for these. A class that is an argument is
    imported when it is asked for, as in a new-style config.

    Args:
        cfg: A user's config; not changed.

    Returns:
        `cfg` itself where no class is in it.

    Raises:
        UserError: A class that a run needs cannot be imported.
    """
    whole = cfg if isinstance(cfg, Config) else Config(dict(cfg))
    given = whole._to_lazy_dict()  # without the names that the file imports
    if not _holds_classes(given.values()):
        return cfg
    named = {key: _named(value, key, key in READ_KEYS) for key, value in given.items()}
    about = dict(filename=whole.filename, env_variables=whole.env_variables)
    return Config(named, cfg_text=whole.text, **about)


def _named(value: Any, place: str, needed: bool) -> Any:
    """Copy a part of a config, its types as strings."""
    if isinstance(value, Mapping):
        return {
            key: _named_type(item, f'{place}.{key}', needed)
            if key == 'type' or (place, key) == ('optim_wrapper', 'constructor')
            else _named(item, f'{place}.{key}', needed)
            for key, item in dict.items(value)
        }
    if isinstance(value, (list, tuple)):
        items = [_named(item, f'{place}.{i}', needed) for i, item in enumerate(value)]
        if place.startswith('mix_and_match.'):  # lists of types
            items = [name_of(item).name if _is_class(_built(item)) else item for item in items]
        return type(value)(items)
    if _is_class(value) and _path(value) is not None and '.' not in value.__qualname__:
        return LazyObject(value.__module__, value.__qualname__)
    return value


def _named_type(kind: Any, place: str, needed: bool) -> Any:
    """A type as a string, if it can be found again by that."""
    if isinstance(kind, (LazyObject, LazyAttr)):
        if not needed:
            return kind
        try:
            kind = kind.build()
        except Exception as error:  # a package can raise anything while it is imported
            raise _not_importable(kind, place, error) from error
    if not _is_class(kind):
        return kind
    # mmengine leaves weights alone that an initialiser of the name 'Pretrained' has loaded
    if any(kind is known for known in WEIGHT_INITIALIZERS.module_dict.values()):
        return plain_name(kind)
    return _path(kind) or kind


def _not_importable(kind: LazyObject | LazyAttr, place: str, error: Exception) -> UserError:
    package = str(kind.module).split('.')[0]
    if package and importlib.util.find_spec(package) is None:
        return UserError(
            place,
            f'a type of {package} found, which is not installed',
            f'install it beside mmseg: `pip install {package}`',
        )
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    return UserError(
        place,
        f'{kind.module}.{kind} cannot be imported ({reason})',
        'correct the name, or what its module lacks',
    )


def _holds_classes(items: Any) -> bool:
    """Whether nested configs contain a class or a lazy object of one."""
    for item in items:
        if isinstance(item, Mapping):
            if _holds_classes(item.values()):
                return True
        elif isinstance(item, (list, tuple)):
            if _holds_classes(item):
                return True
        elif isinstance(item, (LazyObject, LazyAttr)) or _is_class(item):
            return True
    return False


def _built(kind: Any) -> Any:
    return kind.build() if isinstance(kind, (LazyObject, LazyAttr)) else kind


def _is_class(value: Any) -> bool:
    """Whether a value is a class or function that a config can name; built-in ones are values."""
    if isinstance(value, (LazyObject, LazyAttr)) or not callable(value):
        return False
    return hasattr(value, '__qualname__') and _module(value) not in ('', 'builtins')


def _path(kind: Any) -> str | None:
    """The path by which mmengine's registries find a class again; None: they do not."""
    path = f'{_module(kind)}.{kind.__qualname__}'
    return path if _looked_up(path, MODELS) is kind else None


def _looked_up(name: str, registry: Registry) -> Any:
    try:
        return registry.get(name)
    except Exception:  # it imports by name, which can raise anything
        return None


def _imported(name: str) -> Any:
    """Return the class at a path; None if the string is a scope and a name (one dot)."""
    if name.count('.') < 2:
        return None
    try:
        found = get_object_from_string(name)
    except Exception:  # modules can raise anything
        return None
    return found if callable(found) else None


def _registered(kind: Any) -> TypeName | None:
    """The name under which a class is registered, its own if that is one of several."""
    found = [
        TypeName(str(registry.scope), name)
        for registry in _registries()
        for name, value in registry.module_dict.items()
        if value is kind
    ]
    own = [name for name in found if name.name == _own_name(kind)]
    return (own or found or [None])[0]


def _registries() -> Iterator[Registry]:
    """Mmengine's registries, each before those of other projects below it."""
    for registry in vars(root).values():
        if isinstance(registry, Registry):
            yield from _with_children(registry)


def _with_children(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _with_children(child)


def _module(kind: Any) -> str:
    return str(getattr(kind, '__module__', None) or '')


def _own_name(kind: Any) -> str:
    return str(getattr(kind, '__name__', kind))
