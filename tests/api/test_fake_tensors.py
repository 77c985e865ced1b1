"""Where tensors only make believe that they hold values, nothing is said to be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_warmstart as tws

OLD = {"weight": torch.ones(2, 3)}


def _info() -> dict[str, tws.VocabInfo]:
    return {"weight": tws.VocabInfo(["b", "a"], old_vocab=["a", "b"])}


STARTS: dict[str, Callable[[Any], Any]] = {
    "warm_start": lambda model: tws.warm_start(model, OLD),
    "plan_warm_start": lambda model: tws.plan_warm_start(model, OLD),
    "change_vocabulary": lambda model: tws.change_vocabulary(model, _info()),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_among_fake_tensors_is_refused(start: str) -> None:
    model = nn.Embedding(2, 3)
    before = model.weight.detach().clone()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(tws.SettingsError, match="FakeTensorMode"),
    ):
        STARTS[start](model)
    assert torch.equal(model.weight, before)


def test_a_plan_made_outside_is_not_applied_among_fake_tensors() -> None:
    plan = tws.plan_warm_start(nn.Embedding(2, 3), OLD)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(tws.SettingsError, match="FakeTensorMode"),
    ):
        tws.apply_plan(plan)


FOLLOWED: dict[str, Callable[[Any], Any]] = {
    "grad": lambda run: torch.func.grad(run)(torch.ones(2)),
    "jvp": lambda run: torch.func.jvp(run, (torch.ones(2),), (torch.ones(2),)),
    "functionalize": lambda run: torch.func.functionalize(run)(torch.ones(2)),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, in jvp
@pytest.mark.parametrize("transform", FOLLOWED)
@pytest.mark.parametrize("start", [*STARTS, "apply_plan"])
def test_a_start_that_a_transform_follows_is_refused(start: str, transform: str) -> None:
    model = nn.Embedding(2, 3)
    before = model.weight.detach().clone()
    plan = tws.plan_warm_start(model, OLD)

    def run(x: torch.Tensor) -> torch.Tensor:
        STARTS.get(start, lambda _: tws.apply_plan(plan))(model)
        return x.sum()

    with pytest.raises(tws.SettingsError, match=r"torch\.func"):
        FOLLOWED[transform](run)
    assert torch.equal(model.weight, before)


def test_a_start_within_vmap_is_one() -> None:
    model = nn.Embedding(2, 3)

    def run(x: torch.Tensor) -> torch.Tensor:
        tws.warm_start(model, OLD)
        return x.sum()

    torch.func.vmap(run)(torch.ones(2, 2))
    assert torch.equal(model.weight, OLD["weight"])


VOCABULARIES: dict[str, Callable[[tws.Vocabulary], Any]] = {
    "load": lambda _: tws.Vocabulary.load(["a", "b"]),
    "rows": lambda vocabulary: vocabulary.rows(["a"]),
    "update": lambda vocabulary: tws.update_vocabulary(vocabulary, {"c": 1}),
    "remapping": lambda vocabulary: tws.generate_vocab_remapping(vocabulary, ["b"]),
    "diff": lambda vocabulary: tws.diff_vocabularies(vocabulary, vocabulary),
}


@pytest.mark.parametrize("use", VOCABULARIES)
def test_vocabularies_among_fake_tensors_are_refused(use: str) -> None:
    vocabulary = tws.Vocabulary.load(["a", "b"])
    with FakeTensorMode(), pytest.raises(tws.SettingsError, match="FakeTensorMode"):
        VOCABULARIES[use](vocabulary)


def test_a_start_within_a_compiled_function_is_run_and_not_traced() -> None:
    model, layer = nn.Embedding(2, 3), nn.Linear(3, 3)

    @torch.compile(backend="eager")
    def compute(inputs: torch.Tensor) -> torch.Tensor:
        tws.warm_start(model, OLD)
        return layer(inputs)

    inputs = torch.ones(2, 3)
    assert torch.equal(compute(inputs), layer(inputs))
    assert torch.equal(model.weight, OLD["weight"])
