# The released fine-tuning: SGD 0.01, divided by ten after 24k, 36k and 40k of 42k iterations; biases
# learn twice as fast and are not decayed, in both stages. Batches of 64 (AlexNet) and 48 (VGG).
_base_ = './sgd_8k.py'
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[24000, 36000, 40000], gamma=0.1, by_epoch=False)]
train_cfg = dict(max_iters=42000, val_interval=42000)
default_hooks = dict(checkpoint=dict(interval=6000))
