"""A stub of torchvision, for which the test environments have no build.

timm and mmpretrain import it although their networks do not need it. The names that they import
exist; using one raises.
"""

__version__ = '0.0.0'
