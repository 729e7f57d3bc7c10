"""Real runs of both stages: what the user's backends are given, and the line of progress."""

import copy
import re
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from screen import Screen, on_a_terminal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.engine.monitor import line
from mm_tuning_plugin.engine.monitor.display import Display
from mm_tuning_plugin.engine.report.scalars import read_scalars

OF_AN_ITERATION = (
    'loss',
    'active_share',
    'embedding_variance',
    'lone_classes',
    'triplets',
    'nodes',
)
RECALL = 'retrieval/recall@1'


@HOOKS.register_module(force=True)
class KeepOutputs(Hook):
    """Keep what each iteration returned, and each validation."""

    kept: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        values = {name: float(value.detach()) for name, value in outputs.items()}
        self.kept.append((runner.work_dir, runner.iter + 1, values))

    def after_val_epoch(self, runner, metrics=None):
        self.kept.append((runner.work_dir, runner.iter, dict(metrics)))


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(KeepOutputs, 'kept', [])
    return KeepOutputs.kept


def series(kept, folder, name):
    """{iteration: value} of what a stage's outputs had."""
    return {i: values[name] for where, i, values in kept if where == folder and name in values}


def logged(name, values):
    """As mmengine logs an iteration's scalars: of losses the mean of the last ten."""
    if 'loss' not in name:
        return values
    return {
        i: sum(list(values.values())[max(0, n - 10) : n]) / min(n, 10)
        for n, i in enumerate(values, 1)
    }


def read_events(folder):
    """All scalars of TensorBoard's event files in a folder: {name: {step: value}}."""
    found = {}
    for file in folder.glob('*/vis_data/events.out.tfevents.*'):
        events = EventAccumulator(str(file))
        events.Reload()
        for name in events.Tags()['scalars']:
            found.setdefault(name, {}).update({e.step: e.value for e in events.Scalars(name)})
    return found


def test_every_scalar_reaches_the_users_backends_at_its_step(toy_cfg, kept):
    toy_cfg.visualizer.vis_backends = [
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ]
    toy_cfg.custom_hooks = [dict(type='KeepOutputs')]
    toy_cfg.mix_and_match.update(
        max_iters=12, val_interval=6, loss='graph_triplet', keep_hooks=['KeepOutputs']
    )
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    work_dir = Path(toy_cfg.work_dir)
    tuning = work_dir / 'tuning'
    for read in (read_events, read_scalars):
        one, two = read(tuning), read(work_dir)
        for name in OF_AN_ITERATION:
            expected = logged(name, series(kept, str(tuning), name))
            assert list(expected) == list(range(1, 13))
            assert one[name] == pytest.approx(expected, rel=1e-3, abs=1e-4), name
        measured = series(kept, str(tuning), RECALL)
        assert list(measured) == [0, 6, 12]
        assert one[RECALL] == pytest.approx(measured, abs=1e-4)
        for name in ('loss', 'decode.loss_ce', 'decode.acc_seg'):
            assert two[name] == pytest.approx(
                logged(name, series(kept, str(work_dir), name)), rel=1e-3
            )
            assert list(two[name]) == [1, 2, 3, 4]
        assert two['mIoU'] == pytest.approx(series(kept, str(work_dir), 'mIoU'), abs=1e-2)
        assert list(two['mIoU']) == [4]
        assert list(two['lr']) == [1, 2, 3, 4] and 'active_share' not in two


def progress(out):
    return [text[len('progress: ') :] for text in out.splitlines() if text.startswith('progress: ')]


@pytest.fixture
def every_update(monkeypatch):
    monkeypatch.setattr('mm_tuning_plugin.engine.monitor.display.Display.interval', 0)


def without_times(text):
    return re.sub(r'\d+:\d\d:\d\d', 'TIME', text)


def by_epochs(cfg):
    """Two epochs of four batches."""
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.default_hooks.logger.log_metric_by_epoch = True
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    cfg.log_processor.by_epoch = True
    cfg.param_scheduler = None


@pytest.mark.parametrize('epochs', [False, True])
def test_one_line_follows_both_stages(toy_cfg, capfd, every_update, epochs):
    toy_cfg.mix_and_match.update(loss='graph_triplet', val_interval=2)
    if epochs:
        by_epochs(toy_cfg)
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    lines = [without_times(text) for text in progress(capfd.readouterr().out)]
    places = [re.match(r'stage (.*?)  ', text)[1] for text in lines]
    length, of = ('2 epochs', 8) if epochs else ('4 iterations', 4)
    recall = r'recall@1 0\.\d{3}'

    def first(place):
        return lines[places.index(place)]

    assert first('1/2 tuning 0/4').endswith(f'ETA 4 iterations + fine-tuning ({length})')
    assert '1/2 tuning 0/4, validating 1/8' in places, 'recall is measured as the stage begins'
    at_two = first('1/2 tuning 2/4')
    assert re.search(
        rf'  50%  ETA TIME \+ fine-tuning \({length}\)  loss \S+  active \d+%  {recall}$', at_two
    )
    assert re.search(rf'{recall} -> 0\.\d{{3}}$', first('1/2 tuning 4/4, validating 1/8'))
    last = lines[-1]
    assert re.fullmatch(
        rf'stage 2/2 fine-tuning {of}/{of}  100%  ETA TIME  loss \S+  {recall} -> 0\.\d+  '
        r'mIoU \d+\.\d\d', last
    )  # fmt: skip
    assert 'active' not in first(f'2/2 fine-tuning 1/{of}'), 'fine-tuning has no triplets'
    assert 'mIoU' in first(f'2/2 fine-tuning 5/{of}') if epochs else True
    in_order = list(dict.fromkeys(place.split(',')[0] for place in places))
    assert in_order == [f'1/2 tuning {i}/4' for i in range(5)] + [
        f'2/2 fine-tuning {i}/{of}' for i in range(of + 1)
    ]


