# VGG-16: of its many outputs pool5 is tuned.
_base_ = './paper.py'
mix_and_match = dict(levels=[14])
