"""A run that an earlier version made is resumed, used again and reported."""

import json
import tarfile

import pytest
import torch
from courses import machine, stack
from earlier_run import FILE, STOPPED

from mm_tuning_plugin.cli import report, train

MACHINE = json.loads((FILE.parent / 'weights.json').read_text())['fork']['tuning, paper']['machine']


@pytest.fixture
def folder(imported, tmp_path, monkeypatch):
    with tarfile.open(FILE) as archive:
        archive.extractall(tmp_path, filter='data')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def check_equal(found, expected):
    """To the bit on the machine that made the earlier run; elsewhere names, shapes and about."""
    assert found.keys() == expected.keys()
    same = machine() == MACHINE
    for name, value in expected.items():
        if stack() == 'original':  # it draws other random numbers for the head
            assert found[name].shape == value.shape and found[name].isfinite().all(), name
        elif same:
            assert torch.equal(found[name], value), name
        else:
            torch.testing.assert_close(found[name], value, rtol=0.05, atol=0.01)


@pytest.mark.parametrize('stopped', STOPPED.values())
def test_resumed(folder, stopped):
    assert not (folder / stopped / 'iter_8.pth').exists()
    assert train.entry(['config.py', '--work-dir', stopped, '--resume']) == 0
    for name in ('tuning/tuned_backbone.pth', 'iter_8.pth'):
        check_equal(weights(folder / stopped / name), weights(folder / 'finished' / name))


def test_used_again(folder):
    before = (folder / 'finished/tuning/tuned_backbone.pth').stat().st_mtime_ns
    last = weights('finished/iter_8.pth')
    for name in ('iter_4.pth', 'iter_8.pth', 'last_checkpoint'):
        (folder / 'finished' / name).unlink()
    assert train.entry(['config.py', '--work-dir', 'finished']) == 0
    assert (folder / 'finished/tuning/tuned_backbone.pth').stat().st_mtime_ns == before
    check_equal(weights('finished/iter_8.pth'), last)


def test_other_options_are_refused(folder, capsys):
    config = (folder / 'config.py').read_text()
    (folder / 'config.py').write_text(f'{config}\nmix_and_match.update(margin=1.5)\n')
    assert train.entry(['config.py', '--work-dir', 'finished']) == 2
    assert 'margin was 2.1 and is now 1.5' in capsys.readouterr().err


def test_reported(folder):
    assert report.entry(['finished']) == 0
    page = (folder / 'finished/report.html').read_text()
    assert '</html>' in page and 'graph_triplet' in page
