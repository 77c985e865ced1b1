"""`staging="memory"`: all that is read is there before the first write. `memory_limit`."""

from __future__ import annotations

import os

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings
from torch_warmstart.execution import commit

OLD, NEW = ["a", "b", "c", "d", "e"], ["e", "new", "b", "a"]
INFO = {"table.weight": VocabInfo(NEW, old_vocab=OLD)}


class Net(nn.Module):
    def __init__(self, rows: int = 4, dtype: torch.dtype = torch.float32, out: int = 2):
        super().__init__()
        self.one = nn.Linear(3, out, dtype=dtype)
        self.table = nn.Embedding(rows, 3, dtype=dtype)


def _old() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Net(5).state_dict()


def _before_the_first_write(monkeypatch: pytest.MonkeyPatch, act) -> None:
    finish, calls = commit.RollForward.finish, []

    def disturbed(self):
        if not calls:
            calls.append(act())
        finish(self)

    monkeypatch.setattr(commit.RollForward, "finish", disturbed)


def _check(model: nn.Module, old: dict[str, torch.Tensor]) -> None:
    assert torch.equal(model.one.weight, old["one.weight"].to(model.one.weight.dtype))
    rows = old["table.weight"].to(model.table.weight.dtype)
    wanted = [rows[4], torch.zeros_like(rows[0]), rows[1], rows[0]]
    assert torch.equal(model.table.weight, torch.stack(wanted))


@pytest.mark.parametrize("act", ["zero", "cut"])
@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_becomes_of_a_file_during_the_commit_makes_no_difference(
    tmp_path, monkeypatch, act, is_safe, dtype
):
    monkeypatch.setattr("torch_warmstart.storage.leases.Leases._take", lambda *_: None)
    monkeypatch.setattr("torch_warmstart.execution.watching.is_safe", lambda _: is_safe)
    path, old = tmp_path / "old.safetensors", _old()
    safetensors.torch.save_file(old, path)

    def change() -> None:
        with open(path, "r+b") as file:
            if act == "cut":
                file.truncate(64)
            else:
                file.seek(200)
                file.write(bytes(os.path.getsize(path) - 200))

    _before_the_first_write(monkeypatch, change)
    model = Net(dtype=dtype)
    tws.warm_start(
        model, WarmStartSettings(str(path), var_name_to_vocab_info=INFO), staging="memory"
    )
    _check(model, old)


def test_tensors_in_memory_are_read_before_too(monkeypatch):
    old = _old()
    kept = {name: tensor.clone() for name, tensor in old.items()}
    _before_the_first_write(monkeypatch, lambda: [tensor.zero_() for tensor in old.values()])
    model = Net()
    plan = tws.plan_warm_start(model, WarmStartSettings(old, var_name_to_vocab_info=INFO))
    tws.apply_plan(plan, staging="memory")
    _check(model, kept)


def test_rows_that_stay_and_slots_and_a_vocabulary_of_which_nothing_is_left():
    old, model = _old(), Net()
    source, optimizer = Net(5), torch.optim.Adam(model.parameters())
    source.load_state_dict(old)
    teacher = torch.optim.Adam(source.parameters())
    sum(p.sum() for p in source.parameters()).backward()
    teacher.step()
    saved = {"model": source.state_dict(), "optimizer": teacher.state_dict()}
    info = {"table.weight": VocabInfo(NEW, old_vocab=OLD, backup_initializer="keep")}
    results = []
    for staging in ("none", "memory"):
        torch.manual_seed(2)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters())
        tws.warm_start(
            model,
            WarmStartSettings(saved, var_name_to_vocab_info=info),
            optimizer=optimizer,
            staging=staging,
        )
        state = optimizer.state[model.table.weight]
        results.append([*model.state_dict().values(), state["exp_avg"], state["exp_avg_sq"]])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    gone = {"table.weight": VocabInfo(["x", "y", "z", "w"], old_vocab=OLD)}
    with pytest.warns(tws.WarmStartWarning):
        tws.warm_start(model, WarmStartSettings(old, var_name_to_vocab_info=gone), staging="memory")
    assert not model.table.weight.any()


def _refused(match: str, info: VocabInfo, staging: str = "memory", limit: object = None) -> None:
    model = Net(out=2_000)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(tws.SettingsError, match=match):
        tws.warm_start(
            model,
            WarmStartSettings(Net(5, out=2_000), var_name_to_vocab_info={"table.weight": info}),
            staging=staging,
            memory_limit=limit,
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_limit_refuses_before_anything_is_written():
    plain = VocabInfo(NEW, old_vocab=OLD)
    # Of the layer 2,000 x 3 and 2,000 numbers, of the table 3 rows of 3, in four bytes each.
    _refused("staging='memory' takes 32,036 bytes, .* is 32,035. Do", plain, limit=32_035)
    made = VocabInfo(NEW, old_vocab=OLD, backup_initializer=nn.init.normal_)
    _refused("table.weight: .* takes 48 bytes, .* is 47. Take one of tws.init", made, limit=47)
    _refused("To move rows takes .* is 1. To", plain, limit=1)
    for limit in (32_036, np.int64(32_036)):
        tws.warm_start(
            Net(out=2_000),
            WarmStartSettings(Net(5, out=2_000), var_name_to_vocab_info=INFO),
            staging="memory",
            memory_limit=limit,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"staging": "disk"},
        {"limit": "1 GB"},
        {"limit": -1},
        {"limit": np.int64(-1)},
        {"limit": True},
    ],
)
def test_what_is_neither(wrong):
    _refused("staging is|memory_limit is", VocabInfo(NEW, old_vocab=OLD), **wrong)
