# UPerNet over ViT-B/16, crops of 512, batch 16, 160,000 iterations, layer-wise decay.
_base_ = [
    '../_base_/models/upernet_vit_b16.py', '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_160k.py', '../_base_/default_runtime.py'
]
mix_and_match = dict(max_iters=4000)
