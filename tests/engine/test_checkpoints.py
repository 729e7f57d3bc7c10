"""Checkpoints: damage is seen, named and passed over; nothing finished is lost."""

import json
import logging
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import killing
import pytest
import torch
from mistakes import check_mistake
from mmengine.hooks import CheckpointHook

from mm_tuning_plugin.engine.resume.checkpoint_files import (
    CarefulCheckpointHook,
    damage,
    newest_sound,
    places,
)


def save(path, value=1.0):
    torch.save({'state_dict': {'w': torch.full((50, 7), value)}, 'meta': {'iter': 3}}, path)
    return path


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_flipped_bit_is_seen_or_harmless(tmp_path):
    whole = save(tmp_path / 'whole.pth')
    assert damage(whole) is None
    expected = torch.load(whole, weights_only=True)
    bits = random.Random(0).sample(range(8 * whole.stat().st_size), 600)
    seen = 0
    for bit in bits:
        path = shutil.copy(whole, tmp_path / 'flipped.pth')
        flip(Path(path), bit)
        if damage(Path(path)) is not None:
            seen += 1
            continue
        loaded = torch.load(path, weights_only=True)
        assert loaded['meta'] == expected['meta'], bit
        assert torch.equal(loaded['state_dict']['w'], expected['state_dict']['w']), bit
    assert seen > 200  # the rest fell into padding and dates


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_damaged(tmp_path, share):
    path = save(tmp_path / 'a.pth')
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert damage(path)


