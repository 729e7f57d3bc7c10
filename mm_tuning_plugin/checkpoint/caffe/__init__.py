"""Weights of Caffe, read without Caffe: ``.caffemodel`` and ``.caffemodel.h5``."""

from .files import is_caffemodel, read_caffemodel, read_hdf5

__all__ = ['is_caffemodel', 'read_caffemodel', 'read_hdf5']
