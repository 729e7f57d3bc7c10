"""The images of a plain folder, without labels: what a proxy task learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, get_file_backend
from mmseg.datasets import BaseSegDataset

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import DATASETS
from mm_tuning_plugin.structures import Sample

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class UnlabelledFolder(BaseSegDataset):
    """All images below a folder, in the order of their paths; upper case of a suffix counts too.

    Args:
        data_root: The folder. In other storage than the local disk, as ``backend_args`` or the
            prefix of its name say, its backend lists it.
        kwargs: Of mmseg's `BaseSegDataset`; `ann_file` and label maps have no meaning here.

    Raises:
        UserError: The folder is missing, or there is no image below it; or, on reading one, that it
            cannot be read.
    """

    def __init__(self, data_root: str, **kwargs: Any) -> None:
        super().__init__(data_root=str(data_root), data_prefix={'img_path': ''}, **kwargs)

    def load_data_list(self) -> list[Sample]:
        """What mmseg's transforms ask for of each image."""
        backend = get_file_backend(self.data_root, backend_args=self.backend_args)
        paths = self._on_disk() if type(backend) is LocalBackend else self._listed(backend)
        if not paths:
            raise UserError(
                'data_root',
                f'no image found in {self.data_root}',
                f'expected at least one file that ends in {", ".join(SUFFIXES)}',
            )
        common = {'label_map': None, 'reduce_zero_label': False}
        return [{'img_path': path, 'seg_fields': [], **common} for path in paths]

    def _on_disk(self) -> list[str]:
        folder = Path(self.data_root)
        if not folder.is_dir():
            raise UserError(
                'data_root', f'no such folder as {folder}', 'expected a folder of images'
            )
        found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
        return [str(path) for path in found]

    def _listed(self, backend: Any) -> list[str]:
        try:
            names = backend.list_dir_or_file(self.data_root, list_dir=False, recursive=True)
            found = sorted(name for name in names if name.lower().endswith(SUFFIXES))
            return [backend.join_path(self.data_root, name) for name in found]
        except Exception as error:  # a client can raise anything
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            raise UserError(
                'data_root',
                f'{self.data_root} cannot be listed ({reason})',
                'expected storage whose backend can list it',
            ) from error

    def prepare_data(self, idx: int) -> Any:
        """See mmengine; what fails names its image."""
        try:
            return super().prepare_data(idx)
        except UserError:
            raise
        except Exception as error:  # decoders and transforms can raise anything
            path = self.get_data_info(idx)['img_path']
            reason = f'{type(error).__name__}: {error}'.splitlines()[0]
            raise UserError(
                path, f'cannot be read ({reason})', 'expected an image that OpenCV decodes'
            ) from error
