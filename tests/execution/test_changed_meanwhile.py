"""What the caller changes between a plan and its application, without a new tensor."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import torch_warmstart as tws

TAKEN = {"weight": torch.ones(4, 3), "bias": torch.arange(4.0)}


def _plan(source=TAKEN):
    model = nn.Linear(3, 4)
    return model, tws.plan_warm_start(model, dict(source))


def _refused(plan, match):
    before = {name: tensor.clone() for name, tensor in plan.model.state_dict().items()}
    with pytest.raises(tws.SettingsError, match=match):
        tws.apply_plan(plan)
    after = plan.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_parameter_of_another_shape_is_refused():
    model, plan = _plan()
    model.bias.data = torch.zeros(2, 4)  # onto which 4 numbers could be spread
    _refused(plan, r"bias has changed .* float32 \[2, 4\] now, and was float32 \[4\]")


def test_a_parameter_of_another_dtype_is_refused():
    model, plan = _plan()
    model.half()
    _refused(plan, r"weight has changed .* float16 \[4, 3\] now")


def test_counts_do_not_wrap_in_a_buffer_that_was_narrowed():
    model = nn.Module()
    model.register_buffer("count", torch.zeros(2, dtype=torch.int64))
    source = {"count": torch.tensor([300, 300_000])}
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(source, ["count"]))
    model.count.data = torch.zeros(2, dtype=torch.int8)
    _refused(plan, "count has changed")


def test_a_parameter_that_was_expanded_is_refused_before_anything_is_written():
    model, plan = _plan()
    model.weight.data = torch.zeros(1, 3).expand(4, 3)
    _refused(plan, "weight has changed .* is expanded")


def test_a_tensor_in_memory_of_another_shape_is_refused():
    source = {name: tensor.clone() for name, tensor in TAKEN.items()}
    _, plan = _plan(source)
    source["weight"].data = torch.ones(1, 3)
    _refused(plan, "'weight' of <state_dict> has changed .* another shape or dtype")


def test_a_tensor_in_memory_of_another_dtype_is_refused():
    source = {name: tensor.clone() for name, tensor in TAKEN.items()}
    _, plan = _plan(source)
    source["bias"].data = torch.ones(4, dtype=torch.complex64)
    _refused(plan, "'bias' of <state_dict>")


def test_what_is_kept_may_change():
    model = nn.Linear(3, 4)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(TAKEN, "weight"))
    model.bias.data = torch.zeros(4, dtype=torch.float16)
    tws.apply_plan(plan)
    assert torch.equal(model.weight, TAKEN["weight"])


def test_the_same_parameter_may_lie_elsewhere():
    model, plan = _plan()
    model.weight.data = torch.zeros(3, 4).t()
    tws.apply_plan(plan)
    assert torch.equal(model.weight, TAKEN["weight"])
    assert model.weight.stride() == (1, 4)


def test_a_plan_is_for_its_own_model_and_is_not_pickled():
    _, plan = _plan()
    with pytest.raises(tws.SettingsError, match="very model and optimizer that it was made for"):
        pickle.dumps(plan)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["shallow", "deep"])
def test_a_copy_of_a_plan_is_that_plan(copied):
    model, plan = _plan()
    report = tws.apply_plan(copied(plan))
    assert torch.equal(model.bias, TAKEN["bias"])
    assert pickle.loads(pickle.dumps(report)).missing_keys == ()