def test_the_newest_sound_checkpoint_is_taken_and_newer_ones_are_named(tmp_path, capsys):
    paths = [save(tmp_path / f'iter_{i}.pth') for i in (2, 10, 4)]
    save(tmp_path / 'best_mIoU_iter_12.pth')
    here = places(tmp_path)
    assert newest_sound(here) == paths[2], 'the last one written'
    flip(paths[2], 8 * (paths[2].stat().st_size // 2))
    assert newest_sound(here) == paths[1]
    paths[1].write_bytes(b'')
    assert newest_sound(here, lambda path: path != paths[0]) is None
    said = ' '.join(capsys.readouterr().out.split())
    assert all(f'{path}: ' in said for path in paths)
    assert newest_sound(places(tmp_path / 'none')) is None


def test_checkpoints_are_looked_for_where_their_hooks_put_them(tmp_path):
    elsewhere = tmp_path / 'elsewhere' / 'run'
    elsewhere.mkdir(parents=True)
    (tmp_path / 'run').mkdir()
    path = save(elsewhere / 'step_3.pth')
    assert newest_sound(places(tmp_path / 'run')) is None
    hook = CheckpointHook(filename_tmpl='step_{}.pth', out_dir=str(tmp_path / 'elsewhere'))
    assert newest_sound(places(tmp_path / 'run', [hook])) == path


@pytest.mark.parametrize('content', [[1], {'a': 1}, torch.ones(2)])
def test_what_is_no_checkpoint_is_damaged(tmp_path, content):
    torch.save(content, tmp_path / 'iter_1.pth')
    assert damage(tmp_path / 'iter_1.pth') == "no 'meta' and 'state_dict' in it"


@pytest.fixture
def finished(toy_cfg):
    """A finished run, and the weights at its end."""
    toy_cfg.train_cfg.update(max_iters=4, val_interval=2)
    assert killing.forked(toy_cfg)[0] == 0
    return toy_cfg, killing.results(toy_cfg)


def resume(cfg):
    cfg.resume = True
    status, log = killing.forked(cfg)
    assert status == 0, log
    return killing.results(cfg), log


def test_a_damaged_checkpoint_of_either_stage_is_named_and_the_one_before_it_used(finished):
    cfg, expected = finished
    tuning, work = Path(cfg.work_dir, 'tuning'), Path(cfg.work_dir)
    for path in (tuning / 'iter_4.pth', work / 'iter_4.pth', tuning / 'tuned_backbone.pth'):
        flip(path, 8 * (path.stat().st_size // 2))
    found, log = resume(cfg)
    assert not killing.differing(found, expected)
    assert f'{tuning}/tuned_backbone.pth: ' in log
    for folder in (tuning, work):
        assert re.search(rf'{folder}/iter_4\.pth: .*{folder}/iter_2\.pth', log), folder
    assert (tuning / 'tuned_backbone.damaged').is_file()


def test_a_damaged_tuned_backbone_is_refused_without_resume(finished):
    cfg, _ = finished
    path = Path(cfg.work_dir, 'tuning', 'tuned_backbone.pth')
    flip(path, 8 * (path.stat().st_size // 2))
    status, log = killing.forked(cfg)
    assert status == 2
    last = log.strip().splitlines()[-1]
    assert last.startswith('error: ')
    hash_expected = re.compile(r'\b[0-9a-f]{12}\b')
    check_mistake(last.removeprefix('error: '), str(path), remedy=hash_expected)


def test_a_stage_without_a_sound_checkpoint_starts_at_its_beginning(finished):
    cfg, expected = finished
    for path in Path(cfg.work_dir).glob('iter_*.pth'):
        path.write_bytes(path.read_bytes()[:1000])
    found, log = resume(cfg)
    assert not killing.differing(found, expected)
    assert 'this stage starts at its beginning' in ' '.join(log.split())


def test_checkpoints_of_an_earlier_run_in_the_same_folder_are_not_resumed(finished, tmp_path):
    """Begun anew in a used folder and killed before its first checkpoint."""
    cfg, _ = finished
    cfg.optim_wrapper.optimizer.lr = 0.1  # of fine-tuning alone
    whole = killing.in_folder(cfg, tmp_path / 'whole')
    assert killing.forked(whole)[0] == 0

    def kill_in_stage_two():
        from mm_tuning_plugin.engine.runner import FineTuningRunner

        FineTuningRunner.load_or_resume = lambda self: killing.kill()

    assert killing.forked(cfg, kill_in_stage_two)[0] < 0
    found, log = resume(cfg)
    assert re.search(rf'WARNING - {cfg.work_dir}/iter_\d\.pth: ', log)
    assert not killing.differing(found, killing.results(whole))


def kill_at_the_third_step_of_tuning():
    from mm_tuning_plugin.models import MixAndMatchTuner

    plain = MixAndMatchTuner._loss
    MixAndMatchTuner._loss = lambda self, *batch: (
        killing.kill() if int(self.step) == 3 else plain(self, *batch)
    )


def test_a_stage_two_that_another_tuning_began_is_not_resumed(finished, tmp_path):
    cfg, _ = finished
    cfg.mix_and_match.update(temperature=0.5, overwrite=True)
    whole = killing.in_folder(cfg, tmp_path / 'whole')
    assert killing.forked(whole)[0] == 0
    cfg.resume = True
    assert killing.forked(cfg, kill_at_the_third_step_of_tuning)[0] < 0
    found, log = resume(cfg)
    assert re.search(rf'WARNING - {cfg.work_dir}/iter_\d\.pth: ', log)
    assert not killing.differing(found, killing.results(whole))


def test_a_baseline_is_not_taken_for_the_tuned_run_nor_the_other_way(toy_cfg, tmp_path):
    arms = {}
    for arm in (False, True):
        whole = killing.in_folder(toy_cfg, tmp_path / f'whole {arm}')
        whole.mix_and_match.enabled = arm
        assert killing.forked(whole)[0] == 0
        arms[arm] = killing.results(whole)
    for arm in (False, True, False):
        toy_cfg.mix_and_match.enabled = arm
        found, _ = resume(toy_cfg)
        assert not killing.differing(found, arms[arm]), arm


def test_a_checkpoint_of_plain_mmengine_is_resumed_with_a_warning(toy_cfg):
    """And what is saved from then on is resumed at its place in the data."""
    from mmengine.runner import Runner

    plain = killing.in_folder(toy_cfg, toy_cfg.work_dir)
    plain.pop('mix_and_match')
    plain.train_cfg.update(max_iters=2, val_interval=2)
    killing.forked(plain, train=lambda cfg: Runner.from_cfg(cfg).train())
    toy_cfg.mix_and_match.enabled = False
    toy_cfg.train_cfg.update(max_iters=8, val_interval=8)
    batches = Path(toy_cfg.work_dir, 'batches')

    def note_batches(kill_at=None):
        def prepare():
            plain = Runner.call_hook

            def call_hook(self, name, **kwargs):
                if name == 'before_train_iter':
                    if self.iter == kill_at:
                        killing.kill()
                    names = [s.img_path for s in kwargs['data_batch']['data_samples']]
                    with batches.open('a') as file:
                        file.write(f'{self.iter} {names}\n')
                plain(self, name, **kwargs)

            Runner.call_hook = call_hook

        return prepare

    whole = killing.in_folder(toy_cfg, f'{toy_cfg.work_dir}_whole')
    assert killing.forked(whole, note_batches())[0] == 0
    expected = batches.read_text().splitlines()[2:]
    batches.unlink()
    toy_cfg.resume = True
    status, log = killing.forked(toy_cfg, note_batches(kill_at=5))
    assert status < 0
    assert re.search(r'WARNING - .*iter_2\.pth: ', log) and 'iter: 2' in log
    status, log = killing.forked(toy_cfg, note_batches())
    assert status == 0 and 'iter: 4' in log, log
    assert sorted(set(batches.read_text().splitlines())) == sorted(expected)


def test_the_old_checkpoint_goes_once_the_new_one_is_written(toy_cfg):
    toy_cfg.mix_and_match.update(enabled=False)
    toy_cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='mIoU', interval=2)
    toy_cfg.train_cfg.update(max_iters=4, val_interval=2)

    def kill_while_the_second_is_written():
        from mmengine.fileio import LocalBackend

        put = LocalBackend.put

        def kill_at(self, obj, path):
            if 'iter_4' in str(path):
                killing.kill()
            put(self, obj, path)

        LocalBackend.put = kill_at

    assert killing.forked(toy_cfg, kill_while_the_second_is_written)[0] < 0
    kept = sorted(path.name for path in Path(toy_cfg.work_dir).glob('*.pth'))
    assert kept == ['best_mIoU_iter_2.pth', 'iter_2.pth']
    resume(toy_cfg)
    left = sorted(path.name for path in Path(toy_cfg.work_dir).glob('*.pth'))
    assert left[-1] == 'iter_4.pth' and 'iter_2.pth' not in left
    assert not list(Path(toy_cfg.work_dir).glob('.*.part'))


def test_a_run_without_a_seed_is_taken_up_with_the_seed_it_drew(toy_cfg, tmp_path):
    toy_cfg.randomness = {}

    assert killing.forked(toy_cfg, kill_at_the_third_step_of_tuning)[0] < 0
    record = Path(toy_cfg.work_dir, 'run.json')
    whole = killing.in_folder(toy_cfg, tmp_path / 'whole')
    whole.randomness = dict(seed=json.loads(record.read_text())['seed'])
    assert killing.forked(whole)[0] == 0
    found, _ = resume(toy_cfg)
    assert not killing.differing(found, killing.results(whole))
    again = resume(toy_cfg)[0]  # a finished run is left as it is
    assert not killing.differing(again, found)


@pytest.mark.parametrize('content', ['{"id": 3', '[]', '{"a": 1}'])
def test_a_damaged_record_of_the_run_is_named(tmp_path, content):
    from mm_tuning_plugin.engine.resume.run_record import begin_or_resume

    (tmp_path / 'run.json').write_text(content)
    record = begin_or_resume(tmp_path, resume=True)
    assert record.id
    assert begin_or_resume(tmp_path, resume=True) == record
    assert begin_or_resume(tmp_path, resume=False).id != record.id
    save(tmp_path / 'iter_2.pth')  # of which nobody knows any more what run it is of
    (tmp_path / 'run.json').write_text(content)
    record = begin_or_resume(tmp_path, resume=True)
    assert record.id is None
    assert begin_or_resume(tmp_path, resume=True) == record, 'the seed is kept'


def test_a_resumed_run_knows_what_it_wrote_last(tmp_path):
    """It publishes it at its end, and puts the score of its first validation into it."""
    last = save(tmp_path / 'iter_4.pth')
    for iteration, path, known in [
        (4, last, last),
        (4, tmp_path / 'gone.pth', None),
        (0, last, None),
    ]:
        hub = SimpleNamespace(runtime_info={'last_ckpt': str(path)})
        runner = SimpleNamespace(
            work_dir=str(tmp_path), message_hub=hub, iter=iteration, logger=logging.getLogger()
        )
        hook = CarefulCheckpointHook(by_epoch=False)
        hook.before_train(runner)
        assert hook.last_ckpt == (known and str(known))
