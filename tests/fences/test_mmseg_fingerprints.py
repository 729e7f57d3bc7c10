"""Rebuilding the package changes no fingerprint, so finished tunings stay valid."""

import fingerprints
import pytest

from mm_tuning_plugin.cli.sweep import find_configs

PATHS = find_configs(fingerprints.OWN)


def check(paths):
    known = fingerprints.known()
    found = fingerprints.all_fingerprints(paths)
    names = {path.relative_to(fingerprints.OWN).as_posix() for path in paths}
    # Some configs need mmpretrain, which imports only if another test has stubbed torchvision.
    expected = {name: known[name] for name in known.keys() & names}
    assert {name: found.get(name) for name in expected} == expected


def test_a_sample_of_mmsegs_configs():
    check(PATHS[::24])


@pytest.mark.walk
def test_all_of_mmsegs_configs():
    check(PATHS)
    assert len(fingerprints.known()) > 600
