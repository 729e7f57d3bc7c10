"""A new proxy task is one file: it trains, and is listed, in tree and out of tree."""

import sys

import pytest
from mmengine.config import Config
from new_files import run_with

from mm_tuning_plugin.cli.list import proxies
from mm_tuning_plugin.cli.train import entry
from mm_tuning_plugin.registry import MODELS

CODE = """
from mmengine.model import BaseModel
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class ToyProxy(BaseModel):
    \"\"\"Predict the mean brightness of an image.\"\"\"

    proxy_task = True

    def __init__(self, backbone):
        whole = dict(type='mmseg.SegDataPreProcessor', size_divisor=32)
        super().__init__(data_preprocessor=whole)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode='loss'):
        inputs = inputs.float()
        guess = self.backbone(inputs)[-1].mean((1, 2, 3))
        return {'loss': (guess - inputs.mean((1, 2, 3)) / 255).square().mean()}
"""
TRAIN = """
from mm_tuning_plugin.cli.train import entry
assert entry(['config.py']) == 0
"""
LIST = """
from mm_tuning_plugin.cli.list import proxies
print(dict(proxies())['mm_tuning_plugin.ToyProxy'])
"""


@pytest.fixture
def config(toy_cfg, tmp_path):
    """Two iterations of the toy over the images of the user's config."""
    cfg = Config(toy_cfg.to_dict())
    cfg.pop('mix_and_match')
    for name in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg.pop(f'{name}_{part}', None)
    cfg.model = dict(type='mm_tuning_plugin.ToyProxy', backbone=cfg.model.backbone)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


@pytest.mark.walk
def test_in_tree(config, tmp_path):
    done = run_with('proxies/toy.py', CODE, TRAIN + LIST, tmp_path)
    assert done.strip().endswith('Predict the mean brightness of an image.')
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()


def test_out_of_tree(config, tmp_path):
    (tmp_path / 'my_proxy.py').write_text(CODE)
    sys.path.insert(0, str(tmp_path))
    try:
        with config.open('a') as stream:
            stream.write("\ncustom_imports = dict(imports=['my_proxy'])\n")
        assert entry([str(config)]) == 0
        assert 'mm_tuning_plugin.ToyProxy' in dict(proxies())
        assert (tmp_path / 'work' / 'iter_2.pth').is_file()
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop('my_proxy', None)
        MODELS.module_dict.pop('ToyProxy', None)
