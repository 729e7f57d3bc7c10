# Published self-supervised ViT-B/16s on ADE20K, UPerNet, 160,000 iterations; one GPU a job.
# The files of `starts` are looked for below the environment variable SSL_ROOT or in checkpoints/;
# `--starts NAME ...` runs those that you have. MAE-B is reported at 48.1 mIoU.
configs = dict(
    vit='../ade20k/upernet_vit-b16_ade20k.py', beit='../ade20k/upernet_beit-b16_ade20k.py')
arms = ['direct', 'direct-matched', 'direct-twice', 'ce-tuned', 'tuned']
seeds = [0]
fractions = [0.125, 1]
starts = dict(
    # Each from its own project (ImageNet-1k, no labels): MAE's "pre-trained checkpoint, ViT-Base";
    # MoCo v3's "vit-b-300ep", not the linear one; DINO's "ViT-B/16, backbone only"; iBOT's "ViT-B/16";
    # BEiT's "beit_base_patch16_224_pt22k", the self-supervised one (not "_ft22k").
    mae=dict(checkpoint=dict(vit='{{$SSL_ROOT:checkpoints}}/mae_pretrain_vit_base.pth')),
    moco_v3=dict(checkpoint=dict(vit='{{$SSL_ROOT:checkpoints}}/vit-b-300ep.pth.tar')),
    dino=dict(checkpoint=dict(vit='{{$SSL_ROOT:checkpoints}}/dino_vitbase16_pretrain.pth')),
    ibot=dict(checkpoint=dict(vit='{{$SSL_ROOT:checkpoints}}/ibot_vitbase16.pth')),
    beit=dict(checkpoint=dict(beit='{{$SSL_ROOT:checkpoints}}/beit_base_patch16_224_pt22k.pth')),
)
