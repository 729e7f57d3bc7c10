# As upernet_vit-b16_ade20k.py for weights with relative positions: BEiT's own.
_base_ = './upernet_vit-b16_ade20k.py'
model = dict(backbone=dict(type='BEiT', qv_bias=True, init_values=0.1))
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(decay_rate=0.9))
