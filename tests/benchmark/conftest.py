"""A plan over the toy config, and an executor that runs its steps in this process."""

import pytest


class HereExecutor:
    """Runs each step at once, in this process: no imports, no waiting."""

    interval = 0.0

    def __init__(self, statuses=()):
        self.started = []
        self.statuses = dict(statuses)  # by kind of step, instead of running it

    def free(self):
        return True

    def start(self, name, command, log, lock):
        from mm_tuning_plugin.benchmark.steps import read_step
        from mm_tuning_plugin.cli.step import entry

        folder = command[-1]
        step = read_step(log.parent)
        self.started.append(step)
        log.write_text('')
        status = self.statuses.get(step.kind)
        return Ended(entry([folder]) if status is None else status)


class Ended:
    """A process that has ended."""

    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status

    def terminate(self):
        pass

    def kill(self):
        pass


@pytest.fixture
def here():
    return HereExecutor


@pytest.fixture
def toy_plan(toy_cfg, tmp_path):
    """Makes a plan of the toy config; its arguments go over the plan's entries."""
    from mm_tuning_plugin.benchmark.design.plan import check_plan

    def make(**entries):
        cfg = toy_cfg.copy()
        cfg.merge_from_dict(entries.pop('cfg', {}))
        path = tmp_path / 'toy.py'
        cfg.dump(str(path))
        content = dict(
            configs={'toy': str(path)},
            arms=['direct', 'tuned'],
            seeds=[0],
            fractions=[0.5],
            recall=dict(images=4, patches=4, size_range=(16, 32), patch_size=32),
        )
        return check_plan({**content, **entries})

    return make


@pytest.fixture
def proxy(toy_cfg, demo_root, tmp_path):
    """A proxy task: the toy config's backbone learns colours."""
    from mmengine.config import Config

    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='mm_tuning_plugin.ColorizationModel',
                data_preprocessor=dict(type='mm_tuning_plugin.ColorizationDataPreprocessor'),
                backbone=dict(toy_cfg.model.backbone, type='mmseg.ResNet'),
                in_index=(3,),
                in_channels=(64,),
                channels=8,
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(
                    type='BaseSegDataset',
                    data_root=str(demo_root),
                    data_prefix=dict(img_path='img/train'),
                    img_suffix='.jpg',
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='RandomCrop', crop_size=(48, 48)),
                        dict(type='PackSegInputs'),
                    ],
                ),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
            optim_wrapper=toy_cfg.optim_wrapper,
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
            log_processor=dict(by_epoch=False),
        )
    )
    path = tmp_path / 'proxy.py'
    cfg.dump(str(path))
    return str(path)
