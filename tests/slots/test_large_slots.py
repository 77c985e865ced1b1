"""Slots as large as tables, whose zeros the system gives: they are as any others afterwards."""

from __future__ import annotations

import pickle

import pytest
import torch

import torch_warmstart as tws

ROWS, COLUMNS = 20_000, 64  # 5 MB


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(1)
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(ROWS, COLUMNS)})
    optimizer = torch.optim.Adam(model.parameters())
    model["table"](torch.arange(ROWS)).square().sum().backward()
    optimizer.step()
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return path, optimizer.state[model["table"].weight]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_follow_their_rows_and_new_ones_are_zeros(saved, dtype):
    path, before = saved
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(ROWS, COLUMNS, dtype=dtype)})
    optimizer = torch.optim.Adam(model.parameters())
    info = tws.VocabInfo(range(100, ROWS + 100), old_vocab=range(ROWS))
    settings = tws.WarmStartSettings(path, var_name_to_vocab_info={"table.weight": info})
    tws.warm_start(model, settings, optimizer=optimizer)
    weight = model["table"].weight
    state = optimizer.state[weight]
    for name in ("exp_avg", "exp_avg_sq"):
        assert (state[name].dtype, state[name].stride()) == (dtype, weight.stride())
        assert torch.equal(state[name][:-100], before[name][100:].to(dtype))
        assert not state[name][-100:].any()
    model["table"](torch.arange(ROWS)).sum().backward()
    optimizer.step()
    assert state["exp_avg"][-100:].any()
    again = pickle.loads(pickle.dumps(optimizer.state_dict()))["state"][0]
    assert torch.equal(again["exp_avg"], state["exp_avg"])
    assert torch.equal(state["exp_avg"].share_memory_(), again["exp_avg"])
