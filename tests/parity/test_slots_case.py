"""Case 17 of TensorFlow's own tests of `warm_start`: variables and slots by patterns."""

from __future__ import annotations

import pytest
import torch
from engines import model_of, write_checkpoint

import torch_warmstart as tws

ONES = [[1.0]] * 10


def test_17_patterns_select_variables_and_slots(tmp_path):
    """`v1` takes the slot `v1/Momentum` too; `v2[^/]` takes `v2` without its slot."""
    names = ("v1", "v1/Momentum", "v2", "v2/Momentum")
    prefix = write_checkpoint(tmp_path, dict.fromkeys(names, ONES))
    model = model_of({"v1": torch.zeros(10, 1), "v2": torch.zeros(10, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = tws.WarmStartSettings(prefix, ["v1", "v2[^/]"])
    tws.warm_start(model, settings, optimizer=optimizer)
    assert model.v1.tolist() == ONES
    assert optimizer.state[model.v1]["momentum_buffer"].tolist() == ONES
    assert model.v2.tolist() == ONES
    untouched = optimizer.state[model.v2].get("momentum_buffer")
    assert untouched is None or not untouched.any()


@pytest.mark.parametrize(
    ("pattern", "takes_slots"), [("^((?!Momentum).)*$", True), ("^((?!momentum_buffer).)*$", False)]
)
def test_a_pattern_that_excludes_slots_has_torchs_names(tmp_path, pattern, takes_slots):
    """TensorFlow's `v1/Momentum` is `v1/momentum_buffer` here, so its name excludes nothing."""
    prefix = write_checkpoint(tmp_path, dict.fromkeys(("v1", "v1/Momentum"), ONES))
    model = model_of({"v1": torch.zeros(10, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tws.warm_start(model, tws.WarmStartSettings(prefix, [pattern]), optimizer=optimizer)
    assert model.v1.tolist() == ONES
    assert bool(optimizer.state[model.v1]) is takes_slots
