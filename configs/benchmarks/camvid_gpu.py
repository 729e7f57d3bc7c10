# One GPU: two backbones at 480 x 360, from random starts and from proxy tasks trained here without
# labels, with an eighth of the labels and with all.
configs = dict(resnet50='../camvid/fcn_r50_camvid.py', vit_small='../camvid/fcn_vit-s_camvid.py')
starts = dict(
    random=None,
    colorization=dict(proxy=dict(resnet50='../proxy/colorization_resnet50_camvid.py')),
    jigsaw=dict(proxy=dict(resnet50='../proxy/jigsaw_resnet50_camvid.py')),
    rotation=dict(proxy=dict(resnet50='../proxy/rotation_resnet50_camvid.py')),
    # With mmpretrain (docs/proxies.md):
    # mocov2=dict(proxy=dict(resnet50='../proxy/mocov2_resnet50_camvid.py')),
    # densecl=dict(proxy=dict(resnet50='../proxy/densecl_resnet50_camvid.py')),
    # mae=dict(proxy=dict(vit_small='../proxy/mae_vit-small_camvid.py')),
)
folds = dict(file='{{$CAMVID_ROOT:data/camvid}}/folds.json', indices=[0])
arms = ['direct', 'direct-matched', 'direct-twice', 'direct-2x', 'ce-tuned', 'tuned']
fractions = [0.125, 1]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
cfg_options = {'mix_and_match.max_iters': 2000}
