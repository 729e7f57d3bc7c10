from mistakes import mistake

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.derive_pipelines import (
    FLIPS,
    GEOMETRIC,
    PHOTOMETRIC,
    crop_size,
    retrieval_pipeline,
    tuning_pipeline,
    with_pipeline,
)

CHECK, SAMPLE = dict(type='Check'), dict(type='Sample')
USERS = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(2048, 512)),
    dict(type='MyLabelMapping'),
    dict(type='RandomCrop', crop_size=(512, 512)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='GenerateEdge', edge_width=4),
    dict(type='PackSegInputs'),
]


def types(pipeline):
    return [step['type'].rsplit('.', 1)[-1] for step in pipeline]


def test_loading_and_label_mapping_stay_and_the_rest_only_if_listed():
    assert types(tuning_pipeline(USERS, FLIPS, CHECK, SAMPLE)) == [
        'LoadImageFromFile', 'LoadAnnotations', 'MyLabelMapping', 'Check', 'RandomFlip',
        'Sample', 'PackNodeInputs',
    ]  # fmt: skip
    assert types(tuning_pipeline(USERS, GEOMETRIC + PHOTOMETRIC, CHECK, SAMPLE)) == [
        'LoadImageFromFile', 'LoadAnnotations', 'RandomResize', 'MyLabelMapping', 'Check',
        'RandomCrop', 'RandomFlip', 'PhotoMetricDistortion', 'Sample', 'PackNodeInputs',
    ]  # fmt: skip


def test_the_users_options_survive_and_the_users_config_is_not_touched():
    derived = tuning_pipeline(USERS, (), CHECK, SAMPLE)
    assert derived[1] == USERS[1]
    derived[1]['reduce_zero_label'] = None
    assert USERS[1]['reduce_zero_label'] is True


def test_mixing_and_packing_never_stay_even_if_listed():
    derived = tuning_pipeline(
        [*USERS, dict(type='RandomMosaic')], ('RandomMosaic', 'PackSegInputs'), CHECK, SAMPLE
    )
    assert 'RandomMosaic' not in types(derived) and 'PackSegInputs' not in types(derived)


def test_scoped_types_are_known_by_their_last_part():
    derived = tuning_pipeline([dict(type='mmseg.PackSegInputs')], (), CHECK, SAMPLE)
    assert types(derived) == ['Check', 'Sample', 'PackNodeInputs']


def test_retrieval_resizes_image_and_labels_together():
    assert types(retrieval_pipeline(USERS, [dict(type='Resize')], CHECK, SAMPLE)) == [
        'LoadImageFromFile', 'LoadAnnotations', 'MyLabelMapping', 'Check', 'Resize', 'Sample',
        'PackNodeInputs',
    ]  # fmt: skip


def leaf(name='A'):
    return dict(type=name, pipeline=[dict(type='LoadImageFromFile')])


def tag(steps):
    return [*steps, dict(type='Tag')]


def test_wrappers_of_data_sets_are_gone_through():
    nest = dict(
        type='ConcatDataset',
        datasets=[
            leaf('A'),
            dict(type='RepeatDataset', times=3, dataset=leaf('B')),
            dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=leaf('C')),
        ],
    )
    derived = with_pipeline(nest, tag)
    assert derived['datasets'][1]['times'] == 3
    leaves = [
        derived['datasets'][0],
        derived['datasets'][1]['dataset'],
        derived['datasets'][2]['dataset'],
    ]
    assert [types(one['pipeline'])[-1] for one in leaves] == ['Tag'] * 3
    assert types(nest['datasets'][0]['pipeline']) == ['LoadImageFromFile']


def test_a_mixing_wrapper_gives_way_to_the_data_set_it_mixes():
    mixing = dict(
        type='MultiImageMixDataset',
        dataset=leaf('A'),
        pipeline=[dict(type='RandomMosaic'), dict(type='RandomFlip')],
    )
    derived = with_pipeline(mixing, lambda s: tuning_pipeline(s, FLIPS, CHECK, SAMPLE))
    assert derived['type'] == 'A'
    assert types(derived['pipeline']) == [
        'LoadImageFromFile', 'Check', 'RandomFlip', 'Sample', 'PackNodeInputs',
    ]  # fmt: skip


def test_a_data_set_without_a_pipeline_is_refused(toy_cfg):
    toy_cfg.train_dataloader.dataset.pipeline = []
    with mistake('dataset.pipeline', 'BaseSegDataset'):
        derive_tuning_config(toy_cfg)


def test_the_crop_that_training_sees():
    crop, centre = dict(type='mmseg.RandomCrop', crop_size=(512, 1024)), dict(type='CenterCrop')
    assert crop_size(dict(type='A', pipeline=[crop, dict(type='RandomFlip')])) == (512, 1024)
    assert crop_size(dict(type='A', pipeline=[crop, dict(centre, crop_size=(300, 200))])) == (
        200,
        300,
    )
    nest = dict(type='RepeatDataset', dataset=dict(type='A', pipeline=[dict(crop, crop_size=96)]))
    assert crop_size(nest) == (96, 96)
    mixing = dict(type='MultiImageMixDataset', dataset=leaf(), pipeline=[crop])
    assert crop_size(dict(type='ConcatDataset', datasets=[leaf(), mixing])) == (512, 1024)
    assert crop_size(leaf()) is None
