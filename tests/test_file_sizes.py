"""No file of the tests is so long that its subject is lost; each has a name of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))
MOST_LINES = 600
LONGER = {"parity/make_estimator_fixtures.py": "makes fixtures, alone, with another TensorFlow"}


def test_no_file_is_long():
    sizes = {
        path.relative_to(TESTS).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert {name for name, size in sizes.items() if size > MOST_LINES} == {*LONGER}


def test_no_two_files_have_one_name():
    """All lie on one path for imports: of two, only one would be found."""
    names = Counter(path.name for path in FILES)
    shared = {name for name, count in names.items() if count > 1}
    assert shared <= {"conftest.py", "__init__.py"}
