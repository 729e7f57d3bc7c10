"""Every module gets its mode back, whatever happens in between."""

import pytest
import torch

from mm_tuning_plugin.models.module_modes import keep_modes


def test_every_module_has_its_earlier_mode_after_an_error():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Dropout())
    model[0].eval()
    with pytest.raises(KeyError), keep_modes(model):
        model.eval()
        raise KeyError
    assert [module.training for module in model.modules()] == [True, False, True]
