# The released schedule's length, with the learning rate that falls as a polynomial.
_base_ = './paper_42k.py'
param_scheduler = [
    dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=42000, by_epoch=False)]
