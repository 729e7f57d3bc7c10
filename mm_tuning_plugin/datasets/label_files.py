"""Values in the file of a label map, for files whose loaded values may differ from them.

mmseg's ``LoadAnnotations`` keeps 8 bits of every value, whatever the file has: of 300 it makes 44,
without a message. The first bytes show whether a file is affected; only such files are read again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, BinaryIO

import mmcv
import numpy as np
from mmengine import fileio
from mmengine.registry import DefaultScope
from PIL import Image

from mm_tuning_plugin.registry import TRANSFORMS

REMOTE_FILES_READ = 64  # of storage where looking at the first bytes means fetching the whole file
_HEAD = 32  # bytes: as far as a PNG's number of bits
_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_ALWAYS_BYTES = (_JPEG, b'GIF8', b'BM', b'RIFF')  # RIFF: WebP
_TIFF = {b'II*\0': '<', b'MM\0*': '>'}  # and their order of bytes
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_MODES_OF_BYTES = ('1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB')


class LabelFiles:
    """The files of a data set's label maps.

    Args:
        backend_args: Of the loader of the label maps: their storage.
    """

    def __init__(self, backend_args: Mapping[str, Any] | None = None) -> None:
        self.backend_args = dict(backend_args) if backend_args else None
        self.local = (backend_args or {}).get('backend', 'local') == 'local'
        self.left = REMOTE_FILES_READ

    def read_deep(self, path: str) -> np.ndarray | None:
        """Return the values of a file with more than 8 bits; None for other or unread files.

        Of files in a remote storage, only the first `REMOTE_FILES_READ` are read.
        """
        head, content = self._head_of_local(path), None
        if head is None:
            if not self.left:
                return None
            self.left -= 1
            content = self._get(path)
            head = content[:_HEAD]

        def opened() -> BinaryIO:
            return open(path, 'rb') if content is None else BytesIO(content)

        if not _may_be_deep(head, opened):
            return None
        return _decode(self._get(path) if content is None else content)

    def read(self, path: str) -> np.ndarray | None:
        """Return the unchanged values of an image file; None if missing or of another format."""
        return _decode(self._get(path))

    def is_jpeg(self, path: str) -> bool:
        """Whether the content of a file is a JPEG."""
        head = self._head_of_local(path)
        return (self._get(path) if head is None else head).startswith(_JPEG)

    def _head_of_local(self, path: str) -> bytes | None:
        if not self.local:
            return None
        try:
            with open(path, 'rb', buffering=0) as file:
                return file.read(_HEAD)
        except (OSError, ValueError):
            return None

    def _get(self, path: str) -> bytes:
        """Return the content of a file; empty if it cannot be read, which its loader reports."""
        try:
            return bytes(fileio.get(path, backend_args=self.backend_args))
        except Exception:  # storage backends can raise anything
            return b''


def loader_of(kind: type | None) -> str:
    """Who reads label maps in a class of transforms.

    Returns:
        'mmseg', its own ``LoadAnnotations``; 'either', the same, and something of the class's own
        around it; 'own', nothing of mmseg's.
    """
    from mmseg.datasets.transforms import LoadAnnotations

    if getattr(kind, '_load_seg_map', None) is not LoadAnnotations._load_seg_map:
        return 'own'
    whole = getattr(kind, 'transform', None)
    return 'mmseg' if whole is LoadAnnotations.transform else 'either'


def default_loader() -> str:
    """Who reads label maps in what ``LoadAnnotations`` means, in the scope that is built in."""
    if DefaultScope.get_current_instance() is None:
        return 'mmseg'
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        return loader_of(registry.get('LoadAnnotations'))


def cut_value(raw: np.ndarray) -> tuple[float, int] | None:
    """A value that its lowest 8 bits do not hold, and what they make of it; None without one.

    Two kinds of wider files mean the same in 8 bits: a value with all bits set becomes 255, which
    is ignored as it was meant to be, and bytes that were written twice (k * 257) become themselves.

    Args:
        raw: The values of a file.
    """
    with np.errstate(invalid='ignore'):
        kept = raw.astype(np.uint8)
    changed = kept != raw
    if raw.dtype.kind in 'iu':
        changed &= raw != (np.iinfo(raw.dtype).max if raw.dtype.kind == 'u' else -1)
        if not changed.any() or not (raw % 257).any():
            return None
    if not changed.any():
        return None
    return raw[changed][0].item(), int(kept[changed][0])


def as_mmseg_loads(raw: np.ndarray, results: Mapping[str, Any]) -> np.ndarray:
    """What mmseg's ``LoadAnnotations`` makes of the values of a file.

    Args:
        raw: (H, W) or (H, W, 1) values.
        results: Of the sample: ``reduce_zero_label``, ``label_map``.

    Returns:
        (H, W) uint8.
    """
    with np.errstate(invalid='ignore'):
        seg_map = raw.squeeze().astype(np.uint8)
    if results.get('reduce_zero_label'):
        seg_map[seg_map == 0] = 255
        seg_map = seg_map - 1
        seg_map[seg_map == 254] = 255
    before = seg_map.copy()
    for old, new in (results.get('label_map') or {}).items():
        seg_map[before == old] = new
    return seg_map


def _may_be_deep(head: bytes, opened: Callable[[], BinaryIO]) -> bool:
    """Whether a file can have more than 8 bits a value.

    Args:
        head: Its first bytes.
        opened: Opens the file, for formats that store it further inside.
    """
    if head.startswith(_PNG):
        return head[24] > 8 if len(head) > 24 else False
    if head.startswith(_ALWAYS_BYTES):
        return False
    with opened() as file:
        try:
            bits = _bits_of_tiff(head, file) if head[:4] in _TIFF else None
            if bits is not None:
                return bits > 8
            with Image.open(file) as image:
                return image.mode not in _MODES_OF_BYTES
        except Exception:  # damaged, or of a format that others read
            return True


def _bits_of_tiff(head: bytes, file: BinaryIO) -> int | None:
    """Bits a value of the first image of a TIFF; None where its channels differ, or may do so.

    Pillow would need a quarter of a millisecond, as long as reading a small map.
    """
    order = _TIFF[head[:4]]
    file.seek(*struct.unpack_from(f'{order}I', head, 4))
    (count,) = struct.unpack(f'{order}H', file.read(2))
    entries = file.read(12 * count)
    for start in range(0, len(entries), 12):
        tag, _, number, value = struct.unpack_from(f'{order}HHIH', entries, start)
        if tag == _BITS_PER_SAMPLE:
            return value if number == 1 else None
    return 1


def _decode(content: bytes) -> np.ndarray | None:
    """Return the unchanged values of an image file; None if no reader of mmcv accepts it."""
    for backend in ('pillow', 'cv2', 'tifffile'):
        try:
            raw = mmcv.imfrombytes(content, flag='unchanged', backend=backend)
        except Exception:  # another reader may take it, or its package is missing
            continue
        if raw is not None:
            return np.asarray(raw)
    return None
