# Two CPU cores, three hours: a small ResNet-18 from its random start, an eighth of a fold's labels.
config = '../camvid/fcn_r18_camvid_cpu.py'
folds = dict(file='{{$CAMVID_ROOT:data/camvid}}/folds.json', indices=[1])
arms = ['direct', 'direct-matched', 'direct-twice', 'direct-2x', 'ce-tuned', 'tuned', 'paper']
# Patches cost three times as much as points: so many iterations take as much compute.
recipes = dict(tuned={}, paper=dict(recipe='paper', max_iters=400))
fractions = [0.125]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
recall = dict(images=32, patches=12, size_range=(48, 128), patch_size=64)
