"""A full disk: one line, and nothing that was finished is lost."""

import errno
import os
import re
import resource
import subprocess
from pathlib import Path

import killing
import pytest
from mistakes import check_mistake, mistake

from mm_tuning_plugin.atomic_write import atomic_write, explain_full_disk, remove_leftovers
from mm_tuning_plugin.errors import UserError


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of a few MiB, where the system lets us mount one."""
    folder = tmp_path / 'small'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip('there is no mount here')
    if done.returncode:
        pytest.skip(f'a tmpfs cannot be mounted here: {done.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder, leave):
    """Write a file that leaves so many bytes."""
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - leave
    (folder / 'ballast').write_bytes(b'\0' * max(size, 0))


@pytest.mark.parametrize('leave', [0, 200_000])
def test_a_run_on_a_full_disk_ends_with_one_line_and_goes_on_when_there_is_room(
    toy_cfg, tmp_path, small_disk, leave
):
    toy_cfg.mix_and_match.update(max_iters=6)
    whole = killing.in_folder(toy_cfg, tmp_path / 'whole')
    assert killing.forked(whole)[0] == 0
    cfg = killing.in_folder(toy_cfg, small_disk / 'run')
    log = tmp_path / 'log'  # not on the full disk

    def fill_after_the_first_checkpoint():
        from mm_tuning_plugin.engine.resume.runner import ResumableRunner

        plain, saved = ResumableRunner.save_checkpoint, []

        def save(self, *args, **kwargs):
            plain(self, *args, **kwargs)
            saved.append(1)
            if len(saved) == 1:
                fill(small_disk, leave)

        ResumableRunner.save_checkpoint = save

    status, said = killing.forked(cfg, fill_after_the_first_checkpoint, log=log)
    assert status == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith('error: ')
    where = re.compile(re.escape(str(small_disk)))
    check_mistake(last.removeprefix('error: '), where, os.strerror(errno.ENOSPC))
    kept = Path(cfg.work_dir, 'tuning', 'iter_2.pth')
    assert kept.is_file()
    (small_disk / 'ballast').unlink()
    cfg.resume = True
    status, said = killing.forked(cfg, log=log)
    assert status == 0, said
    assert 'resumed epoch: 0, iter: 2' in said or 'resumed epoch: 0, iter: 4' in said
    assert not killing.differing(killing.results(cfg), killing.results(whole))


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    """The largest size of a file, which needs no disk of its own."""
    path = tmp_path / 'a.txt'
    path.write_text('old')
    process = os.fork()
    if process == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            with atomic_write(path) as aside:
                aside.write_bytes(b'\0' * 5000)
        except UserError as error:
            told = os.strerror(errno.EFBIG) in error.problem
            status = 0 if error.where == str(path) and told else 3
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


def test_what_the_block_raises_is_kept_unless_the_system_is_behind_it(tmp_path):
    path = tmp_path / 'sub' / 'a.txt'
    with pytest.raises(KeyError), atomic_write(path) as aside:
        aside.write_text('half')
        raise KeyError('mine')
    with pytest.raises(RuntimeError, match='mine'), atomic_write(path):
        raise RuntimeError('mine')
    with mistake(str(path), 'No space left on device'), atomic_write(path):
        try:
            raise OSError(errno.ENOSPC, 'No space left on device')
        except OSError as error:
            raise RuntimeError('a writer of torch failed') from error
    assert not os.listdir(tmp_path / 'sub')
    with atomic_write(path) as aside:
        aside.write_text('whole')
        assert not path.exists()
    assert path.read_text() == 'whole'


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in ('.a.pth.12.part', 'a.pth', '.hidden', 'b.part'):
        (tmp_path / name).write_text('')
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['.hidden', 'a.pth', 'b.part']


def test_other_errors_of_the_system_pass(tmp_path):
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, 'no')
    with mistake('x.json', 'Disk quota exceeded'), explain_full_disk(tmp_path):
        raise OSError(errno.EDQUOT, 'Disk quota exceeded', 'x.json')
