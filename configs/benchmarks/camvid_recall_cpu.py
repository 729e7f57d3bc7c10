# Stage one alone: does the default recipe reach the paper's recall@1 with a tenth of its compute?
# Fine-tuning lasts one iteration, so mIoU says nothing here. In the work_dir of camvid_cpu.py what
# that plan tuned is used again.
_base_ = './camvid_cpu.py'
arms = ['paper', 'tuned-tenth']
recipes = dict(_delete_=True, paper=dict(recipe='paper', max_iters=320), **{
    'tuned-tenth': dict(max_iters=100)})
cfg_options = {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1}
