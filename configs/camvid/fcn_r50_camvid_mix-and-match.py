_base_ = './fcn_r50_camvid.py'
runner_type = 'mm_tuning_plugin.MixAndMatchRunner'
mix_and_match = dict(max_iters=2000)
