"""What docs/optimizers.md says of always, never, only, each and all: a test for a claim."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def trained(kind, named: bool = False, **options):
    torch.manual_seed(0)
    model = make()
    optimizer = kind(model.named_parameters() if named else model.parameters(), **options)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).pow(2).sum().backward()
        optimizer.step()
    return model, optimizer


def saved(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def start(source, model, optimizer, what=(".*",), **more):
    selection = list(what) if isinstance(what, tuple) else what
    return tws.warm_start(
        model, tws.WarmStartSettings(source, selection, **more), optimizer=optimizer
    )


def slots_of(report) -> dict[str, str]:
    return {a.name: a.state for a in report.variables if a.kind == "slot"}


Adam, AdamW, SGD, RMSprop = (getattr(torch.optim, n) for n in ("Adam", "AdamW", "SGD", "RMSprop"))


def test_it_works_before_the_first_step() -> None:
    old, optimizer = trained(Adam)
    model = make()
    new = Adam(model.parameters())
    start(saved(old, optimizer), model, new)
    for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
        for slot, value in optimizer.state[theirs].items():
            assert torch.equal(new.state[mine][slot], value)


def test_a_pattern_that_excludes_the_slash_takes_a_variable_without_its_slots() -> None:
    old, optimizer = trained(SGD, lr=0.1, momentum=0.9)
    model = make()
    new = SGD(model.parameters(), lr=0.1, momentum=0.9)
    report = start(saved(old, optimizer), model, new, ("0.weight", "1.weight[^/]"))
    assert {n for n, s in slots_of(report).items() if s == "copied"} == {"0.weight/momentum_buffer"}


def test_rows_of_a_slot_without_an_old_row_begin_as_the_optimizer_begins() -> None:
    """Not with the backup_initializer, which is for the variable."""
    model, old = nn.ModuleDict({"t": nn.Embedding(3, 2)}), nn.ModuleDict({"t": nn.Embedding(3, 2)})
    optimizer = torch.optim.Adagrad(old.parameters(), initial_accumulator_value=0.25)
    old["t"].weight.grad = torch.ones(3, 2)
    optimizer.step()
    info = tws.VocabInfo(["c", "new", "a"], 3, 0, ["a", "b", "c"], backup_initializer=nn.init.ones_)
    new = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.5)
    start(saved(old, optimizer), model, new, var_name_to_vocab_info={"t.weight": info})
    assert new.state[model["t"].weight]["sum"].tolist() == [[1.25] * 2, [0.5] * 2, [1.25] * 2]
    assert model["t"].weight[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["Adam", "Adagrad", "RMSprop", "Adadelta", "Adamax", "NAdam"])
def test_a_checkpoint_without_any_state_is_a_warning_and_the_optimizer_stays(name: str) -> None:
    model = make()
    optimizer = getattr(torch.optim, name)(model.parameters())
    report = start(make().state_dict(), model, optimizer)
    assert [note.code for note in report.notes] == ["no-optimizer-state"]
    assert not any(state.get("step") for state in optimizer.state.values())
    assert set(slots_of(report).values()) <= {"kept"}


@pytest.mark.parametrize("name", ["Muon", "ASGD", "Rprop"])
def test_what_tensorflow_has_no_counterpart_of_begins_anew(tmp_path: Path, name: str) -> None:
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    prefix = write_random_bundle(str(tmp_path / "c"), {"a/kernel": (3, 4), "a/kernel/Adam": (3, 4)})
    model = nn.ModuleDict({"a": nn.Linear(3, 4, bias=False)})
    report = start(prefix, model, getattr(torch.optim, name)(model.parameters(), lr=0.1))
    assert report["a.weight"].state == "converted"
    assert set(slots_of(report).values()) == {"kept"}


def test_a_parameters_slots_go_together() -> None:
    old, optimizer = trained(Adam)
    source = saved(old, optimizer)
    for state in source["optimizer"]["state"].values():
        del state["step"]
    model = make()
    new = Adam(model.parameters())
    report = start(source, model, new, on_missing="keep")
    assert set(slots_of(report).values()) == {"kept"}


def test_with_a_problem_neither_model_nor_optimizer_changes() -> None:
    old, optimizer = trained(Adam)
    source = saved(old, optimizer)
    source["optimizer"]["state"][3]["exp_avg"] = torch.zeros(7)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    new = Adam(model.parameters())
    with pytest.raises(tws.PlanError):
        start(source, model, new)
    assert not new.state
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_what_the_old_optimizer_kept_nothing_of_begins_anew() -> None:
    """It had no gradient yet, or the optimizer keeps nothing, as SGD without momentum."""
    old, optimizer = trained(Adam)
    source = saved(old, optimizer)
    del source["optimizer"]["state"][3]
    model = make()
    states = slots_of(start(source, model, Adam(model.parameters())))
    assert all((s == "kept") == n.startswith("1.bias") for n, s in states.items())
    old, optimizer = trained(SGD, lr=0.1)
    momentum = SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert set(slots_of(start(saved(old, optimizer), model, momentum)).values()) == {"kept"}


def test_hyper_parameters_and_param_groups_of_the_new_program_stay() -> None:
    old, optimizer = trained(AdamW, lr=0.1, betas=(0.5, 0.6))
    model = make()
    groups = [{"params": model[1].parameters(), "lr": 0.7}, {"params": model[0].parameters()}]
    new = AdamW(groups, lr=0.9, weight_decay=0.3)
    start(saved(old, optimizer), model, new)
    assert [group["lr"] for group in new.param_groups] == [0.7, 0.9]
    assert [group["weight_decay"] for group in new.param_groups] == [0.3, 0.3]
    for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
        assert torch.equal(new.state[mine]["exp_avg"], optimizer.state[theirs]["exp_avg"])


@pytest.mark.parametrize("named", [True, False])
def test_the_order_of_parameters_in_the_new_program_may_differ(named: bool) -> None:
    old, optimizer = trained(Adam, named=named)
    model = make()
    turned = list(model.named_parameters() if named else model.parameters())[::-1]
    new = Adam(turned)
    start(saved(old, optimizer), model, new)
    for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
        assert torch.equal(new.state[mine]["exp_avg"], optimizer.state[theirs]["exp_avg"])


def test_an_order_of_its_own_in_the_old_program_needs_names() -> None:
    for named in (True, False):
        old = make()
        turned = list(old.named_parameters() if named else old.parameters())[::-1]
        optimizer = Adam(turned)
        old(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        model = make()
        new = Adam(model.named_parameters() if named else model.parameters())
        if named:
            start(saved(old, optimizer), model, new)
            for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
                assert torch.equal(new.state[mine]["exp_avg"], optimizer.state[theirs]["exp_avg"])
        else:
            with pytest.raises(tws.PlanError, match="named parameters"):
                start(saved(old, optimizer), model, new)


def test_one_that_does_not_keep_its_state_by_parameter_is_refused() -> None:
    model = make()
    with pytest.raises(tws.WarmStartError, match="LBFGS"):
        start(model.state_dict(), model, torch.optim.LBFGS(model.parameters()))


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (Adam, {"amsgrad": True}, {}),
        (RMSprop, {"momentum": 0.9, "centered": True}, {}),
        (AdamW, {}, {"lr": 0.5, "betas": (0.8, 0.9), "weight_decay": 0.1}),
        (SGD, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.3, "momentum": 0.5, "nesterov": True}),
        (SGD, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.3}),
    ],
)
def test_the_same_class_goes_on_if_its_options_keep_no_more_than_the_old_ones(
    kind, old, new
) -> None:
    model, optimizer = trained(kind, **old)
    other = make()
    going_on = kind(other.parameters(), **new)
    report = start(saved(model, optimizer), other, going_on)
    assert set(slots_of(report).values()) <= {"copied", "renamed"}


@pytest.mark.parametrize(
    ("kind", "new", "slot"),
    [
        (Adam, {"amsgrad": True}, "max_exp_avg_sq"),
        (RMSprop, {"momentum": 0.9}, "momentum_buffer"),
        (RMSprop, {"centered": True}, "grad_avg"),
    ],
)
def test_a_slot_that_an_option_adds_begins_as_torch_begins_it(kind, new, slot) -> None:
    model, optimizer = trained(kind)
    other = make()
    going_on = kind(other.parameters(), **new)
    report = start(saved(model, optimizer), other, going_on)
    states = slots_of(report)
    assert all((state == "kept") == name.endswith(slot) for name, state in states.items())


@pytest.mark.parametrize(
    ("old", "new"),
    [("RMSprop", "SGD"), ("Adagrad", "Adam"), ("Adam", "SGD"), ("Adamax", "Adam")],
)
def test_other_pairs_are_an_error_and_can_be_kept(old: str, new: str) -> None:
    more = {"momentum": 0.9} if old == "RMSprop" else {}
    model, optimizer = trained(getattr(torch.optim, old), **more)
    other = make()
    going_on = getattr(torch.optim, new)(
        other.parameters(), lr=0.1, **({"momentum": 0.9} if new == "SGD" else {})
    )
    with pytest.raises(tws.PlanError, match=old):
        start(saved(model, optimizer), other, going_on)
    assert not going_on.state
    report = start(saved(model, optimizer), other, going_on, on_missing="keep")
    assert set(slots_of(report).values()) <= {"kept"}


def test_several_optimizers_are_given_as_a_list() -> None:
    old, optimizer = trained(Adam)
    model = make()
    both = [Adam(model[0].parameters()), Adam(model[1].parameters())]
    named = {"model": old.state_dict()}
    named["optimizer"] = Adam(old.named_parameters()).state_dict()
    named["optimizer"]["state"] = optimizer.state_dict()["state"]
    start(named, model, both)
    for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
        state = next(o.state[mine] for o in both if mine in o.state)
        assert torch.equal(state["exp_avg"], optimizer.state[theirs]["exp_avg"])


@pytest.mark.tensorflow
@pytest.mark.parametrize(("library", "is_apart"), [("keras", True), ("tf_keras", False)])
def test_a_row_that_is_several_times_in_a_batch_goes_on_by_another_rule_in_keras_3(
    library, is_apart
):
    """Rows that are there once go on alike; the same gradient, dense, is what torch has."""
    rows = _stepped(library, [0, 0, 2], is_dense=False)
    summed = _stepped(library, [0, 0, 2], is_dense=True)
    assert rows[2].equal(summed[2])
    assert (not torch.allclose(rows[0], summed[0])) is is_apart


def _stepped(library: str, ids: list[int], is_dense: bool) -> torch.Tensor:
    """A table after two steps of Adam: its rows times themselves are the loss."""
    tf: Any = importlib.import_module("tensorflow")
    keras: Any = importlib.import_module(library)
    rows = [[1.0], [2.0], [3.0]]
    variable = tf.Variable(rows) if library == "tf_keras" else keras.Variable(rows)
    value = variable if library == "tf_keras" else variable.value
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(value, ids) ** 2)
        gradient = tape.gradient(loss, value)
        optimizer.apply_gradients(
            [(tf.convert_to_tensor(gradient) if is_dense else gradient, variable)]
        )
    return torch.tensor(variable.numpy())
