"""A config in mmengine's new style: the types are classes, imported at the top of the file."""

from mmengine import registry as roots
from mmengine.registry import Registry

HUBS = [hub for hub in vars(roots).values() if isinstance(hub, Registry)]


class Name(str):
    """Written as it is, without quotes."""

    __repr__ = str.__str__


def write_new_style(cfg, path):
    """Write an ordinary config of mmseg's as a new-style one; returns the path."""
    imports = set()
    values = {key: _with_classes(value, imports) for key, value in cfg.to_dict().items()}
    values['default_scope'] = None  # as such configs have it
    lines = [*sorted(imports), *(f'{key} = {value!r}' for key, value in values.items())]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def _with_classes(value, imports):
    if isinstance(value, (list, tuple)):
        return type(value)(_with_classes(item, imports) for item in value)
    if not isinstance(value, dict):
        return value
    found = {key: _with_classes(item, imports) for key, item in value.items()}
    if isinstance(found.get('type'), str):
        kind = _class(found['type'])
        name = Name(f'{kind.__name__}_of_{kind.__module__.split(".")[0]}')
        imports.add(f'from {kind.__module__} import {kind.__name__} as {name}')
        found['type'] = name
    return found


def _class(name):
    for hub in HUBS:
        with hub.switch_scope_and_registry('mmseg') as registry:
            if registry.get(name) is not None:
                return registry.get(name)
    raise KeyError(name)
