"""Child registries of mmengine's roots, under the scope ``mm_tuning_plugin``.

A type ``mm_tuning_plugin.X`` in any config resolves without ``custom_imports``: mmengine imports
the module ``<scope>.registry`` by name, and each registry imports its ``locations`` when it is
first asked. Unprefixed names do not resolve from mmseg's scope, so always write the prefix.
"""

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = 'mm_tuning_plugin'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}' for location in locations],
    )


RUNNERS = _child('runner', ROOT_RUNNERS, 'engine')
HOOKS = _child('hook', ROOT_HOOKS, 'engine', 'benchmark.worker.observe_hook')
DATASETS = _child('dataset', ROOT_DATASETS, 'datasets')
DATA_SAMPLERS = _child('data sampler', ROOT_DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', ROOT_TRANSFORMS, 'datasets', 'proxies')
MODELS = _child('model', ROOT_MODELS, 'models', 'losses', 'paper', 'proxies')
METRICS = _child('metric', ROOT_METRICS, 'evaluation')
WEIGHT_INITIALIZERS = _child('weight initializer', ROOT_WEIGHT_INITIALIZERS, 'models')
REGISTRIES = (
    RUNNERS, HOOKS, DATASETS, DATA_SAMPLERS, TRANSFORMS, MODELS, METRICS, WEIGHT_INITIALIZERS,
)  # fmt: skip
