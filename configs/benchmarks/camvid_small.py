# Two CPU cores: half-width ResNet-18 at 240 x 180, one fold, a quarter of its labels, two seeds.
config = '../camvid/fcn_r18_camvid_240x180.py'
arms = ['direct', 'direct-matched', 'tuned', 'direct-matched-paper', 'paper']
seeds = [0, 1]
fold = dict(file='{{$CAMVID_ROOT:data/camvid}}/folds.json', index=0, fraction=0.25)
