"""Memory stays near what is loaded: optimizer states of a large file are never read."""

import multiprocessing
import resource

import torch
from mmseg.models.backbones import ResNet

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint


def peak():
    """Of this process, MiB; a forked one begins with what its parent holds at that moment."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def load(file, found):
    backbone = ResNet(depth=18)
    before = peak()
    report = load_backbone_checkpoint(backbone, file)
    found.send((report.layout.prefix, peak() - before))


def test_memory_of_a_trainers_checkpoint(tmp_path):
    """600 MiB, of which the backbone is 45: torch's own loader takes them all."""
    # one tensor of 75 MiB, eight times in the file
    momentum = torch.ones(75 << 18)
    momenta = {i: {'exp_avg': momentum.clone()} for i in range(8)}
    weights = {f'backbone.{k}': v for k, v in ResNet(depth=18).state_dict().items()}
    file = tmp_path / 'a.pth'
    torch.save({'state_dict': weights, 'optimizer': {'state': momenta}}, file)
    del momenta, momentum
    assert file.stat().st_size > 600 << 20
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=load, args=(file, there))
    process.start()
    prefix, megabytes = here.recv()
    process.join()
    assert prefix == 'backbone.'
    assert int(megabytes) < 250
