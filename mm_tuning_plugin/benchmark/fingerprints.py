"""Names for results by what determines them, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.steps import RECORD_FILE
from mm_tuning_plugin.checkpoint import hash_file
from mm_tuning_plugin.config_types import plain_name
from mm_tuning_plugin.datasets.cached import without_cache

# Where data lies; which images and label maps it is, digests of them say (`splits.Part`).
PLACES = ('data_root', 'work_dir')


def made_by_other_code(cache: Path) -> str:
    """What happens to weights in a cache that other code made, in one line; '' without any."""
    records = [json.loads(path.read_text('utf-8')) for path in cache.glob(f'*/{RECORD_FILE}')]
    others = sum(record.get('code') != code_digest() for record in records)
    if not others:
        return ''
    return (
        f'{cache}: {others} of {len(records)} results of other code of this package found: what is '
        f'needed of them is computed again by the present code, {code_digest()}'
    )


class Fingerprints:
    """Hashes configs by content: of a file that they name, its bytes count and not its place.

    Args:
        cache: The folder of the artefacts. What lies below has a fingerprint in its own name: this
            name counts, whether the file is there already or not.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = str(cache)
        self._hashes: dict[str, str] = {}

    def of(self, *content: Any) -> str:
        """12 hex digits of anything made of mappings, lists and plain values."""
        plain = self._plain(without_cache(list(content)))
        text = json.dumps(plain, sort_keys=True, default=_named)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): self._plain(v) for k, v in value.items() if k not in PLACES}
        if isinstance(value, (list, tuple)):
            return [self._plain(item) for item in value]
        if isinstance(value, (str, Path)):
            return self._text(str(value))
        return value

    def _text(self, text: str) -> str:
        if text == self.cache or text.startswith(self.cache + os.sep):
            return '<cache>' + text[len(self.cache) :]
        if text not in self._hashes:
            is_file = 0 < len(text) < 4096 and '\n' not in text and os.path.isfile(text)
            self._hashes[text] = f'<file {hash_file(text)}>' if is_file else text
        return self._hashes[text]


def _named(value: Any) -> str:
    """Convert other values: the name of a class or function does not depend on the process."""
    return plain_name(value) if callable(value) else str(value)
