"""The slots of query, key and value that were layers of their own, for one weight and bias."""

from __future__ import annotations

import functools

import pytest
import torch
from attention_apart import HEADS, WIDTH, Apart
from torch import nn

import torch_warmstart as tws

ADAM = functools.partial(torch.optim.Adam, lr=0.01)
OPTIMIZERS = {
    "Adam": ADAM,
    "SGD": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "NAdam": functools.partial(torch.optim.NAdam, lr=0.01),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.01),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=0.01),
}


def _step(model, optimizer, seed):
    torch.manual_seed(seed)
    x, goal = torch.randn(2, 3, 5, WIDTH)
    optimizer.zero_grad()
    attention = model["attn"]
    found = attention(x) if isinstance(attention, Apart) else attention(x, x, x)[0]
    nn.functional.mse_loss(found, goal).backward()
    optimizer.step()
    return found.detach()


def _trained(make, key_bias=True, frozen=None, named=False):
    """The old model and its optimizer after two steps."""
    torch.manual_seed(0)
    old = nn.ModuleDict({"attn": Apart(key_bias=key_bias)})
    if frozen is not None:
        old.get_parameter(frozen).requires_grad_(False)
    its = make(old.named_parameters() if named else old.parameters())
    for seed in range(2):
        _step(old, its, seed)
    return old, its


def _new(make):
    new = nn.ModuleDict({"attn": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)})
    return new, make(new.parameters())


def _start(old, its, new, optimizer, **settings):
    source = {"model": old.state_dict(), "optimizer": its.state_dict()}
    return tws.warm_start(new, tws.WarmStartSettings(source, **settings), optimizer=optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("named", [False, True], ids=["by position", "by name"])
def test_both_go_on_the_same(name, named):
    old, its = _trained(OPTIMIZERS[name], named=named)
    new, optimizer = _new(OPTIMIZERS[name])
    report = _start(old, its, new, optimizer)
    assert not report.missing_keys
    for seed in range(2, 5):
        assert torch.allclose(
            _step(old, its, seed), _step(new, optimizer, seed), atol=1e-5, rtol=1e-4
        )


def test_a_key_without_a_bias_gets_zeros_there_too():
    old, its = _trained(ADAM, key_bias=False)
    new, optimizer = _new(ADAM)
    _start(old, its, new, optimizer)
    found = optimizer.state[new["attn"].in_proj_bias]
    query, value = (its.state[old["attn"].get_submodule(n).bias] for n in ("q_proj", "v_proj"))
    wanted = torch.cat([query["exp_avg"], torch.zeros(WIDTH), value["exp_avg"]])
    assert torch.equal(found["exp_avg"], wanted)
    assert found["step"] == 2


def test_zeros_where_the_optimizer_begins_otherwise_are_refused():
    make = functools.partial(torch.optim.Adagrad, initial_accumulator_value=0.5)
    old, its = _trained(make, key_bias=False)
    new, optimizer = _new(make)
    with pytest.raises(
        tws.PlanError, match=r"in_proj_bias/sum .*on_mismatch='keep' leaves"
    ) as error:
        _start(old, its, new, optimizer)
    assert len(error.value.problems) == 1
    assert "no_slots" not in str(error.value)
    _start(old, its, new, optimizer, on_mismatch="keep")
    assert torch.all(optimizer.state[new["attn"].in_proj_bias]["sum"] == 0.5)
    assert "sum" in optimizer.state[new["attn"].in_proj_weight]


def test_one_without_a_state_is_named():
    old, its = _trained(ADAM, frozen="attn.k_proj.weight")
    new, optimizer = _new(ADAM)
    with pytest.raises(tws.PlanError, match="has none for 'attn.k_proj.weight'"):
        _start(old, its, new, optimizer)
    _start(old, its, new, optimizer, on_missing="keep")
    assert new["attn"].in_proj_weight not in optimizer.state
    assert new["attn"].in_proj_bias in optimizer.state


def test_other_counts_of_steps_are_refused_and_nothing_changes():
    old, its = _trained(ADAM)
    its.state[old["attn"].v_proj.weight]["step"].fill_(1)
    new, optimizer = _new(ADAM)
    before = new["attn"].in_proj_weight.detach().clone()
    with pytest.raises(tws.UnsupportedError, match="have 2, 2, 1, and it has one number for all"):
        _start(old, its, new, optimizer)
    assert not optimizer.state
    assert torch.equal(new["attn"].in_proj_weight, before)


def test_slots_of_another_shape_than_their_weights_are_refused():
    make = functools.partial(torch.optim.Adafactor, lr=0.01)
    old, its = _trained(make)
    new, optimizer = _new(make)
    with pytest.raises(tws.PlanError, match="slots of such a kind are joined is not known"):
        _start(old, its, new, optimizer)


def test_slots_may_be_named_one_by_one():
    old, its = _trained(ADAM)
    new, optimizer = _new(ADAM)
    rules = {
        f"attn.in_proj_weight/{slot}": tuple(f"optimizer/state/{at}/{slot}" for at in (4, 2, 0))
        for slot in ("exp_avg", "exp_avg_sq")
    }
    rules["attn.in_proj_weight/step"] = "optimizer/state/0/step"
    _start(old, its, new, optimizer, var_name_to_prev_var_name=rules)
    found = optimizer.state[new["attn"].in_proj_weight]
    value = its.state[old["attn"].v_proj.weight]["exp_avg"]
    assert torch.equal(found["exp_avg"][:WIDTH], value)
    assert found["step"] == 2


def _of_two_optimizers(steps_of_value: int) -> dict[str, torch.Tensor]:
    """TensorFlow's query and key, trained by one Adam for five steps, and value by another."""
    tensors: dict[str, torch.Tensor] = {}
    for scope, steps, names in (("a", 5, ("query", "key")), ("b", steps_of_value, ("value",))):
        for name, shape in ((n, s) for n in names for s in ((4, 2, 2), (2, 2))):
            key = f"attn/{name}/{'kernel' if len(shape) == 3 else 'bias'}"
            tensors[key] = torch.randn(shape)
            tensors |= {f"{scope}/{key}/{slot}": torch.ones(shape) for slot in ("Adam", "Adam_1")}
        tensors[f"{scope}/beta1_power"] = torch.tensor(0.9 ** (steps + 1))
        tensors[f"{scope}/beta2_power"] = torch.tensor(0.999 ** (steps + 1))
    return tensors


def test_what_two_optimizers_of_tensorflow_counted_must_be_the_same(tf_checkpoint):
    for steps in (5, 1):
        new = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2)})
        optimizer = torch.optim.Adam(new.parameters())
        settings = tws.WarmStartSettings(tf_checkpoint(_of_two_optimizers(steps)), ["attn.in"])
        if steps == 5:
            tws.warm_start(new, settings, optimizer=optimizer)
            assert optimizer.state[new["attn"].in_proj_bias]["step"] == 5
        else:
            with pytest.raises(tws.UnsupportedError, match=r"joined of have 5, 1, and"):
                tws.warm_start(new, settings, optimizer=optimizer)
