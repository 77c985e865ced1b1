"""How many Python functions a start calls: what it takes for each variable, table and entry.

Counted, not timed, so that it is the same on a busy machine. Each limit is about 1.4 times what was
counted when it was written (Python 3.11): a new check that looks at every variable may cost a
little, and a loop over entries or over pairs of variables is found here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import torch_warmstart as tws


def _calls_of(work: Callable[[], Any]) -> int:
    """Functions that are called, and generators that go on, of this thread."""
    count = 0

    def called(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    work()  # what is imported or cached by the first one
    before = sys.getprofile()
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def _for_one_more(work: Callable[[int], Any], few: int, many: int) -> float:
    counts = [_calls_of(lambda size=size: work(size)) for size in (few, many)]
    return (counts[1] - counts[0]) / (many - few)


def _entries(start: int, count: int) -> list[str]:
    return [f"token_{number}" for number in range(start, start + count)]


def _write(path: Path, entries: Iterable[str]) -> Path:
    path.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return path


def _tables(folder: Path, tables: int, rows: int) -> Any:
    """A start of tables that each have vocabularies of their own, half of the entries new."""
    named = folder / f"{tables}x{rows}"
    model = nn.ModuleDict({f"t{at}": nn.Embedding(rows, 2) for at in range(tables)})
    if not named.exists():
        named.mkdir()
        safetensors.torch.save_file(model.state_dict(), named / "model.safetensors")
        for at in range(tables):
            _write(named / f"old{at}.txt", _entries(0, rows))
            _write(named / f"new{at}.txt", _entries(rows // 2, rows))
    infos = {
        f"t{at}.weight": tws.VocabInfo(named / f"new{at}.txt", old_vocab=named / f"old{at}.txt")
        for at in range(tables)
    }
    settings = tws.WarmStartSettings(named / "model.safetensors", var_name_to_vocab_info=infos)
    return tws.warm_start(model, settings)


def test_a_table_more(tmp_path: Path) -> None:
    assert _for_one_more(lambda tables: _tables(tmp_path, tables, 300), 10, 40) < 2_000


@pytest.mark.parametrize("rows", [500, 10_000], ids=["by-dict", "by-index"])
def test_an_entry_more(rows: int, tmp_path: Path) -> None:
    assert _for_one_more(lambda size: _tables(tmp_path, 1, size), rows, 2 * rows) < 0.2


def _layers(count: int) -> nn.ModuleDict:
    return nn.ModuleDict({f"layer_{at}": nn.Linear(2, 2) for at in range(count)})


def _plain(folder: Path, layers: int) -> Any:
    model, path = _layers(layers), folder / f"{layers}.safetensors"
    if not path.exists():
        safetensors.torch.save_file(model.state_dict(), path)
    return tws.warm_start(model, tws.WarmStartSettings(path))


def test_a_layer_more(tmp_path: Path) -> None:
    assert _for_one_more(lambda layers: _plain(tmp_path, layers), 20, 220) < 1_400


def _with_slots(folder: Path, layers: int) -> Any:
    model, path = _layers(layers), folder / f"{layers}.pt"
    optimizer = torch.optim.Adam(model.parameters())
    if not path.exists():
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        optimizer = torch.optim.Adam(model.parameters())
    return tws.warm_start(model, tws.WarmStartSettings(path), optimizer=optimizer)


def test_a_layer_more_with_its_slots(tmp_path: Path) -> None:
    assert _for_one_more(lambda layers: _with_slots(tmp_path, layers), 20, 220) < 7_600
