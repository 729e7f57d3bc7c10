"""Package definition; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r"^__version__ = ['\"]([^'\"]+)['\"]",
    (HERE / 'mm_tuning_plugin' / '__init__.py').read_text(encoding='utf-8'),
    re.MULTILINE,
).group(1)

# Two distributions own the import names mmengine, mmcv and mmseg, so neither may be required:
# pip would install one over the other. The user names one of them by its extra, or has it already.
FORK = ['onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmsegmentation==1.4.2']
# ftfy and regex: mmseg.utils imports them, and mmsegmentation does not require them.
ORIGINAL = ['mmengine==0.10.7', 'mmcv==2.1.0', 'mmsegmentation==1.2.2', 'ftfy', 'regex']
# mmcv-lite is mmcv without compiled ops, which nothing here needs but mmseg's models import: alone
# it is not enough (see tests/original/mmcv_ext_stub.py).
ORIGINAL_LITE = [name.replace('mmcv==', 'mmcv-lite==') for name in ORIGINAL]
TEST = [
    'hypothesis>=6.100',
    'mypy>=1.11',
    'pytest>=8.0',
    'pytest-xdist>=3.7',
    'pytorch-metric-learning>=2.6',
    'ruff>=0.6',
    'submitit',
    'transformers>=5.0',
    'types-PyYAML',
]

setup(
    name='mm_tuning_plugin',
    version=VERSION,
    description='Mix-and-match tuning between a self-supervised backbone and segmentation '
    'fine-tuning, as a plug-in for MMSegmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['mm_tuning_plugin', 'mm_tuning_plugin.*']),
    package_data={'mm_tuning_plugin': ['py.typed']},
    entry_points={'console_scripts': ['mm-tuning = mm_tuning_plugin.cli.main:entry']},
    install_requires=[
        'jinja2',
        'matplotlib',
        'numpy',
        'packaging',
        'pandas',
        'rich',
        'safetensors>=0.4',
        'scikit-learn',
        'scipy',
        'torch>=2.1',
    ],
    extras_require={
        'fork': FORK,
        'original': ORIGINAL,
        'original-lite': ORIGINAL_LITE,
        'slurm': ['submitit'],
        'test': TEST,
    },
)
