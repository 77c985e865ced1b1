"""The nightly loop of docs/recommenders.md, and docs/vocabularies.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import torch_warmstart as tws

MONDAY = range(10, 22)
DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


class TwoTower(torch.nn.Module):
    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.item = torch.nn.Embedding(num_items, 4)
        self.bias = torch.nn.Embedding(num_items, 1)


def train(vocab: tws.Vocabulary, path: str) -> TwoTower:
    """A model whose rows say whose they are, saved with its optimizer."""
    model = TwoTower(len(vocab))
    optimizer = torch.optim.Adagrad(model.parameters())
    (model.item.weight.sum() + model.bias.weight.sum()).backward()
    optimizer.step()
    for embedding in (model.item, model.bias):
        for row, entry in enumerate(vocab.entries):
            torch.nn.init.constant_(embedding.weight.data[row], float(entry or 0))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return model


def test_the_page_on_vocabularies_runs_from_its_first_block_to_its_last() -> None:
    known: dict[str, object] = {}
    for block in blocks("vocabularies.md"):
        exec(block, known)


def test_the_nightly_loop_is_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    sunday, monday = tws.Vocabulary.load([7, 8]), tws.Vocabulary.load(list(MONDAY))
    sunday.save("sunday.parquet")
    monday.save("monday.parquet")
    train(monday, "monday.pt")
    counts = {"entry": [10, 12, 30, 31], "count": [9, 3, 6, 2]}
    pyarrow.parquet.write_table(pyarrow.table(counts), "tuesday_counts.parquet")

    known: dict[str, object] = {"TwoTower": TwoTower, "torch": torch}
    evening, beside, diff, back, *_ = blocks("recommenders.md")
    exec(evening.replace("import torch_warmstart as tws\n", ""), known | {"tws": tws}, known)
    model, new = known["model"], known["new"]
    assert set(new.entries) >= {10, 12, 30}
    assert 31 not in set(new.entries)  # seen twice, and five times are asked for
    for row, entry in enumerate(new.entries):
        expected = float(entry) if entry in MONDAY else 0.0
        assert model.item.weight.detach()[row].eq(expected).all(), entry
    sums = known["optimizer"].state[model.item.weight]["sum"]
    stayed = [row for row, entry in enumerate(new.entries) if entry in MONDAY]
    assert sums[stayed].eq(1).all()

    train(new, "tuesday.pt")
    newer = tws.Vocabulary.load([*reversed([e for e in new.entries if e]), 99])
    model = TwoTower(len(newer))
    exec(beside, {"tws": tws, "new": new, "newer": newer, "model": model})
    assert model.item.weight.detach()[:, 0].tolist()[:-1] == [float(e) for e in newer.entries][:-1]
    exec(diff, {"tws": tws})
    assert "new" in capsys.readouterr().out

    train(sunday, "last_week.pt")
    tws.save_vocabularies("last_week.pt", {"item.weight": sunday})
    train(tws.Vocabulary.load([5]), "last_month.pt")
    tws.Vocabulary.load([5]).save("last_month.parquet")
    returned = tws.Vocabulary.load([10, 7, 5, 6])
    info = eval(back.strip(), {"tws": tws, "new": returned})
    model = TwoTower(4)
    settings = tws.WarmStartSettings("tuesday.pt", None, {"item.weight": info})
    tws.warm_start(model, settings)
    assert model.item.weight.detach()[:, 0].tolist() == [10, 7, 5, 0]
