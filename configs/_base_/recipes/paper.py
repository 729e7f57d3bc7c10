# The released tuning: 576 patches, nine of each of 64 images (eight of the foreground, one of the
# background), squares of 64 to 256 pixels resized to 128, pool5 as it is.
runner_type = 'mm_tuning_plugin.MixAndMatchRunner'
mix_and_match = dict(
    recipe='paper',
    images_per_batch=64,  # 16 on each of four GPUs: one graph over all patches
    # graph_groups=4,     # the original's: a graph a GPU, of 144 patches
    nodes_per_image=9,
    size_range=(64, 256),
    patch_size=128,
    grid_size=4,
    transforms=['RandomCrop', 'RandomFlip'],
    background_index=0)
