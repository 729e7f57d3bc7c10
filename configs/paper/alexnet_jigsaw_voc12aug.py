# AlexNet from a jigsaw proxy on VOC12aug: --ssl-checkpoint FILE.
_base_ = './alexnet_random_voc12aug.py'
model = dict(backbone=dict(variant='jigsaw'))
mix_and_match = dict(grid_size=5)
