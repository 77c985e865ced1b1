"""No model of the zoo is silently wrong in any format, and none is refused but for a listed reason.

All models in all formats but SavedModels, which take long to be written; with
TORCH_WARMSTART_ZOO=whole (`make zoo`) in those too. `refused.txt` lists the cells that are refused,
with the reason of each, and is read as a whole: a cell that is refused and not listed is a failure,
and so is one that is listed and not refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from zoo import cells
from zoo.models import ZOO

LIBRARIES = ("keras", "tf_keras")
IS_WHOLE = os.environ.get("TORCH_WARMSTART_ZOO") == "whole"
FORMATS = cells.FORMATS if IS_WHOLE else cells.FORMATS[:-1]
REFUSED = Path(__file__).parent / "refused.txt"
ALL = {
    (library, animal.name, suffix)
    for animal in ZOO
    for library in animal.libraries
    for suffix in cells.FORMATS
}


def listed() -> dict[tuple[str, str, str], str]:
    """The cells that are refused: `library format: animal animal ...` below the reason of each."""
    found: dict[tuple[str, str, str], str] = {}
    reason = ""
    for line in REFUSED.read_text().splitlines():
        if line.startswith("#"):
            reason = line.lstrip("# ")
        elif line:
            where, _, animals = line.partition(": ")
            library, suffix = where.split()
            found |= {(library, animal, suffix): reason for animal in animals.split()}
    return found


def test_the_names_of_animals_are_one_each():
    assert len({animal.name for animal in ZOO}) == len(ZOO) >= 60


def test_at_most_a_tenth_is_refused_each_for_a_reason():
    refused = listed()
    assert refused.keys() <= ALL
    assert all(refused.values())
    assert len(refused) <= len(ALL) / 10


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_silently_wrong(library: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    keras = pytest.importorskip(library)
    pytest.importorskip("h5py")
    outcomes = {}
    for animal in (animal for animal in ZOO if library in animal.libraries):
        tape = cells.build(animal, keras)
        for suffix in FORMATS:
            path = cells.save(tape, library, suffix, tmp_path_factory.mktemp("zoo"))
            outcome = cells.outcome(animal, tape, library, suffix, path)
            outcomes[library, animal.name, suffix] = outcome
    print(f"{library}: {cells.count(outcomes)}")
    wrong = [f"{cell}: {found.why}" for cell, found in outcomes.items() if found.verdict == "wrong"]
    assert not wrong, "\n".join(wrong)
    possible = {animal.name for animal in ZOO if not animal.cannot}
    done = {cell[1] for cell, found in outcomes.items() if found.verdict == "same"}
    assert done <= possible, "torch has such a layer after all"
    refused = {cell for cell, found in outcomes.items() if found.verdict == "refused"}
    expected = {cell for cell in listed() if cell in outcomes}
    unlisted = [f"{cell}: {outcomes[cell].why}" for cell in sorted(refused - expected)]
    assert not unlisted, "\n".join(unlisted)
    assert not expected - refused, f"these work now: {sorted(expected - refused)}"
