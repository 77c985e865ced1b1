"""The worked example runs as its README says, and what it claims is so."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from example_runs import ROOT, run_example

from torch_warmstart import cli

pytest.importorskip("h5py")

FOLDER = ROOT / "examples" / "port_keras"
VERIFY = "verify model:Reader recorded.npz --checkpoint reader.keras --rules rules.toml"


class Run(NamedTuple):
    code: int
    output: str


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example, to be changed, as the working directory, and modules imported from there."""
    folder = shutil.copytree(FOLDER, tmp_path / "port_keras")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for name in ("model", "port"):  # not another example's
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield folder
    for name in ("model", "port"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def printed() -> str:
    run = Run(*run_example(FOLDER / "port.py"))
    assert run.code == 0, run.output
    return " ".join(run.output.split())


@pytest.mark.parametrize(
    "text",
    [
        "22 variables: 11 converted, 9 renamed, 2 kept",
        "Compare: conv1 and 1 other layer: it pads both sides alike",
        "Compare: norm1 and 1 other layer: eps=1e-05",
        "departs from the record in 6 of 6 places; the first is 'conv1'.",
        "The port agrees with the record in 6 places.",
        '"lstm." = "bidirectional/"',
    ],
)
def test_it_prints(printed: str, text: str) -> None:
    assert text in printed


def test_every_name_is_proposed_and_none_is_low(printed: str) -> None:
    assert "20 suggestions by confidence: 10 high, 10 medium; 2 found by themselves" in printed


def test_nothing_is_left_to_compare_once_it_is_written_as_keras_has_it(printed: str) -> None:
    assert printed.count("Compare:") == 2


def test_it_reads_what_is_there(printed: str) -> None:
    read = re.findall(r"\d+", printed.partition("there is read")[2])
    assert len(read) == 2 * 4
    assert read[::2] == read[1::2]


def test_the_command_of_the_readme_passes(copied: Path, capsys: pytest.CaptureFixture) -> None:
    assert f"    torch-warmstart {VERIFY}\n" in (copied / "README.md").read_text(encoding="utf-8")
    assert cli.main(VERIFY.split()) == 0
    assert "agrees with the record in 6 places" in capsys.readouterr().out


def test_the_command_fails_for_another_record(copied: Path, capsys: pytest.CaptureFixture) -> None:
    with np.load("recorded.npz") as arrays:
        record = dict(arrays)
    record["layers/norm2"] *= 1.001
    np.savez("recorded.npz", **record)
    assert cli.main(VERIFY.split()) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "the first is 'norm2', after 'conv2' still agreed" in printed


def test_it_fails_if_the_port_is_not_keras(copied: Path, capsys: pytest.CaptureFixture) -> None:
    model = copied / "model.py"
    model.write_text(model.read_text(encoding="utf-8").replace("eps=1e-3", "eps=1e-4"))
    assert importlib.import_module("port").main() == 1
    assert "the first is 'norm1', after 'conv1' still agreed" in capsys.readouterr().out


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 400_000
