import pytest
import torch
from reference_networks import TimmViT, TorchvisionResNet, randomise


@pytest.fixture(scope='package', autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='package')
def resnet_source():
    """A torchvision ResNet-18 with trained-looking weights."""
    with torch.no_grad():
        return randomise(TorchvisionResNet(), seed=1)


@pytest.fixture(scope='package')
def vit_source():
    with torch.no_grad():
        return randomise(TimmViT(), seed=2)
