"""The two-stage run under two real ranks: killed in each stage, resumed, finished."""

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from launching import PROBE, ROOT, documented, events, forked, start, told, with_probe, without
from mmengine.runner import Runner

from mm_tuning_plugin.engine import derive_tuning_config

# What may be opened again, because it grows or points at the newest; all else is written once.
GROWING = ('.log', '.json', 'last_checkpoint')


@pytest.fixture
def project(toy_cfg, tmp_path):
    """Stage one of 4 iterations with 4 images each, on statistics that ranks share."""
    cfg = with_probe(toy_cfg)
    without(cfg, 'test')
    cfg.model.backbone.norm_eval = True
    cfg.model.decode_head.dropout_ratio = 0.5  # random states that differ by rank
    cfg.train_dataloader.num_workers = 1
    cfg.mix_and_match.update(loss='graph_triplet', nodes_per_image=12)
    cfg.work_dir = str(tmp_path / 'run')
    path = tmp_path / 'config.py'
    cfg.dump(path)
    return cfg, path


def launched(config, folder, run):
    """Launch two ranks by the command of the docs; what they told goes to `folder`."""
    folder.mkdir()
    words = {'per_node 8': 'per_node 2', 'CONFIG.py': config, 'WORK_DIR': run}
    command = documented('torch.distributed.run', words)
    done = start(command, cwd=ROOT, PROBE=folder, PROBE_WATCH=run)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr, told(folder)


def train(config, folder, run, *more, **variables):
    """Two forked ranks; what they told goes to `folder`."""
    folder.mkdir()
    argv = [config, '--work-dir', run, *more]
    status, said = forked(argv, folder, PROBE=folder, PROBE_WATCH=run, **variables)
    assert status == ([-9, -9] if variables else [0, 0]), said[-3000:]
    return said, told(folder)


def starts(rank):
    return [(event['stage'], event['iter']) for event in events(rank, 'start')]


def drawn(ranks):
    """{iteration: nodes of all ranks in rank order}."""
    together = {}
    for rank in ranks.values():
        for event in events(rank, 'draw'):
            together.setdefault(event['iter'], []).extend(event['nodes'])
    return together


def seen_by(checkpoint):
    return torch.load(checkpoint, weights_only=False)['mm_tuning_plugin']['seen']


def test_killed_in_both_stages_resumed_and_finished(project, tmp_path, monkeypatch):
    cfg, config = project
    run = Path(cfg.work_dir)

    _, first = train(config, tmp_path / 'a', run, PROBE_KILL='tuning:3')
    assert (run / 'tuning' / 'iter_2.pth').exists()
    assert not (run / 'tuning' / 'tuned_backbone.pth').exists()

    _, second = train(config, tmp_path / 'b', run, '--resume', PROBE_KILL='fine_tuning:3')
    assert (run / 'tuning' / 'tuned_backbone.pth').exists() and (run / 'iter_2.pth').exists()
    assert not (run / 'iter_4.pth').exists()

    said, third = train(config, tmp_path / 'c', run, '--resume')
    assert (run / 'iter_4.pth').exists() and (run / 'stages.json').exists()
    assert said.count('2 CPU ranks') == 1

    for rank in (0, 1):
        assert starts(first[rank]) == [('tuning', 0)]
        assert starts(second[rank]) == [('tuning', 2), ('fine_tuning', 0)]
        assert starts(third[rank]) == [('fine_tuning', 2)]
    check_weights(second, 'tuning')
    check_weights(third, 'fine_tuning')
    check_files(run, [first, second, third])
    check_nodes_seen(run, first, second)
    check_one_rank_is_the_same(cfg, tmp_path, run, first, second, monkeypatch)

    launched(config, tmp_path / 'd', tmp_path / 'whole')
    for name in ('tuning/tuned_backbone.pth', 'iter_4.pth'):
        found, expected = (
            torch.load(folder / name, weights_only=False)['state_dict']
            for folder in (run, tmp_path / 'whole')
        )
        assert all(torch.equal(found[key], expected[key]) for key in expected), 'to the bit'


