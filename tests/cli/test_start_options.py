"""The start on the command line: where in the file, whether code may run, what is written."""

import json

import pytest
import torch
from commands import fails, works
from mistakes import check_mistake
from mmengine.config import Config
from mmseg.registry import MODELS

from mm_tuning_plugin.checkpoint import hash_state_dict


@pytest.fixture
def weights(project):
    backbone = MODELS.build(Config.fromfile(project[0]).model.backbone)
    return {k: v + 1 if v.is_floating_point() else v for k, v in backbone.state_dict().items()}


def report(folder):
    return json.loads((folder / 'load_report.json').read_text())


ARMS = [[], ['--no-tuning']]


@pytest.mark.parametrize('arm', ARMS)
def test_two_networks_that_fit(arm, capfd, project, weights, tmp_path):
    config, _ = project
    file = tmp_path / 'two.pth'
    torch.save({'net_a': {k: v * 2 for k, v in weights.items()}, 'net_b': weights}, file)
    argv = [config, '--work-dir', tmp_path / 'w', *arm, '--ssl-checkpoint', file]
    line = fails(capfd, *argv)
    check_mistake(line, str(file), ("'net_a.'", "'net_b.'"), 'mix_and_match.checkpoint_prefix')
    works(capfd, *argv, '--cfg-options', 'mix_and_match.checkpoint_prefix=net_b')
    assert report(tmp_path / 'w')['hash_after'] == hash_state_dict(weights)
    if not arm:
        assert report(tmp_path / 'w' / 'tuning') == report(tmp_path / 'w')
        # another network of the same file is another start
        line = fails(capfd, *argv, '--cfg-options', 'mix_and_match.checkpoint_prefix=net_a')
        check_mistake(line, problem='net_')
        assert 'net_b' in line and 'net_a' in line


class Unknown:
    """Something that no list allows."""


@pytest.mark.parametrize('arm', ARMS)
def test_code_in_the_file(arm, capfd, project, weights, tmp_path):
    config, _ = project
    torch.save({'state_dict': weights, 'state': Unknown()}, tmp_path / 'code.pth')
    argv = [config, '--work-dir', tmp_path / 'w', *arm, '--ssl-checkpoint', tmp_path / 'code.pth']
    where = str(tmp_path / 'code.pth')
    check_mistake(fails(capfd, *argv), where, f'{__name__}.Unknown', '--allow-pickle')
    works(capfd, *argv, '--allow-pickle')
    assert report(tmp_path / 'w')['hash_after'] == hash_state_dict(weights)
