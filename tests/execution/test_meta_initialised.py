"""What modules on meta make by themselves, in whatever way, and what the report says of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Assigning(nn.Module):
    """Its buffers are put in anew, as positions of rotary embeddings often are."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("frequencies", torch.zeros(size), persistent=False)
        self.register_buffer("count", torch.zeros(size))
        self.scale = nn.Parameter(torch.zeros(size))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)
        self.frequencies = torch.arange(float(self.size))
        self.count = torch.full((self.size,), 3.0)


class Forgetful(nn.Linear):
    """It leaves the bias out."""

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


class Idle(nn.Embedding):
    """It initialises nothing."""

    def reset_parameters(self) -> None:
        pass


def _table_and(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"table": nn.Embedding(3, 2), "rest": make()})


def _settings(initializer: object = nn.init.normal_) -> tws.WarmStartSettings:
    info = tws.VocabInfo(["a", "x", "y"], old_vocab=["a", "b"], backup_initializer=initializer)
    old = {"table.weight": torch.full((2, 2), 5.0)}
    return tws.WarmStartSettings(old, ".*", {"table.weight": info}, on_missing="keep")


def test_buffers_that_a_module_puts_in_anew_stay() -> None:
    model = _table_and(Assigning)
    report = tws.warm_start(model, _settings())

    assert torch.equal(model["rest"].frequencies, torch.arange(4.0))
    assert torch.equal(model["rest"].count, torch.full((4,), 3.0))
    assert torch.equal(model["rest"].scale, torch.ones(4))
    assert torch.equal(model["table"].weight[0], torch.full((2,), 5.0))
    assert "left-on-meta" not in [note.code for note in report.notes]


def test_what_is_left_on_meta_is_not_said_to_be_initialised() -> None:
    model = _table_and(lambda: Forgetful(2, 2))
    with pytest.warns(tws.WarmStartWarning, match=r"'rest\.bias'\. Let reset_parameters\(\)"):
        report = tws.warm_start(model, _settings())

    assert model["rest"].bias.is_meta
    assert report["rest.bias"].reason == "not in the checkpoint, left on the meta device"
    made = "not in the checkpoint, initialised by its module's reset_parameters()"
    assert report["rest.weight"].reason == made
    assert not model["table"].weight.is_meta  # new rows are drawn all the same


def test_who_makes_the_rows_that_were_to_stay_is_said_of_a_table_of_the_same_name() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"table": nn.Embedding(3, 2)})
    report = tws.warm_start(model, _settings("keep"))
    assert report["table.weight"].reason == "initialised by its module's reset_parameters()"


def test_rows_that_were_to_stay_and_that_nobody_makes_leave_the_table_on_meta() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"table": Idle(3, 2)})
    with pytest.warns(tws.WarmStartWarning, match=r"'table\.weight'"):
        report = tws.warm_start(model, _settings("keep"))

    assert model["table"].weight.is_meta
    assert report["table.weight"].state == "kept"
    assert "left on the meta device" in report["table.weight"].reason


@pytest.mark.parametrize("make", [Assigning, lambda: Forgetful(2, 2)])
def test_whatever_fails_behind_it_puts_back_what_was_there(make: Callable[[], nn.Module]) -> None:
    model = _table_and(make)
    before = [*model.parameters(), *model.buffers()]

    def fail(tensor: torch.Tensor) -> None:
        raise ValueError("no luck")

    with pytest.raises(tws.WarmStartError, match="no luck"):
        tws.warm_start(model, _settings(fail))
    after = [*model.parameters(), *model.buffers()]
    assert all(old is new for old, new in zip(before, after, strict=True))
    assert all(tensor.is_meta for tensor in after)


def test_an_initialiser_that_puts_a_tensor_into_the_model_is_refused() -> None:
    model = _table_and(Assigning)

    def meddle(tensor: torch.Tensor) -> None:
        model["rest"].count = torch.zeros(4)

    with pytest.raises(tws.WarmStartError, match="has changed a tensor of the model"):
        tws.warm_start(model, _settings(meddle))
    assert model["rest"].count.is_meta


class Holder(nn.Module):
    """It has a weight, and nothing to make it with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))


def test_of_a_tied_tensor_any_module_may_make_it() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"a": Holder(), "b": nn.Linear(2, 3, bias=False)})
        model["a"].weight = model["b"].weight
        model["c"] = nn.Linear(2, 2)
    old = {"c.weight": torch.ones(2, 2), "c.bias": torch.ones(2)}
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(old, [".*"], on_missing="keep"))
    assert "left-on-meta" not in [note.code for note in plan.notes]
    assert "initialised by its module's" in str(plan)
    report = tws.apply_plan(plan)
    assert not model["a"].weight.is_meta
    assert model["a"].weight is model["b"].weight
    assert "left on the meta device" not in str(report)


def test_what_a_module_makes_of_nothing_is_left_on_meta() -> None:
    """A spectral norm's vectors are made of each other, whenever the weight is asked for."""
    normed = torch.nn.utils.parametrizations.spectral_norm
    with torch.device("meta"):
        model = normed(nn.Linear(4, 5))
    state = normed(nn.Linear(4, 5)).state_dict()
    with pytest.warns(tws.WarmStartWarning, match="Left on the meta device.*2 tensors, .*_u"):
        report = tws.warm_start(model, tws.WarmStartSettings(state, ".*"))

    vectors = [report[f"parametrizations.weight.0._{name}"] for name in "uv"]
    assert [item.reason for item in vectors] == ["not selected, left on the meta device"] * 2
    with torch.device("meta"):
        whole = normed(nn.Linear(4, 5))
    tws.warm_start(whole, tws.WarmStartSettings(state, [".*"]))
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.complex64])
def test_a_buffer_that_a_module_makes_of_itself_is_left_on_meta(dtype: torch.dtype) -> None:
    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.zeros(3, dtype=dtype))

        def reset_parameters(self) -> None:
            self.scale.mul_(0.5)

    model = _table_and(Halving)
    with pytest.warns(tws.WarmStartWarning, match="Left on the meta device.*rest.scale"):
        tws.warm_start(model, _settings())
    assert model["rest"].scale.is_meta


