"""Storage of the tests: mmengine's backends over a dict of files instead of a server.

`MemoryBackend` offers what a file system does ('memory://', or by key); `BareBackend` what LMDB and
memcached do. mmengine's own backends of HTTP, LMDB and memcached run over stand-ins of their
clients.
"""

import io
import sys
import types
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

FILES = {}  # 'img/train/00000.jpg' -> bytes
ASKED = []  # names that a backend was asked for the existence of


def fill(root):
    """Put the files below a folder into the storage."""
    FILES.clear()
    ASKED.clear()
    for path in Path(root).rglob('*.*'):
        FILES[path.relative_to(root).as_posix()] = path.read_bytes()


def key_of(path):
    return str(path).split('://', 1)[-1].split('store/', 1)[-1].strip('/')


class BareBackend(BaseStorageBackend):
    def __init__(self, shelf=''):
        self.shelf = shelf

    def get(self, filepath):
        return FILES[key_of(filepath)]

    def get_text(self, filepath, encoding='utf-8'):
        raise NotImplementedError


class MemoryBackend(BareBackend):
    def get_text(self, filepath, encoding='utf-8'):
        return self.get(filepath).decode(encoding)

    def isfile(self, filepath):
        ASKED.append(key_of(filepath))
        return key_of(filepath) in FILES

    def join_path(self, filepath, *filepaths):
        return '/'.join([str(filepath).rstrip('/'), *filepaths])

    def list_dir_or_file(
        self, dir_path, list_dir=True, list_file=True, suffix=None, recursive=False
    ):
        start = key_of(dir_path) + '/'
        names = sorted(name[len(start) :] for name in FILES if name.startswith(start))
        return iter([name for name in names if name.endswith(suffix or '')])


class ExistsBackend(BareBackend):
    """It answers `exists` alone, and not always."""

    def exists(self, filepath):
        ASKED.append(key_of(filepath))
        if self.shelf == 'down':
            raise NotImplementedError('the client has none')
        return key_of(filepath) in FILES


register_backend('memory', MemoryBackend, prefixes='memory', force=True)
register_backend('bare', BareBackend, force=True)
register_backend('answering', ExistsBackend, force=True)


def stand_in_for_clients(monkeypatch):
    """Let mmengine's backends of HTTP, LMDB and memcached read `FILES`."""
    from mmengine.fileio import io as fileio
    from mmengine.fileio.backends import http_backend

    class Environment:
        @contextmanager
        def begin(self, write):
            yield types.SimpleNamespace(get=lambda key: FILES.get(key_of(key.decode('ascii'))))

        def close(self):
            pass

    def fetch(path, buffer):
        buffer[:] = [FILES[key_of(path)]]

    client = types.SimpleNamespace(Get=fetch)
    mc = types.SimpleNamespace(
        MemcachedClient=types.SimpleNamespace(GetInstance=lambda servers, client_cfg: client),
        pyvector=list,
        ConvertBuffer=lambda buffer: buffer[0],
    )
    lmdb = types.SimpleNamespace(open=lambda path, **options: Environment())
    monkeypatch.setitem(sys.modules, 'mc', mc)
    monkeypatch.setitem(sys.modules, 'lmdb', lmdb)
    monkeypatch.setattr(fileio, 'backend_instances', {})
    monkeypatch.setattr(http_backend, 'urlopen', lambda url: io.BytesIO(FILES[key_of(url)]))
