# One GPU: ResNet-18 at full size, every fold's labels at a quarter, three seeds.
config = '../camvid/fcn_r18_camvid.py'
arms = ['direct', 'direct-matched', 'tuned', 'direct-matched-paper', 'paper']
seeds = [0, 1, 2]
fold = dict(file='{{$CAMVID_ROOT:data/camvid}}/folds.json', index=0, fraction=0.25)
cfg_options = {'mix_and_match.max_iters': 2000}
