"""What torch has made of weights and keeps is worked out anew when they have other values."""

from __future__ import annotations

import sys
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import torch_warmstart as tws

BATCH = torch.tensor([[1.0, -2.0, 3.0]])
BFLOAT16 = torch.bfloat16


def a_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    parametrizations.weight_norm(model[0])
    return model


@pytest.fixture
def old() -> dict[str, torch.Tensor]:
    return a_model().state_dict()


@pytest.fixture
def expected(old) -> nn.Module:
    model = a_model()
    model.load_state_dict(old)
    return model


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=BFLOAT16)


@pytest.mark.parametrize("within", [autocast, parametrize.cached])
def test_the_next_batch_is_computed_with_what_was_taken(old, expected, within) -> None:
    model = a_model()
    with within():
        model(BATCH)
        tws.warm_start(model, old)
        out = model(BATCH)
    with within():
        assert torch.equal(out, expected(BATCH))


def test_a_model_that_runs_in_a_hook_and_is_put_back_is_computed_anew(old) -> None:
    model = a_model()

    def run_and_raise(module, _):
        module(BATCH)  # casts what it has for now
        raise ValueError("no")

    model.register_load_state_dict_post_hook(run_and_raise)
    with autocast():
        before = model(BATCH)
        with pytest.raises(tws.WarmStartError, match="raised ValueError"):
            tws.warm_start(model, old)
        assert torch.equal(model(BATCH), before)


def test_rows_that_are_gathered_into_a_weight_make_it_forgotten_too() -> None:
    layer, old = nn.Linear(3, 2, bias=False), torch.rand(2, 3)
    with autocast():
        layer(BATCH)
        tws.gather_rows(old, torch.tensor([1, 0]), out=layer.weight)
        out = layer(BATCH)
    assert torch.equal(out, nn.functional.linear(BATCH.to(BFLOAT16), old[[1, 0]].to(BFLOAT16)))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_planner_of_dcp_makes_it_forgotten_too(tmp_path, old, expected) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save(old, checkpoint_id=tmp_path / "old", no_dist=True)
    model = a_model()
    planner = tws.load_planner(model, tws.WarmStartSettings(None, ".*"))
    with autocast():
        model(BATCH)
        state = model.state_dict()
        dcp.load(state, checkpoint_id=tmp_path / "old", planner=planner, no_dist=True)
        out = model(BATCH)
    with autocast():
        assert torch.equal(out, expected(BATCH))


def frozen_programs() -> dict[str, object]:
    """As torch's compiler leaves it: what freezes is imported when it does."""
    return {"torch._inductor.freezing": mock.Mock()}


def compiled_with_the_option() -> dict[str, object]:
    """As it is where what it has made came out of its cache."""
    config = mock.Mock(freezing=True)
    return {"torch._inductor.config": config, "torch._inductor.compile_fx": mock.Mock()}


@pytest.mark.parametrize("modules", [frozen_programs, compiled_with_the_option])
def test_programs_with_weights_in_them_are_warned_of(monkeypatch, old, modules) -> None:
    model = a_model()
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.warns(tws.WarmStartWarning, match=r"compiler\.reset\(\).*weights-compiled-in"):
        tws.warm_start(model, old)


def test_the_compiler_imports_what_freezes_only_for_that(monkeypatch) -> None:
    """The names by which it is told are torch's."""
    from importlib.util import find_spec

    assert find_spec("torch._inductor.freezing") is not None
    from torch._inductor import config

    assert config.freezing is False