def test_time_to_go_counts_the_validations_of_epochs(toy_cfg, capfd, every_update, monkeypatch):
    counted, plain = {}, Display.show

    def show(self, status, ended):
        if status.validating is None and not ended:
            counted.setdefault((status.iteration, status.score is not None), status.validations)
        plain(self, status, ended)

    monkeypatch.setattr(Display, 'show', show)
    by_epochs(toy_cfg)
    toy_cfg.mix_and_match = dict(enabled=False)
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    lines = progress(capfd.readouterr().out)
    assert lines[0].startswith('fine-tuning 0/8  0%  ETA 8 iterations'), 'a single stage'
    assert {iteration: counted[iteration, iteration > 3] for iteration in range(1, 8)} == {
        1: 2, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1
    }  # fmt: skip
    first = next(i for i, text in enumerate(lines) if 'mIoU' in text)
    trained = [text for text in lines[2:first] if 'validating' not in text]
    assert trained and all('+ validation' in text for text in trained)
    assert not any('+ validation' in text for text in lines[first:]), 'by then it is known'


def test_tuning_alone_and_plain_lines_now_and_then(toy_cfg, capfd):
    MixAndMatchRunner.from_cfg(toy_cfg).tune()
    (only,) = progress(capfd.readouterr().out)
    assert re.match(r'tuning 4/4  100%  ETA 0:00:00  loss ', only)


def test_a_resumed_run_goes_on_where_it_was(toy_cfg, capfd, every_update):
    toy_cfg.mix_and_match.update(loss='graph_triplet', val_interval=2)
    whole = copy.deepcopy(toy_cfg)
    MixAndMatchRunner.from_cfg(whole).tune()
    before = progress(capfd.readouterr().out)
    tuning = Path(toy_cfg.work_dir, 'tuning')
    (tuning / 'tuned_backbone.pth').unlink()
    (tuning / 'iter_4.pth').unlink()
    (tuning / 'last_checkpoint').write_text(str(tuning / 'iter_2.pth'))
    toy_cfg.resume = True
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    lines = progress(capfd.readouterr().out)
    assert lines[0].startswith('stage 1/2 tuning 2/4  50%')
    recall = before[-1].split('recall@1 ')[1]
    ended = [text for text in lines if text.startswith('stage 1/2')][-1]
    assert ended.endswith(f'recall@1 {recall}'), 'the one before tuning is known again'
    MixAndMatchRunner.from_cfg(toy_cfg).train()  # both stages are finished
    assert all(text.startswith('stage 2/2 ') for text in progress(capfd.readouterr().out))


def test_other_ranks_show_nothing(toy_cfg, capfd, monkeypatch):
    monkeypatch.setattr(line, 'is_main_process', lambda: False)
    MixAndMatchRunner.from_cfg(toy_cfg).tune()
    assert not progress(capfd.readouterr().out)


def live(cfg):
    """A run whose live line is drawn at every update."""

    def act():
        from mm_tuning_plugin.cli.common.run import run
        from mm_tuning_plugin.engine.monitor.display import LiveDisplay

        LiveDisplay.interval = 0
        return run(lambda _: MixAndMatchRunner.from_cfg(cfg).train())

    return act


def test_on_a_terminal_the_line_stays_below_mmengines_own(toy_cfg):
    toy_cfg.train_dataloader.num_workers = 1  # forked while the line is there
    status, written = on_a_terminal(live(toy_cfg), columns=160)
    assert status == 0, written
    screen = Screen(written)
    assert screen.cursor
    shown = [text for text in screen.lines if 'ETA' in text]
    assert [text.split(' ')[:3] for text in shown] == [
        ['stage', '1/2', 'tuning'], ['stage', '2/2', 'fine-tuning']
    ]  # fmt: skip
    assert written.count('stage 1/2 tuning') > 10, 'it was drawn anew'
    (log,) = Path(toy_cfg.work_dir).glob('*/*.log')
    own = [text for text in log.read_text().splitlines() if 'Iter(train)' in text]
    assert own
    for text in own:  # in the file the date is longer, and there is no colour
        message = text.split(' - ')[-1]
        assert sum(message in seen for seen in screen.lines) == 1
    assert not any('Traceback' in text for text in screen.lines)


def test_ctrl_c_leaves_a_clean_terminal_and_one_line(toy_cfg):
    toy_cfg.mix_and_match.max_iters = 1000
    status, written = on_a_terminal(live(toy_cfg), signal_at=('tuning 3/1000', signal.SIGINT))
    assert status == 130, written
    screen = Screen(written)
    assert screen.cursor
    assert not any('ETA' in text for text in screen.lines)
    assert re.search(r'\bSIGINT\b.*\b\d+ of 1000\b', screen.shown[-1])


def test_an_error_leaves_a_clean_terminal(toy_cfg, monkeypatch):
    def wrong(self, *args, **kwargs):
        raise RuntimeError('something broke')

    monkeypatch.setattr('mmseg.evaluation.IoUMetric.process', wrong)
    status, written = on_a_terminal(live(toy_cfg))
    assert status == 1
    screen = Screen(written)
    assert screen.cursor and screen.shown[-1] == 'RuntimeError: something broke'
    assert [text[:9] for text in screen.lines if 'ETA' in text] == ['stage 1/2']
