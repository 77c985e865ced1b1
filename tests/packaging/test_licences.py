"""docs/licences.md names every pinned distribution that the package or an extra installs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("licences", ROOT / "docs/site/licences.py")
assert SPEC is not None
assert SPEC.loader is not None
licences = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(licences)

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/licences.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [a-z]", line) and not line.startswith("| distribution")
]
EXPECTED = licences.installed_by().keys() & licences.pinned().keys()


def test_every_pinned_distribution_that_is_installed_is_listed_with_its_version():
    assert {name: version for name, version, *_ in ROWS} == {
        name: licences.pinned()[name] for name in sorted(EXPECTED)
    }


def test_the_package_and_its_extras_are_read_from_pyproject():
    by = licences.installed_by()
    assert by["torch"] == [""]
    assert by["h5py"] == ["keras", "cuda", "test"]
    assert len(EXPECTED) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_licence_is_what_the_installed_distribution_states(row):
    name, version, licence, by = row
    assert licence not in ("", "None", "UNKNOWN")
    assert by
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if found.split("+")[0] == version:
        assert licences.licence(name) == licence
