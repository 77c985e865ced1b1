"""An optimizer's state beside several entries with tensors that are alike: whose is it?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _trained(named):
    model = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.named_parameters() if named else model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.rand(parameter.shape)
    optimizer.step()
    return model.state_dict(), optimizer.state_dict()


TENSORS, STATE = _trained(named=False)
OTHERS = nn.Linear(2, 3).state_dict()


def _codes(source, entry, optimizer_entry=None):
    model = nn.Linear(2, 3)
    settings = tws.WarmStartSettings(source, entry=entry, optimizer_entry=optimizer_entry)
    plan = tws.plan_warm_start(model, settings, optimizer=torch.optim.Adam(model.parameters()))
    return [note.code for note in plan.notes]


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ({"actor": OTHERS, "critic": TENSORS, "critic_optimizer": STATE}, "actor"),
        ({"netG": OTHERS, "netD": TENSORS, "optD": STATE}, "netG"),
        ({"a": {"model": OTHERS}, "b": {"model": TENSORS, "optimizer": STATE}}, "a"),
        ({"one": OTHERS, "two": TENSORS, "optimizer": STATE}, "two"),
        ({"model": TENSORS, "model_ema": OTHERS, "optimizer": STATE}, "model_ema"),
    ],
)
def test_a_state_that_may_be_another_entrys_is_warned_of(source, entry):
    assert _codes(source, entry) == ["state-by-position"]
    path = "b/optimizer" if "b" in source else list(source)[-1]
    assert _codes(source, entry, optimizer_entry=path) == []


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ({"actor": OTHERS, "critic": TENSORS, "critic_optimizer": STATE}, "critic"),
        ({"netG": OTHERS, "netD": TENSORS, "optD": STATE}, "netD"),
        ({"a": {"model": OTHERS}, "b": {"model": TENSORS, "optimizer": STATE}}, "b"),
        ({"model": TENSORS, "old": OTHERS, "optimizer": STATE}, "model"),
        ({"policy": TENSORS, "target_policy": OTHERS, "optimizer": STATE}, "policy"),
        ({"policy": TENSORS, "policy_old": OTHERS, "optimizer": STATE}, "policy"),
        ({"actor": TENSORS, "reference": OTHERS, "optimizer": STATE}, "actor"),
        ({"one": TENSORS, "two": nn.Linear(3, 2).state_dict(), "optimizer": STATE}, "one"),
    ],
)
def test_where_it_lies_what_it_is_called_and_shapes_tell_whose_it_is(source, entry):
    assert _codes(source, entry) == []


def test_no_optimizer_changes_averages():
    source = {"net": TENSORS, "net_ema": OTHERS, "optimizer": STATE}
    assert _codes(source, "net") == ["averages-left-behind"]


@pytest.mark.parametrize("entry", ["a", "a/model", "b"])
def test_of_several_states_the_one_within_the_entry_is_taken(entry):
    source = {
        name: dict(zip(("model", "optimizer"), _trained(named=False), strict=True)) for name in "ab"
    }
    model = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    tws.warm_start(model, tws.WarmStartSettings(source, entry=entry), optimizer=optimizer)
    expected = source[entry[0]]["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(optimizer.state[model.weight]["exp_avg"], expected)


def test_of_several_states_that_lie_alike_none_is_taken():
    source = {"one": TENSORS, "optimizer_a": STATE, "optimizer_b": _trained(named=False)[1]}
    with pytest.raises(tws.PlanError, match="in several optimizers' states"):
        _codes(source, "one")


def test_the_error_gives_both_and_first_the_one_that_is_called_as_the_entry():
    states = {f"{name}_optimizer": _trained(named=False)[1] for name in ("actor", "critic")}
    with pytest.raises(tws.PlanError) as error:
        _codes({"actor": OTHERS, "critic": TENSORS, **states}, "critic")
    first, other = (f"optimizer_entry='{name}_optimizer'" for name in ("critic", "actor"))
    assert f"Say which one is meant: {first} or {other}." in str(error.value)


def test_names_of_the_parameters_do_not_tell_two_entries_apart():
    tensors, state = _trained(named=True)
    source = {"one": OTHERS, "two": tensors, "optimizer": state}
    assert _codes(source, "one") == ["state-by-position"]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_in_a_checkpoint_of_torch_distributed(tmp_path):
    import torch.distributed.checkpoint as dcp

    source = {"actor": OTHERS, "critic": TENSORS, "critic_optimizer": STATE}
    dcp.save(source, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert _codes(tmp_path / "dcp", "actor") == ["state-by-position"]
    assert _codes(tmp_path / "dcp", "critic") == []
