import subprocess
import sys

import mm_tuning_plugin.functional as functional


def test_import_loads_nothing_of_openmmlab_nor_opencv():
    code = (
        'import sys, mm_tuning_plugin.functional\n'
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert 'torch' in loaded
    assert not loaded & {'mmengine', 'mmcv', 'mmseg', 'cv2', 'scipy', 'sklearn', 'matplotlib'}


def test_all_public_names_resolve_and_are_documented():
    for name in functional.__all__:
        assert getattr(functional, name).__doc__, name
