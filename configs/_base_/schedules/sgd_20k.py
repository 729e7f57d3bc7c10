_base_ = './sgd_8k.py'
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=20000, by_epoch=False)]
train_cfg = dict(max_iters=20000, val_interval=20000)
default_hooks = dict(checkpoint=dict(interval=4000))
