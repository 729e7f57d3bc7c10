"""Rebuilding the package changes no fingerprint, so finished tunings stay valid."""

import fingerprints
import pytest

from mm_tuning_plugin.cli.sweep import find_configs

PATHS = find_configs(fingerprints.OWN)


def check(paths):
    known = fingerprints.known()
    found = fingerprints.all_fingerprints(paths)
    names = {path.relative_to(fingerprints.OWN).as_posix() for path in paths}
    assert found == {name: known[name] for name in known.keys() & names}


def test_a_sample_of_mmsegs_configs():
    check(PATHS[::24])


@pytest.mark.walk
def test_all_of_mmsegs_configs():
    check(PATHS)
    assert len(fingerprints.known()) > 600
