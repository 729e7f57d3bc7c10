"""Self-supervised proxy tasks that train a backbone without labels, one module each.

Every module of this folder is imported here. A registered model with ``proxy_task = True`` is
trained as a proxy task, in a single stage.
"""

from mm_tuning_plugin.discovery import import_modules

import_modules(__name__, __path__)
