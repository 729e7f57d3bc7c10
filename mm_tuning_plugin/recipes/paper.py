"""The recipe of Zhan et al., "Mix-and-Match Tuning for Self-Supervised Semantic Segmentation".

AAAI 2018: labelled patches, a class-wise connected graph, triplets, no projection. Its margin of
2.1 is the default of every recipe.
"""

from mm_tuning_plugin.recipes.base import register_recipe

register_recipe(
    'paper',
    'Zhan et al. (AAAI 2018): patches and graph triplets',
    max_iters=8000,
    nodes='patches',
    nodes_per_image=9,
    loss='graph_triplet',
    projection_channels=0,
)
