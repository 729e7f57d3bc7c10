"""Log lines on differences between stage one and the user's config."""

from __future__ import annotations

import logging

from mmengine.logging import print_log

from mm_tuning_plugin.checkpoint import as_python
from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.config.learning_rates import describe_thawed
from mm_tuning_plugin.engine.config.normalisation import describe_derived, read_derived


def tell_of_differences(cfg: ConfigMap, tuning_cfg: ConfigMap) -> None:
    """Log where stage one differs from the user's config.

    Args:
        cfg: The user's config.
        tuning_cfg: That of stage one.
    """
    derived = read_derived(cfg)
    if derived is not None:
        lost = derived.overridden or derived.options
        level = logging.WARNING if lost else logging.INFO
        print_log(describe_derived(derived), logger='current', level=level)
    line = describe_thawed(cfg['optim_wrapper'], tuning_cfg['optim_wrapper'])
    if line:
        warn(line)


def warn_of_arguments(cfg: ConfigMap, needed: ConfigMap, where: str) -> None:
    """Warn that fine-tuning builds the backbone without what its weights need.

    Args:
        cfg: The user's config, which fine-tuning takes unchanged.
        needed: Arguments of the backbone.
        where: What the network with these arguments did: 'was tuned'.
    """
    found = {name: cfg['model']['backbone'].get(name) for name in needed}
    warn(
        f'model.backbone: {as_python(found)} found, expected {as_python(needed)}, as in the '
        f'network that {where}: set it in your config'
    )


def warn_of_channels(file_format: str, swap_channels: bool) -> None:
    """Warn of weights of Caffe, which read blue, green, red, under a config that swaps channels.

    Args:
        file_format: Of the file that the backbone starts from.
        swap_channels: Whether the preprocessor swaps blue and red.
    """
    if file_format.startswith('caffemodel') and swap_channels:
        warn(
            'data_preprocessor: bgr_to_rgb=True found, expected False: the weights come from '
            'Caffe, whose first layer reads blue, green, red'
        )
