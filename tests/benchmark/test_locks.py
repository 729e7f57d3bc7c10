"""Locks on file systems with and without support for them."""

import errno
import fcntl
import os

import pytest

from mm_tuning_plugin.benchmark.run import locks


@pytest.fixture
def broken_flock(monkeypatch):
    """Make ``flock`` raise an error of this number."""

    def set_error(number):
        def flock(*args):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, 'flock', flock)

    return set_error


@pytest.mark.parametrize('number', locks.UNSUPPORTED)
def test_without_support_a_step_runs_with_a_warning(number, broken_flock, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(locks, 'warn', warnings.append)
    broken_flock(number)
    lock = locks.StepLock.acquire(tmp_path / 'step')
    assert f'process {os.getpid()}' in locks.lock_file(tmp_path / 'step').read_text()
    assert len(warnings) == 1 and str(tmp_path / 'step') in warnings[0]
    lock.release()


def test_other_errors_are_raised_and_the_file_is_closed(broken_flock, tmp_path):
    broken_flock(errno.EIO)
    before = len(os.listdir('/proc/self/fd'))
    with pytest.raises(OSError, match='Input/output'):
        locks.StepLock.acquire(tmp_path / 'step')
    assert len(os.listdir('/proc/self/fd')) == before


def test_a_held_lock_is_not_given_twice(tmp_path):
    first = locks.StepLock.acquire(tmp_path / 'step')
    assert locks.StepLock.acquire(tmp_path / 'step') is None
    first.release()
    second = locks.StepLock.acquire(tmp_path / 'step')
    assert second is not None
    second.release()
