"""Pictures of nodes, embeddings and predictions: numpy arrays in, (H, W, 3) uint8 RGB out.

Nothing here knows of mmengine, opens a window or touches matplotlib's global state.
"""

from .embeddings import embedding_map
from .frequencies import frequency_bars
from .gallery import Neighbours, retrieval_gallery
from .images import resize, save_image
from .mosaic import patch_mosaic
from .overlay import cut_nodes, node_overlay
from .palette import class_palette, dataset_palette, text_colour
from .predictions import prediction_sheet
from .sheet import node_sheet
from .similarity import class_similarity, similarity_map

__all__ = [
    'Neighbours',
    'class_palette',
    'class_similarity',
    'cut_nodes',
    'dataset_palette',
    'embedding_map',
    'frequency_bars',
    'node_overlay',
    'node_sheet',
    'patch_mosaic',
    'prediction_sheet',
    'resize',
    'retrieval_gallery',
    'save_image',
    'similarity_map',
    'text_colour',
]
