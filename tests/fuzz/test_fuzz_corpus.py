"""Hostile files: those of fuzz/corpus, those that fuzz/bombs builds, and a short fuzzing run.

Each must be read or refused within the limits of fuzz/worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fuzz import bombs, cases, fuzz, seeds
from fuzz.bombs import BOMBS
from fuzz.cases import Case
from fuzz.fuzz import CORPUS
from fuzz.worker import Outcome, run_one

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc"),
    pytest.mark.filterwarnings("ignore"),  # of libraries, about the files that are broken
]

# What is wrong and known, by the name of a bomb or of a folder of the corpus.
_DEFLATE = "deflate unfolds up to 1,032 times, and so much is allowed"
KNOWN: dict[str, str] = {
    "packed_pickle": _DEFLATE,
    "packed_npz": _DEFLATE,
    "h5_packed": _DEFLATE,
}

_SMOKE_INPUTS = 300


def _params(names: list[str]) -> list[object]:
    def marks(name: str) -> list[pytest.MarkDecorator]:
        return [pytest.mark.xfail(reason=KNOWN[name], strict=True)] if name in KNOWN else []

    return [pytest.param(name, marks=marks(name)) for name in names]


def _run(case: Case, folder: Path) -> Outcome:
    if case.format not in seeds.available():
        pytest.skip(f"{case.format} is not read")
    return run_one(case, folder, _expected(case))


def _expected(case: Case) -> fuzz.Values:
    known = seeds.SEEDS[case.format]
    return fuzz.expected_values(case) if case.seed in known else {}


@pytest.mark.parametrize("name", _params(sorted(path.name for path in CORPUS.iterdir())))
def test_a_file_of_the_corpus_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcome = _run(cases.load(CORPUS / name), tmp_path / "case")

    assert outcome.finding is None


@pytest.mark.parametrize("name", _params(list(BOMBS)))
def test_a_bomb_does_no_harm(name: str, tmp_path: Path) -> None:
    try:
        case = bombs.BOMBS[name]()
    except ImportError as error:
        pytest.skip(str(error))
    outcome = _run(case, tmp_path / "case")

    assert outcome.finding is None


@pytest.mark.parametrize("format", seeds.available())
def test_damaged_files_are_read_or_refused(format: str) -> None:
    count = _SMOKE_INPUTS // len(seeds.available())
    tally = fuzz.fuzz_format(format, count=count, seed=1)

    assert not [(finding, case.note) for case, finding in tally.findings.values()]
    assert tally.tried == count
