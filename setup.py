"""Package definition; tool settings live in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(
    r"^__version__ = ['\"]([^'\"]+)['\"]",
    (HERE / 'mm_tuning_plugin' / '__init__.py').read_text(encoding='utf-8'),
    re.MULTILINE,
).group(1)

REPORT = ['jinja2', 'matplotlib', 'scikit-learn']  # report.html and the pictures of a run
BENCHMARK = [*REPORT, 'pandas', 'scipy']
# Two distributions own the import names mmengine, mmcv and mmseg, so neither may be required:
# pip would install one over the other. The user names one of them by its extra, or has it already.
FORK = [*REPORT, 'onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmsegmentation==1.4.2']
# ftfy and regex: mmseg.utils imports them, and mmsegmentation does not require them.
ORIGINAL = [
    *REPORT, 'mmengine==0.10.7', 'mmcv==2.1.0', 'mmsegmentation==1.2.2', 'ftfy', 'regex',
]  # fmt: skip
# mmcv-lite is mmcv without compiled ops, which nothing here needs but mmseg's models import: alone
# it is not enough (see tests/original/mmcv_ext_stub.py).
ORIGINAL_LITE = [name.replace('mmcv==', 'mmcv-lite==') for name in ORIGINAL]
DOCS = ['mkdocs-material>=9.5', 'mkdocstrings-python>=1.10']
CAFFE = ['h5py']  # .caffemodel.h5 alone; a .caffemodel is read without it
TEST = [
    *BENCHMARK,
    *CAFFE,
    *DOCS,
    'hypothesis>=6.100',
    'mypy>=1.11',
    'pytest>=8.0',
    'pytest-xdist>=3.7',
    'pytorch-metric-learning>=2.6',
    'ruff>=0.6',
    'submitit',
    'tensorboard',
    'transformers>=5.0',
    'types-PyYAML',
    'vermin',
]

# Where openmim looks for them in an installed package: `mim train mm_tuning_plugin CONFIG` (openmim
# 0.3.9). An editable installation needs no copy: its user has the project's own folders.
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Also copy the files of the mim layout into the package."""

    def run(self):
        """Build as ever, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mm_tuning_plugin' / '.mim'
        target.mkdir(parents=True, exist_ok=True)
        for name in MIM:
            if (HERE / name).is_dir():
                ignored = shutil.ignore_patterns('__pycache__')
                shutil.copytree(HERE / name, target / name, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy2(HERE / name, target / name)


setup(
    name='mm_tuning_plugin',
    version=VERSION,
    description='Mix-and-match tuning between a self-supervised backbone and segmentation '
    'fine-tuning, as a plug-in for MMSegmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    entry_points={'console_scripts': ['mm-tuning = mm_tuning_plugin.cli.main:entry']},
    python_requires='>=3.9',
    packages=find_packages(include=['mm_tuning_plugin', 'mm_tuning_plugin.*']),
    package_data={'mm_tuning_plugin': ['py.typed', 'visualization/*.j2']},
    cmdclass={'build_py': BuildWithMim},
    # What training needs; the rest comes with an extra.
    install_requires=['numpy', 'packaging', 'rich', 'safetensors>=0.4', 'torch>=2.1'],
    extras_require={
        'benchmark': BENCHMARK,
        'caffe': CAFFE,
        'docs': DOCS,
        'fork': FORK,
        'original': ORIGINAL,
        'original-lite': ORIGINAL_LITE,
        'report': REPORT,
        'slurm': ['submitit'],
        'test': TEST,
    },
)
