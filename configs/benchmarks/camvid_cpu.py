# Two CPU cores, three hours: a small ResNet-18 from its random start, one labelled image in 32 of a
# fold (8 images): with an eighth of them fine-tuning does not converge in the time that this has.
config = '../camvid/fcn_r18_camvid_cpu.py'
folds = dict(file='{{$CAMVID_ROOT:data/camvid}}/folds.json', indices=[1])
arms = ['direct', 'direct-matched', 'direct-twice', 'direct-2x', 'ce-tuned', 'tuned', 'paper']
# Patches cost three times as much as points: this many iterations take as much compute.
recipes = dict(tuned={}, paper=dict(recipe='paper', max_iters=320))
fractions = [0.03125]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
recall = dict(images=32, patches=12, size_range=(48, 128), patch_size=64)
