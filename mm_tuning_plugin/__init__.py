"""Mix-and-match tuning: the stage between a self-supervised backbone and its fine-tuning.

Importing this package imports neither torch nor any OpenMMLab package: configs and command-line
help must stay cheap. What is public lives in the subpackages `functional`, `checkpoint` and
`engine`; registered classes are reached by name, as ``mm_tuning_plugin.NAME`` in a config.
"""

__version__ = '0.1.0'
