"""The nights of docs/recommenders.md's ranker, against a slow copy: a dict for every entry.

The settings are the page's own block. Every night each row, each column of a feature, each class
and each of Adagrad's sums is compared, bit for bit, with what a dict remembers of it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws

PAGE = Path(__file__).parents[2] / "docs" / "recommenders.md"
NIGHTS, DIM, HIDDEN, BEGIN = 4, 3, 5, 0.25  # BEGIN: of Adagrad's sums
ADDED, GONE = 2, 3  # the night a feature comes, and that on which another goes

Facts = dict[Any, tuple[torch.Tensor, torch.Tensor]]  # by what it is: values, and sums


def block() -> str:
    text = PAGE.read_text(encoding="utf-8").partition("## Many tables, night after night")[2]
    return text.partition("```python\n")[2].partition("```")[0]


class Ranker(nn.Module):
    def __init__(self, sizes: dict[str, int], num_classes: int, dim: int = DIM) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(n, dim) for name, n in sizes.items()})
        self.first = nn.Linear(dim * len(sizes), HIDDEN)
        self.head = nn.Linear(HIDDEN, num_classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = [table(ids[:, at]) for at, table in enumerate(self.tables.values())]
        return self.head(torch.relu(self.first(torch.cat(rows, 1))))


def features_of(night: int) -> list[str]:
    names = [f"C{number}" for number in range(1, 27)]
    if night >= ADDED:
        names.insert(0, "C0")  # in front, so that every column of the others moves
    return [name for name in names if not (night >= GONE and name == "C13")]


def write_vocabularies(night: int, draw: random.Random) -> dict[str, list[str]]:
    """Today's entries of each feature, some of yesterday's among them, in any order."""
    folder = Path(str(night))
    folder.mkdir()
    entries = {
        name: draw.sample([f"{name}-{number}" for number in range(12)], draw.randint(7, 10))
        for name in features_of(night)
    }
    entries["classes"] = [f"class {number}" for number in range(3 if night < ADDED else 4)]
    draw.shuffle(entries["classes"])
    for name, listed in entries.items():
        (folder / f"{name}.txt").write_text("".join(f"{entry}\n" for entry in listed))
    return entries


def train(model: Ranker, optimizer: torch.optim.Optimizer, entries: dict[str, list[str]]) -> None:
    sizes = torch.tensor([table.num_embeddings for table in model.tables.values()])
    for _ in range(3):
        ids = (torch.rand(32, len(sizes)) * sizes).long()
        loss = nn.functional.cross_entropy(
            model(ids), torch.randint(len(entries["classes"]), (32,))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def facts_of(model: Ranker, optimizer: torch.optim.Optimizer, entries: Any) -> Facts:
    """What every entry, feature and class has: by its name, not by where it stands."""
    facts: Facts = {}

    def keep(key: Any, parameter: nn.Parameter, *at: Any) -> None:
        sums = optimizer.state[parameter]["sum"]
        facts[key] = parameter.detach()[at].clone(), sums[at].clone()

    for number, (name, table) in enumerate(model.tables.items()):
        for row, entry in enumerate([*entries[name], "OOV"]):
            keep((name, entry), table.weight, row)
        columns = slice(number * DIM, (number + 1) * DIM)
        keep((name, "columns"), model.first.weight, slice(None), columns)
    for row, entry in enumerate(entries["classes"]):
        keep(entry, model.head.weight, row)
        keep((entry, "bias"), model.head.bias, row)
    keep("first.bias", model.first.bias)
    return facts


def test_the_settings_take_fifteen_lines_at_most() -> None:
    lines = block().splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("infos = {"))
    end = next(at for at, line in enumerate(lines) if line.startswith("settings = "))
    assert len(lines[begin : end + 1]) <= 15


def test_every_night_is_what_a_dict_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    draw, before, seen = random.Random(0), {}, {"kept": 0, "new": 0, "dropped": 0}
    for night in range(NIGHTS):
        entries = write_vocabularies(night, draw)
        sizes = {name: len(entries[name]) + 1 for name in features_of(night)}
        model = Ranker(sizes, len(entries["classes"]))
        optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=BEGIN)
        if night:
            known = {
                "model": model,
                "optimizer": optimizer,
                "yesterday": str(night - 1),
                "today": str(night),
                "features": features_of(night),
                "features_before": features_of(night - 1),
                "dim": DIM,
            }
            fresh = {name: p.detach().clone() for name, p in model.named_parameters()}
            exec(block(), known)
            compare(facts_of(model, optimizer, entries), before, fresh, seen)
            assert isinstance(known["report"], tws.WarmStartReport)
        train(model, optimizer, entries)
        before = facts_of(model, optimizer, entries)
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{night}/model.pt"
        )
    assert seen["kept"] > 200
    assert min(seen["new"], seen["dropped"]) > 50


def compare(found: Facts, before: Facts, fresh: dict[str, torch.Tensor], seen: Any) -> None:
    for key, (values, sums) in found.items():
        is_added = key[0] == "C0" and ("C0", "OOV") not in before
        if key in before:
            assert torch.equal(values, before[key][0]), key
            assert torch.equal(sums, before[key][1]), key
        else:
            # A table that the checkpoint does not have stays as the model has made it.
            kept = fresh["tables.C0.weight"].unbind() if is_added and key[1] != "columns" else ()
            zeros = not values.any()
            assert zeros or any(torch.equal(values, row) for row in kept), key
            assert sums.eq(BEGIN).all(), key
        seen["kept" if key in before else "new"] += 1
    seen["dropped"] += len(before.keys() - found.keys())


def test_the_settings_file_of_the_page_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8").partition("## Many tables, night after night")[2]
    Path("warmstart.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    before, now = {"city": 2, "item": 2, "os": 1}, {"city": 3, "device": 2, "item": 2}
    days = {"yesterday": {**before, "classes": 2}, "today": {**now, "classes": 3}}
    for day, sizes in days.items():
        Path(day).mkdir()
        for name, size in sizes.items():
            entries = [f"{name}-{at}" for at in reversed(range(size))]
            Path(f"{day}/{name}.txt").write_text("\n".join(entries) + "\n")
    old = Ranker({name: size + 1 for name, size in before.items()}, 2, dim=16)
    new = Ranker({name: size + 1 for name, size in now.items()}, 3, dim=16)
    torch.save(old.state_dict(), "yesterday/model.pt")
    report = tws.warm_start(new, tws.load_settings("warmstart.toml"))
    assert torch.equal(new.tables["city"].weight[1:3], old.tables["city"].weight[:2])
    assert torch.equal(new.tables["city"].weight[3], old.tables["city"].weight[2])  # OOV
    assert torch.equal(new.first.weight[:, :16], old.first.weight[:, :16])
    assert torch.equal(new.first.weight[:, 32:], old.first.weight[:, 16:32])
    assert torch.equal(new.head.bias[1:], old.head.bias)
    assert report["tables.device.weight"].state == "kept"
