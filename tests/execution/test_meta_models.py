"""A model on the meta device: made of what is there, initialised where nothing is, or named."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.execution import execute
from torch_warmstart.execution.commit import Prepared


class Rotary(nn.Module):
    """Has nothing that a checkpoint would have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(4.0), persistent=False)


class Cached(nn.Module):
    """Makes its transient buffer again when it is reset."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(3), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.mask.copy_(torch.arange(3.0))


class Raw(nn.Module):
    """Says of nothing how it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 4)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tied(self.head(self.norm(self.lstm(self.table(ids))[0][:, -1])))


def on_meta(make: type[nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def assert_equal(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert [*found] == [*state]
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_all_that_the_checkpoint_has_is_made_of_it():
    old = Net().eval()
    model = on_meta(Net).eval()
    report = tws.warm_start(model, tws.WarmStartSettings(old.state_dict(), [".*"]))

    assert_equal(model, old.state_dict())
    assert model.tied.weight is model.table.weight
    assert isinstance(model.table.weight, nn.Parameter)
    assert torch.equal(model(torch.arange(5)[None]), old(torch.arange(5)[None]))
    assert [note.code for note in report.notes] == ["made-from-meta"]
    model(torch.arange(5)[None]).sum().backward()
    assert model.lstm.weight_hh_l0.grad is not None


def test_it_is_made_where_the_default_device_is():
    model = on_meta(Net)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(Net().state_dict(), [".*"]))
    assert {item.variable.device for item in plan.items} == {torch.get_default_device()}
    assert all(item.variable.tensor.is_meta for item in plan.items)  # a plan makes nothing


def test_what_is_not_filled_is_initialised_by_its_module():
    state = {n: t for n, t in Net().state_dict().items() if not n.startswith(("head", "norm"))}
    model = on_meta(Net)
    settings = tws.WarmStartSettings(state, [".*"], on_missing="keep")
    torch.manual_seed(4)
    report = tws.warm_start(model, settings)
    torch.manual_seed(4)
    model.norm.reset_parameters()
    expected = nn.Linear(3, 4)

    assert torch.equal(model.head.weight, expected.weight)
    assert torch.equal(model.head.bias, expected.bias)
    assert torch.equal(model.norm.running_var, torch.ones(3))
    assert report["head.weight"].state == "kept"
    assert report["head.weight"].reason.endswith("initialised by its module's reset_parameters()")
    for name, tensor in state.items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_a_half_filled_layer_keeps_what_was_filled():
    old = Net().state_dict()
    model = on_meta(Net)
    tws.warm_start(model, tws.WarmStartSettings(old, "(?!head.bias)"))

    assert torch.equal(model.head.weight, old["head.weight"])
    assert model.head.bias.abs().max() <= 3**-0.5  # nn.Linear's own
    assert not model.norm.running_mean.is_meta


def test_rows_of_a_vocabulary_that_stay_are_initialised():
    old = {"table.weight": torch.arange(8.0).view(4, 2)}
    with torch.device("meta"):
        model = nn.ModuleDict({"table": nn.Embedding(3, 2)})
    info = tws.VocabInfo(["b", "new", "a"], -1, 0, list("abcd"), backup_initializer="keep")
    torch.manual_seed(2)
    tws.warm_start(model, tws.WarmStartSettings(old, ".*", {"table.weight": info}))
    torch.manual_seed(2)
    fresh = nn.Embedding(3, 2).weight

    found = model["table"].weight
    assert torch.equal(found[[0, 2]], old["table.weight"][[1, 0]])
    assert torch.equal(found[1], fresh[1])


def test_transient_buffers_that_nobody_makes_are_named_and_stay_on_meta():
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), Rotary(), Cached())

    with torch.device("meta"):
        model = make()
    with pytest.warns(tws.WarmStartWarning, match=r"Left on the meta device.*'1\.frequencies'\. "):
        report = tws.warm_start(model, make().state_dict())

    assert model[1].frequencies.is_meta
    assert torch.equal(model[2].mask, torch.arange(3.0))
    assert "left-on-meta" in [note.code for note in report.notes]


def test_parameters_that_no_module_initialises_are_named_and_stay_on_meta():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), Raw())
    old = nn.Linear(2, 2).state_dict()
    state = {f"0.{name}": tensor for name, tensor in old.items()}
    with pytest.warns(tws.WarmStartWarning, match=r"1 tensor, '1\.scale'"):
        report = tws.warm_start(model, tws.WarmStartSettings(state, ".*", on_missing="keep"))

    assert model[1].scale.is_meta
    assert report["1.scale"].reason == "not in the checkpoint, left on the meta device"
    assert torch.equal(model[0].weight, old["weight"])


class Forgetful(nn.Linear):
    """Its reset_parameters() leaves the bias out."""

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


