"""docs/tf-parity.md names tests that exist, and all of those that mirror TensorFlow's cases."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "tf-parity.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", DOC)))
MIRRORS = (
    "test_warm_starting_util",
    "test_slots_case",
    "test_load_and_remap",
    "test_estimators",
    "test_checkpoint_utils_and_bundle",
    "test_warmstart_embedding_matrix",
    "test_deviations",
)
NO_CASE = {("test_estimators", "test_the_fixtures_are_small_and_without_graphs")}


def functions_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_exists(file):
    named = {name for other, name in NAMED if other == file}
    assert named - functions_in(ROOT / file) == set()


@pytest.mark.parametrize("module", MIRRORS)
def test_every_mirrored_case_is_named(module):
    file = f"tests/parity/{module}.py"
    named = {name for other, name in NAMED if other == file}
    exempt = {name for other, name in NO_CASE if other == module}
    assert functions_in(ROOT / file) - named == exempt


def test_every_case_of_the_largest_suite_has_a_row():
    numbers = re.findall(r"^\| (\d+) \|", DOC, re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, 32))


def test_ids_of_deviations_are_unique():
    ids = re.findall(r"^\| `(D-[A-Z0-9-]+)` \|", DOC, re.MULTILINE)
    assert len(ids) > 20
    assert len(ids) == len(set(ids))


def test_deviations_that_the_differential_tests_know_have_a_row():
    files = [ROOT / "tests" / "parity" / name for name in ("deviations.py", "test_differential.py")]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    known = set(re.findall(r'"(D-[A-Z0-9-]+)"', source))
    assert known - set(re.findall(r"^\| `(D-[A-Z0-9-]+)` \|", DOC, re.MULTILINE)) == set()
