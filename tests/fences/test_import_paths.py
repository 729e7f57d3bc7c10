"""Names that users' own losses, samplers and namings import stay where they are."""

import importlib

import pytest

NAMES = {
    'mm_tuning_plugin': ['__version__'],
    'mm_tuning_plugin.functional': [
        'active_triplet_share', 'class_connected_graph', 'crop_and_resize', 'embedding_variance',
        'expected_triplet_loss', 'graph_triplets', 'lone_classes', 'prototype_loss', 'recall_at_k',
        'sample_patches', 'supervised_contrastive_loss', 'triplet_margin_loss',
    ],
    'mm_tuning_plugin.structures': ['NodeBatch', 'PatchBoxes', 'Triplets'],
    'mm_tuning_plugin.errors': ['UserError'],
    'mm_tuning_plugin.checkpoint': [
        'LoadReport', 'Naming', 'load_backbone_checkpoint', 'register_naming',
    ],
    'mm_tuning_plugin.engine': ['MixAndMatchRunner', 'derive_tuning_config'],
    'mm_tuning_plugin.models': [
        'ExpectedTripletLoss', 'GraphTripletLoss', 'MixAndMatchTuner', 'NodeCrossEntropyLoss',
        'NodeDataPreprocessor', 'PMLLoss', 'PointEmbedding', 'PooledEmbedding',
        'PrototypeContrastiveLoss', 'SelfSupervised', 'SummedSoftmaxEncoderDecoder',
        'SupervisedContrastiveLoss', 'backbones', 'gather_nodes', 'heads', 'proxies',
    ],
    'mm_tuning_plugin.datasets': ['PackNodeInputs', 'SamplePatches', 'SamplePoints'],
    'mm_tuning_plugin.registry': [
        'DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'METRICS', 'MODELS', 'RUNNERS', 'TRANSFORMS',
        'WEIGHT_INITIALIZERS',
    ],
}  # fmt: skip
# Everything that an earlier version registered; configs and written tuning configs name them.
REGISTERED = {
    'RUNNERS': [
        'MixAndMatchRunner',
    ],
    'HOOKS': [
        'EstimateBatchNormHook', 'FiniteHook', 'NodeStatisticsHook', 'ObserveHook',
        'PicturesHook', 'SaveBackboneHook', 'WatchHook',
    ],
    'DATASETS': [
        'RetrievalDataset', 'SeededDataset', 'UnlabelledFolder',
    ],
    'DATA_SAMPLERS': [
        'FirstSampler', 'SeededInfiniteSampler',
    ],
    'TRANSFORMS': [
        'Cached', 'CheckLabels', 'CutLargeImage', 'FitToLabels', 'GreyImage', 'MapLabels',
        'PackNodeInputs', 'SamplePatches', 'SamplePoints',
    ],
    'MODELS': [
        'AlexNetBN', 'ColorizationDataPreprocessor', 'ColorizationModel',
        'ExpectedTripletLoss', 'FCN32sHead', 'GraphTripletLoss',
        'HueChromaDataPreprocessor', 'HueChromaModel', 'HypercolumnHead',
        'JigsawDataPreprocessor', 'JigsawModel', 'MixAndMatchTuner', 'NodeCrossEntropyLoss',
        'NodeDataPreprocessor', 'PMLLoss', 'PointEmbedding', 'PooledEmbedding',
        'PrototypeContrastiveLoss', 'RotationDataPreprocessor', 'RotationModel',
        'SummedSoftmaxEncoderDecoder', 'SupervisedContrastiveLoss', 'VGG16BN',
    ],
    'METRICS': [
        'ImageIoUMetric', 'NodeRetrievalMetric',
    ],
    'WEIGHT_INITIALIZERS': [
        'SelfSupervised',
    ],
}  # fmt: skip


@pytest.mark.parametrize('module', NAMES)
def test_names_of_earlier_versions(module):
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize('registry', REGISTERED)
def test_registered_names_of_earlier_versions(imported, registry):
    found = getattr(importlib.import_module('mm_tuning_plugin.registry'), registry)
    for name in REGISTERED[registry]:
        assert found.get(f'mm_tuning_plugin.{name}') is not None, name
