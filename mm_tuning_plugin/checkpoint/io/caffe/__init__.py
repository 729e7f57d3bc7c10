"""Weights of Caffe, read without Caffe: ``.caffemodel`` and ``.caffemodel.h5``."""

from mm_tuning_plugin.checkpoint.io.caffe.files import is_caffemodel, read_caffemodel, read_hdf5

__all__ = ['is_caffemodel', 'read_caffemodel', 'read_hdf5']
