"""The images of a plain folder, without labels: what a proxy task learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import DATASETS

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class UnlabelledFolder(BaseSegDataset):
    """All images below a folder, in the order of their paths; upper case of a suffix counts too.

    Args:
        data_root: The folder.
        kwargs: Of mmseg's `BaseSegDataset`; `ann_file` and label maps have no meaning here.

    Raises:
        UserError: The folder is missing, or there is no image below it; or, on reading one, that it
            cannot be read.
    """

    def __init__(self, data_root: str, **kwargs: Any) -> None:
        super().__init__(data_root=str(data_root), data_prefix={'img_path': ''}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """What mmseg's transforms ask for of each image."""
        folder = Path(self.data_root)
        if not folder.is_dir():
            raise UserError(f'data_root: {folder} found, expected a folder of images: no such one')
        paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise UserError(
                f'data_root: no image found in {folder}, expected at least one file that ends in '
                f'{", ".join(SUFFIXES)}'
            )
        common = {'label_map': None, 'reduce_zero_label': False}
        return [{'img_path': str(path), 'seg_fields': [], **common} for path in paths]

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
                f'{path}: cannot be read, expected an image that OpenCV decodes ({reason})'
            ) from error
