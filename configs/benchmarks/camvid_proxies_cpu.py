# As camvid_cpu.py, from starts that are trained here without labels, on the training frames of the fold.
_base_ = './camvid_cpu.py'
three_stages = {
    'model.backbone.num_stages': 3,
    'model.backbone.strides': (1, 2, 2),
    'model.backbone.dilations': (1, 1, 1),
    'model.backbone.out_indices': (0, 1, 2)
}
starts = dict(
    colorization=dict(
        proxy='../proxy/colorization_resnet18_camvid_cpu.py',
        cfg_options={**three_stages, 'model.in_index': (0, 1, 2), 'model.in_channels': (16, 32, 64)}),
    jigsaw=dict(
        proxy='../proxy/jigsaw_resnet18_camvid_cpu.py',
        cfg_options={**three_stages, 'model.in_channels': 64}),
    rotation=dict(
        proxy='../proxy/rotation_resnet18_camvid_cpu.py',
        cfg_options={**three_stages, 'model.in_channels': 64}))
arms = ['direct', 'direct-matched', 'ce-tuned', 'tuned']
seeds = [0, 1, 2, 3, 4]
del three_stages
