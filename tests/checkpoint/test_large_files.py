"""Memory stays near what is loaded: optimizer states of a large file are never read."""

import subprocess
import sys

import torch
from mmseg.models.backbones import ResNet

CODE = """
import resource, sys
from mmseg.models.backbones import ResNet
from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
backbone = ResNet(depth=18)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
report = load_backbone_checkpoint(backbone, sys.argv[1])
print(report.layout.prefix, peak() - before)
"""


def test_memory_of_a_trainers_checkpoint(tmp_path):
    """600 MiB, of which the backbone is 45: torch's own loader takes them all."""
    momenta = {i: {'exp_avg': torch.ones(75 << 18)} for i in range(8)}
    weights = {f'backbone.{k}': v for k, v in ResNet(depth=18).state_dict().items()}
    file = tmp_path / 'a.pth'
    torch.save({'state_dict': weights, 'optimizer': {'state': momenta}}, file)
    assert file.stat().st_size > 600 << 20
    done = subprocess.run(
        [sys.executable, '-c', CODE, str(file)], capture_output=True, text=True, check=True
    )
    prefix, megabytes = done.stdout.split()[-2:]
    assert prefix == 'backbone.'
    assert int(megabytes) < 250
