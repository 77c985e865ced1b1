"""Lists of layers that a checkpoint numbers from elsewhere, where one may be missing."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _net(count):
    blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(count))
    return nn.ModuleDict({"blocks": blocks, "out": nn.Linear(2, 2)})


def _moved(state, by):
    return {re.sub(r"\d", lambda found: str(int(found[0]) + by), k): v for k, v in state.items()}


def _start(model, state, **settings):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tws.warm_start(model, tws.WarmStartSettings(state, on_missing="keep", **settings))
    return [str(one.message) for one in told if "[numbers-shifted]" in str(one.message)]


@pytest.mark.parametrize("by", [1, 3])
def test_a_list_that_begins_elsewhere_is_told_with_the_rule_that_is_right(by):
    model, state = _net(4), _moved(_net(4).state_dict(), by)
    (told,) = _start(model, state)
    assert f"blocks.0.weight is not in the checkpoint, which has blocks.{by} to {by + 3}" in told
    first, then = re.search(r"\{'(.+?)': '(.+?)', \.\.\.\}", told).groups()
    assert (first, then) == ("blocks.0.", f"blocks.{by}.")
    rules = {f"blocks.{at}.": f"blocks.{at + by}." for at in range(4)}
    assert not _start(model, state, var_name_to_prev_var_name=rules)
    for at in range(4):
        assert torch.equal(model["blocks"][at].weight, state[f"blocks.{at + by}.weight"])


@pytest.mark.parametrize(
    ("mine", "its", "by"),
    [(5, 4, 0), (3, 4, 0), (5, 4, 1), (1, 1, 1)],
    ids=["one more", "one less", "one in front", "a list of one"],
)
def test_lists_of_other_lengths_are_what_they_are(mine, its, by):
    assert not _start(_net(mine), _moved(_net(its).state_dict(), by))


def test_a_list_that_begins_elsewhere_is_an_error_that_offers_no_other_layer():
    model, state = _net(4), _moved(_net(4).state_dict(), 1)
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, state)
    (problem,) = error.value.problems
    assert problem.code == "numbers-shifted"
    assert "var_name_to_prev_var_name={'blocks.0.': 'blocks.1.', ...}" in str(problem)
    assert "blocks.4.weight" not in str(error.value)


@pytest.mark.parametrize(
    ("selection", "is_told"),
    [(r"(?!blocks\.0\.).*", True), (r"blocks\.[123]\.", True), ("out", False)],
)
def test_leaving_the_first_out_does_not_make_the_others_right(selection, is_told):
    state = _moved(_net(4).state_dict(), 1)
    assert bool(_start(_net(4), state, vars_to_warm_start=selection)) == is_told
    rules = {f"blocks.{at}.": f"blocks.{at}." for at in range(1, 4)}  # who says so means it
    if is_told:
        assert not _start(
            _net(4), state, vars_to_warm_start=selection, var_name_to_prev_var_name=rules
        )
