"""Self-supervised proxy tasks that train a backbone without labels."""

from mm_tuning_plugin.models.proxies.colorization import (
    ColorizationDataPreprocessor,
    ColorizationModel,
)

__all__ = ['ColorizationDataPreprocessor', 'ColorizationModel']