def test_what_reset_parameters_leaves_out_stays_on_meta_and_is_said():
    with torch.device("meta"):
        model = nn.Sequential(Forgetful(2, 2))
    with pytest.warns(tws.WarmStartWarning, match=r"'0\.bias'"):
        report = tws.warm_start(
            model, tws.WarmStartSettings({"0.weight": torch.zeros(2, 2)}, "0.w")
        )

    assert torch.equal(model[0].weight, torch.zeros(2, 2))
    assert model[0].bias.is_meta
    assert "left-on-meta" in [note.code for note in report.notes]


class Failing(nn.Linear):
    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            raise RuntimeError("no luck")


@pytest.mark.parametrize("where", ["reset", "hook", "warning", "interrupt"])
def test_whatever_fails_leaves_the_model_on_meta(monkeypatch: pytest.MonkeyPatch, where: str):
    old = Net().state_dict()
    model = on_meta(Net)
    wanted: type[BaseException] = tws.WarmStartError
    settings = tws.WarmStartSettings(old, "(?!head.bias).*")
    before = dict(model.named_parameters())
    if where == "reset":
        with torch.device("meta"):
            model.head = Failing(3, 4)
            before = dict(model.named_parameters())
    elif where == "hook":
        model.norm.register_load_state_dict_pre_hook(lambda *_: 1 / 0)
    elif where == "warning":
        model.rotary = on_meta(Rotary)
        wanted = tws.WarmStartWarning
        warnings.simplefilter("error")
    else:
        wanted = KeyboardInterrupt

        def interrupt(_: Prepared) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(execute, "room_to_work", interrupt)
    with pytest.raises(wanted):
        tws.warm_start(model, settings)

    assert dict(model.named_parameters()) == before
    assert all(model.get_parameter(name) is tensor for name, tensor in before.items())
    assert all(tensor.is_meta for tensor in model.lstm._flat_weights)


def test_an_optimizer_of_meta_parameters_is_refused():
    model = on_meta(Net)
    with pytest.raises(tws.SettingsError, match="meta device.*the optimizer would keep the old"):
        tws.warm_start(
            model, Net().state_dict(), optimizer=torch.optim.SGD(model.parameters(), momentum=0.9)
        )


def test_hooks_see_the_new_tensors():
    class Doubling(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *rest):
            state[prefix + "weight"] = 2 * state[prefix + "weight"]
            super()._load_from_state_dict(state, prefix, *rest)

    with torch.device("meta"):
        model = nn.Sequential(Doubling(2, 2))
    tws.warm_start(model, {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)})
    assert torch.equal(model[0].weight, torch.full((2, 2), 2.0))


def test_what_a_hook_drops_stays_on_meta():
    def drop(module, state, prefix, *_):
        state.pop(prefix + "bias")

    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_load_state_dict_pre_hook(drop)
    state = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    with pytest.warns(tws.WarmStartWarning, match=r"'0\.bias'"):
        report = tws.warm_start(model, state)
    assert model[0].bias.is_meta
    assert report["0.bias"].state == "kept"


class Counters(nn.Module):
    """Has a reset_parameters that leaves all of its buffers out."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(12):
            self.register_buffer(f"seen{number}", torch.zeros(2))

    def reset_parameters(self) -> None:
        pass


def test_what_stays_on_meta_is_named_in_the_order_of_the_model():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), Counters())
    with pytest.warns(tws.WarmStartWarning, match=r"12 tensors, '1\.seen0', '1\.seen1'"):
        tws.warm_start(model, nn.Sequential(nn.Linear(2, 2)))


class Fixed(nn.Linear):
    """Nothing of it can be set once it has been made."""

    times = 0

    def __setattr__(self, name, value):
        if "weight" in self._parameters and type(self).times == 0:
            raise RuntimeError(f"{name} is fixed")
        type(self).times -= 1
        super().__setattr__(name, value)


@pytest.mark.parametrize("times", [0, 1])
def test_where_a_module_refuses_its_new_tensors_all_get_their_old_ones_back(times):
    model = nn.Sequential()
    with torch.device("meta"):
        Fixed.times = 100
        model.extend([Fixed(2, 2), nn.LSTM(2, 2), nn.Linear(2, 2), Fixed(2, 2)])
    before = [*model.named_parameters()]
    flat = [*model[1]._flat_weights]
    source = {name: torch.ones(tensor.shape) for name, tensor in before}
    Fixed.times = times
    with pytest.raises(tws.WarmStartError, match="is fixed"):
        tws.warm_start(model, source)
    now = [*model.named_parameters()]
    assert [(name, id(tensor)) for name, tensor in now] == [(n, id(t)) for n, t in before]
    assert [*map(id, model[1]._flat_weights)] == [*map(id, flat)]