class Anew(nn.Linear):
    """Makes what it resets anew, or lets go of its memory."""

    def reset_parameters(self):
        if "weight" in self._parameters:
            self.weight = nn.Parameter(torch.zeros_like(self.weight))
            self.bias.data = torch.zeros(2)


class Around(nn.Module):
    """Hands on what it does not have itself, as wrappers do."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.zeros(2))

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def _on_meta():
    return nn.Parameter(torch.empty(2, device="meta"))


@pytest.mark.parametrize("kind", [nn.Linear, Anew, Around])
def test_what_a_module_holds_beside_what_is_on_meta_stays_though_it_resets_all(kind):
    first = Around(nn.Linear(2, 2)) if kind is Around else kind(2, 2)
    setattr(first, "scale" if kind is Around else "bias", _on_meta())
    model = nn.Sequential(first, nn.Linear(2, 2))
    weight = model[0].weight
    weight.grad = torch.ones(2, 2)
    before = weight.detach().clone()
    source = {"1.weight": torch.ones(2, 2), "1.bias": torch.ones(2)}
    settings = tws.WarmStartSettings(source, on_missing="keep")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tws.WarmStartWarning)  # a wrapper resets its inner one only
        report = tws.warm_start(model, settings)
    assert model[0].weight is weight
    assert torch.equal(weight, before)
    assert weight.grad.tolist() == [[1, 1], [1, 1]]
    name = "0.inner.weight" if kind is Around else "0.weight"
    assert report[name].reason == "not in the checkpoint"


def test_statistics_of_a_norm_stay_though_its_bias_is_made_anew():
    model = nn.Sequential(nn.BatchNorm1d(2))
    model[0].running_mean.fill_(5)
    model[0].bias = _on_meta()
    tws.warm_start(model, tws.WarmStartSettings({"0.weight": torch.ones(2)}, on_missing="keep"))
    assert model[0].running_mean.tolist() == [5, 5]
    assert model[0].bias.tolist() == [0, 0]


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.inner = _on_meta(), nn.Linear(2, 2)

    def reset_parameters(self):
        self.eval()
        self.inner.added = 1
        nn.init.zeros_(self.inner.weight)
        raise RuntimeError("not yet")


def test_what_one_does_to_modules_within_it_before_it_raises_is_undone():
    model = Failing()
    before = model.inner.weight.detach().clone()
    settings = tws.WarmStartSettings({"inner.bias": torch.ones(2)}, on_missing="keep")
    with pytest.raises(tws.WarmStartError, match="not yet"):
        tws.warm_start(model, settings)
    assert model.training
    assert model.inner.training
    assert not hasattr(model.inner, "added")
    assert torch.equal(model.inner.weight, before)


class PutAnew(nn.Module):
    """Its reset puts other tensors in the place of its own."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
        self.register_buffer("scale", torch.zeros(2))

    def reset_parameters(self):
        self.weight = nn.Parameter(torch.full((2, 2), 7.0))
        self.bias = nn.Parameter(torch.full((2,), 7.0))
        self.scale = torch.full((2,), 7.0)


class GivenMemory(PutAnew):
    def reset_parameters(self):
        for tensor in (self.weight, self.bias, self.scale):
            tensor.data = torch.full(tensor.shape, 7.0)


@pytest.mark.parametrize("kind", [PutAnew, GivenMemory])
@pytest.mark.parametrize("given", ["weight", "bias", "scale", "weight bias", "bias scale"])
def test_what_the_checkpoint_gives_is_not_lost_to_what_a_module_puts_there(kind, given):
    with torch.device("meta"):
        model = nn.Sequential(kind())
        model.tied = model[0].bias
    shapes = {"weight": (2, 2), "bias": (2,), "scale": (2,)}
    source = {f"0.{name}": torch.ones(shapes[name]) for name in given.split()}
    report = tws.warm_start(model, tws.WarmStartSettings(source, [".*"], on_missing="keep"))
    for name, tensor in model[0].state_dict().items():
        is_given = name in given.split()
        assert tensor.unique().tolist() == [1 if is_given else 7], name
        assert report[f"0.{name}"].state == ("copied" if is_given else "kept")
    assert all("left on the meta" not in variable.reason for variable in report.variables)
    assert model.tied is model[0].bias