def check_weights(ranks, stage):
    """Both ranks end with the same weights, at the last iteration."""
    ends = [event for rank in ranks.values() for event in events(rank, 'end')]
    ends = [event for event in ends if event['stage'] == stage]
    assert [event['iter'] for event in ends] == [4, 4]
    assert ends[0]['weights'] == ends[1]['weights']


def check_files(run, launches):
    """Every file below the work_dir was written by the main rank alone, and but once."""
    counts = Counter()
    for ranks in launches:
        assert not [event for event in ranks[1] if 'path' in event]
        counts.update(
            event['path'] for event in ranks[0] if 'path' in event and event['event'] != 'os.remove'
        )
    present = {str(path.relative_to(run)) for path in run.rglob('*') if path.is_file()}
    assert present <= counts.keys(), 'something writes unnoticed'
    once = {name: counts[name] for name in present if not name.endswith(GROWING)}
    checkpoints = [name for name in once if name.endswith('.pth')]
    assert sorted(checkpoints) == [
        'iter_2.pth', 'iter_4.pth', 'tuning/iter_2.pth', 'tuning/iter_4.pth',
        'tuning/tuned_backbone.pth',
    ]  # fmt: skip
    # Each launch says anew which config it ran.
    twice = {name: n for name, n in once.items() if n > 1 and not name.endswith('config.py')}
    assert not twice


def check_nodes_seen(run, first, second):
    """The counts of classes are those of all ranks, also across the interruption."""
    draws = {**drawn(first), **drawn(second)}  # iteration 2 was repeated
    assert sorted(draws) == [0, 1, 2, 3]
    for iterations in (2, 4):
        seen = seen_by(run / 'tuning' / f'iter_{iterations}.pth')
        labels = [
            label
            for iteration in range(iterations)
            for _, labels, _ in draws[iteration]
            for label in labels
        ]
        expected = torch.bincount(torch.tensor(labels), minlength=8)
        assert torch.equal(seen['nodes_per_class'], expected)
        assert seen['batches'] == iterations


def check_one_rank_is_the_same(cfg, tmp_path, run, first, second, monkeypatch):
    """2 ranks with 2 images each draw the nodes of 1 rank with 4, and learn the same from them."""
    monkeypatch.syspath_prepend(PROBE)
    monkeypatch.setenv('PROBE', str(tmp_path))
    import rank_probe  # noqa: F401  # without PROBE_WATCH it watches nothing

    alone = copy.deepcopy(cfg)
    alone.work_dir = str(tmp_path / 'alone')
    derived = derive_tuning_config(alone)
    Runner.from_cfg(derived).train()
    assert drawn(told(tmp_path)) == {**drawn(first), **drawn(second)}
    tuned, expected = (
        torch.load(folder / 'tuning' / 'tuned_backbone.pth', weights_only=True)['state_dict']
        for folder in (run, tmp_path / 'alone')
    )
    for name, value in expected.items():
        assert (tuned[name] - value).abs().max() < 1e-5, name
    assert any((expected[name] - tuned[name]).abs().max() > 0 for name in expected)


def test_the_main_rank_alone_draws_and_the_weights_stay_equal(project, tmp_path):
    cfg, config = project
    cfg.mix_and_match.update(pictures=['mosaic', 'embedding', 'gallery'], picture_interval=2)
    cfg.dump(config)
    said, ranks = train(config, tmp_path / 'a', tmp_path / 'drawn')
    folder = tmp_path / 'drawn' / 'tuning' / 'pictures'
    assert {path.name for path in folder.iterdir()} == {
        'before_tuning.npz', 'mosaic_0.png', 'mosaic_2.png', 'embedding_2.png', 'embedding_4.png',
        'gallery_2.png', 'gallery_4.png',
    }  # fmt: skip
    written = [event for event in ranks[0] if '/pictures/' in event.get('path', '')]
    assert written and not [event for event in ranks[1] if 'path' in event]
    assert 'pictures: ' not in said  # no line of what failed
    check_weights(ranks, 'tuning')

    cfg.mix_and_match.pictures = []
    cfg.dump(config)
    train(config, tmp_path / 'b', tmp_path / 'plain')
    first, second = (
        torch.load(tmp_path / run / 'tuning' / 'tuned_backbone.pth', weights_only=True)
        for run in ('drawn', 'plain')
    )
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
