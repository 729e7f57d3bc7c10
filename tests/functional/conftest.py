import pytest
import torch

torch.set_num_threads(1)

DEVICES = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture
def seeded(device):
    """Makes a generator on the test's device."""

    def make(seed=0):
        return torch.Generator(device=device).manual_seed(seed)

    return make
