"""``tools/train.py``: where it writes, and a proxy task, which has a single stage."""

from pathlib import Path

from mmengine.config import Config

from mm_tuning_plugin.cli.train import apply_arguments, build_parser, entry

CONFIG = Path(__file__).parents[2] / 'configs' / 'proxy' / 'colorization_resnet18_demo.py'


def test_a_proxy_task_resumes_from_its_own_checkpoint(demo_root, tmp_path, capfd):
    def train(max_iters, *argv):
        options = {
            'train_dataloader.dataset.data_root': demo_root,
            'train_dataloader.batch_size': 2,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.max_iters': max_iters,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.logger.interval': 1,
        }
        pairs = [f'{key}={value}' for key, value in options.items()]
        argv = [str(CONFIG), '--work-dir', str(tmp_path), *argv, '--cfg-options', *pairs]
        assert entry(argv) == 0
        return capfd.readouterr().out

    said = train(1)
    assert 'Iter(train) [1/1]' in said
    said = train(2, '--resume')
    assert 'resumed epoch: 0, iter: 1' in said
    assert 'Iter(train) [2/2]' in said and 'Iter(train) [1/2]' not in said


def test_the_baseline_has_a_folder_of_its_own():
    folders = []
    for argv in (['a/b.py'], ['a/b.py', '--no-tuning'], ['a/b.py', '--work-dir', 'c']):
        cfg = Config()
        apply_arguments(cfg, build_parser().parse_args(argv))
        folders.append(cfg.work_dir)
    assert folders == ['work_dirs/b', 'work_dirs/b_no-tuning', 'c']
