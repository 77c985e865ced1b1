"""What fills new rows is decided once, while planning, and the dry run says it."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings
from torch_warmstart.new_rows import Constant, Initialised, Keep
from torch_warmstart.new_rows.filling import fill_of_slot, fill_of_variable

GENERATOR = torch.Generator()


def _plan(info, optimizer=None, rows=3):
    model = nn.Embedding(rows, 2)
    checkpoint = {"weight": torch.ones(2, 2)}
    if optimizer is not None:
        optimizer = optimizer(model.parameters())
        old = nn.Embedding(2, 2)
        was = type(optimizer)(old.parameters())
        old.weight.grad = torch.ones(2, 2)
        was.step()
        checkpoint = {"model": old.state_dict(), "optimizer": was.state_dict()}
    settings = WarmStartSettings(checkpoint, [".*"], {"weight": info})
    return model, tws.plan_warm_start(model, settings, optimizer=optimizer)


@pytest.mark.parametrize(
    ("info", "fill"),
    [
        (ClipOrPad(), Constant(0.0)),
        (ClipOrPad(backup_initializer="keep"), Keep()),
        (VocabInfo(["a"], 1, 0, ["a"]), Constant(0.0)),
        (VocabInfo(["a"], 1, 0, ["a"], backup_initializer="keep"), Keep()),
    ],
)
def test_zeros_unless_the_model_s_are_kept(info, fill):
    assert fill_of_variable(info) == fill


def test_an_initialiser_comes_with_its_generator():
    info = ClipOrPad(backup_initializer=nn.init.normal_, generator=GENERATOR)
    for fill in (fill_of_variable(info), fill_of_slot(info, 0.5), fill_of_slot(info, None)):
        assert isinstance(fill, Initialised)
        assert (fill.initializer, fill.generator) == (nn.init.normal_, GENERATOR)


def test_a_slot_begins_as_its_optimizer_does_and_is_never_kept():
    for initializer in (None, "keep"):
        info = ClipOrPad(backup_initializer=initializer)
        assert fill_of_slot(info, 0.5) == Constant(0.5)
        assert fill_of_slot(info, None) is None


class Draw:
    def __call__(self, tensor):
        tensor.normal_()


@pytest.mark.parametrize(
    ("fill", "text"),
    [
        (Keep(), "as the model has them"),
        (Constant(0.0), "0"),
        (Constant(0.1), "0.1"),
        (Initialised(nn.init.xavier_uniform_), "xavier_uniform_"),
        (Initialised(functools.partial(nn.init.normal_, std=0.02)), "normal_"),
        (Initialised(lambda tensor: tensor.normal_()), "<lambda>"),
        (Initialised(Draw()), "Draw"),
    ],
)
def test_it_has_a_text(fill, text):
    assert str(fill) == text


@pytest.mark.parametrize(
    ("initializer", "rows"),
    [
        (None, "2 copied (none moved), 1 initialised"),
        ("keep", "2 copied (none moved), 1 left as they are"),
        (nn.init.ones_, "2 copied (none moved), 1 initialised; new rows: ones_"),
        (
            functools.partial(nn.init.normal_, std=0.02),
            "2 copied (none moved), 1 initialised; new rows: normal_",
        ),
    ],
)
def test_the_dry_run_says_what_is_not_zeros(initializer, rows):
    _, plan = _plan(ClipOrPad(backup_initializer=initializer))
    assert f"    rows: {rows}\n" in str(plan)


def test_where_every_row_has_an_old_one_nothing_is_made():
    def fail(tensor):
        pytest.fail("there are no rows to make")

    _, plan = _plan(ClipOrPad(backup_initializer=fail), rows=2)
    (item,) = plan.items
    assert item.fill is None
    assert "new rows" not in str(plan)
    assert tws.apply_plan(plan).variables[0].rows.copied == 2


def test_the_dry_run_says_what_a_slot_begins_with():
    adagrad = functools.partial(torch.optim.Adagrad, initial_accumulator_value=0.25)
    model, plan = _plan(ClipOrPad(backup_initializer=nn.init.ones_), adagrad)
    fills = {item.name: item.fill for item in plan.items}
    assert fills["weight/sum"] == Constant(0.25)
    assert fills["weight/step"] is None
    assert "2 copied (none moved), 1 initialised; new rows: ones_" in str(plan)
    assert "2 copied (none moved), 1 initialised; new rows: 0.25" in str(plan)
    (item,) = (item for item in plan.items if item.name == "weight/sum")
    tws.apply_plan(plan)
    state = item.variable.slot.optimizer.state[model.weight]
    assert state["sum"][2].tolist() == [0.25, 0.25]
    assert model.weight[2].tolist() == [1, 1]
