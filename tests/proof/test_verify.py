"""The proof of a port: outputs and layers against a record."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.cli import main


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.last(self.act(self.first(x))))


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x):
        return {"maps": self.conv(x), "mean": self.conv(x).mean((2, 3))}


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def _layers(model, x):
    hidden = model.first(x)
    return {"first": hidden.detach(), "last": model.last(hidden.relu()).detach()}


def test_a_model_agrees_with_its_own_record_in_eval_mode(x, device):
    model = Net().to(device).train()
    expected = Net().eval()(x)
    check = tws.verify_port(model, x, expected, layers=_layers(Net(), x))
    assert check
    assert [c.name for c in check.layers] == ["first", "last"]
    assert model.training
    assert model.drop.training
    assert not model.first._forward_hooks
    assert str(check).endswith("The port agrees with the record in 3 places.")


def test_the_first_layer_that_departs_is_named(x):
    model = Net()
    expected, layers = Net().eval()(x), _layers(Net(), x)
    with torch.no_grad():
        model.last.weight[0, 0] += 0.5
    check = tws.verify_port(model, x, expected, layers=layers)
    assert not check
    assert check.first_departure == "last"
    assert "the first is 'last', after 'first' still agreed." in str(check)
    departed = check.layers[1]
    assert departed.max_abs_error == pytest.approx(0.5 * float(layers["first"][:, 0].relu().max()))
    scale = float(layers["last"].abs().max())
    assert departed.max_rel_error == pytest.approx(departed.max_abs_error / scale)


def test_outputs_may_be_a_mapping_and_inputs_keywords():
    x = torch.randn(2, 2, 5, 6)
    expected = {name: value.detach() for name, value in Conv()(x).items()}
    check = tws.verify_port(Conv(), {"x": x.numpy()}, expected)
    assert check
    assert [c.name for c in check.outputs] == ["output.maps", "output.mean"]
    with pytest.raises(tws.SettingsError, match=r"has no part 'max'. It has 'maps', 'mean'"):
        tws.verify_port(Conv(), x, {"max": x})


def test_a_record_with_channels_last_is_compared_as_such():
    x = torch.randn(2, 2, 5, 6)
    maps = Conv()(x)["maps"].detach()
    check = tws.verify_port(Conv(), x, {}, layers={"conv": maps.permute(0, 2, 3, 1)})
    assert check.layers[0].ok
    assert check.layers[0].remark == "the record's channels are last"
    assert not tws.verify_port(Conv(), x, {}, layers={"conv": maps.permute(0, 2, 3, 1) + 1})


def test_a_record_with_the_activation_that_keras_puts_into_a_layer_is_told(x):
    model = Net()
    hidden = model.first(x).relu().detach()
    check = tws.verify_port(model, x, Net().eval()(x), layers={"first": hidden})
    assert not check
    assert check.layers[0].remark == (
        "the record is the relu of it: compare it with the module behind"
    )


@pytest.mark.parametrize(
    ("expected", "remark"),
    [
        (torch.zeros(5, 3), "the record has shape [5, 3]"),
        (torch.full((5, 2), float("nan")), "10 of the record's 10 values are NaN"),
        (torch.zeros(5, 2), ""),
    ],
)
def test_what_cannot_agree_does_not(x, expected, remark):
    check = tws.verify_port(Net(), x, expected)
    assert not check
    assert check.outputs[0].remark == remark


def test_a_nan_of_the_model_departs_and_one_of_both_agrees():
    record = torch.tensor([1.0, float("nan"), float("inf")])
    assert tws.verify_port(nn.Identity(), record, record)
    assert not tws.verify_port(nn.Identity(), record, torch.tensor([1.0, 2.0, float("inf")]))


def test_a_layer_that_does_not_exist_or_run_is_told(x):
    with pytest.raises(tws.SettingsError, match="no module 'frist'. Did you mean 'first'"):
        tws.verify_port(Net(), x, x, layers={"frist": x})
    model = Net()
    model.unused = nn.Linear(1, 1)
    check = tws.verify_port(model, x, Net().eval()(x), layers={"unused": x})
    assert not check
    assert check.layers[0].remark == "was not run"


def test_the_tolerance_follows_the_dtype():
    x = torch.randn(100, 3, dtype=torch.float64)
    expected = Net().double().eval()(x)
    assert tws.verify_port(Net().double(), x, expected)
    assert not tws.verify_port(Net().double(), x, expected * (1 + 1e-8))
    assert tws.verify_port(Net().double(), x, expected * (1 + 1e-8), rtol=1e-6)
    assert tws.verify_port(Net(), x.float(), expected.detach().numpy())


def test_a_proof_that_compares_nothing_is_an_error(x):
    message = (
        "verify_port compared nothing: `expected` and `layers` have no values. Record at least one "
        "output or layer of the original."
    )
    empty = torch.zeros(0, 3)
    for inputs, expected, layers in ((x, {}, None), (x, [], {}), (empty, torch.zeros(0, 2), None)):
        with pytest.raises(tws.SettingsError) as caught:
            tws.verify_port(Net(), inputs, expected, layers=layers)
        assert str(caught.value) == message
    assert tws.verify_port(Net(), x, {}, layers={"first": Net().first(x).detach()})
    assert not tws.verify_port(Net(), x, [], layers={"first": torch.zeros(0, 4)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floating_inputs_are_cast_to_the_model_s_dtype(x, dtype):
    """As Keras does: a record is often of NumPy's float64."""
    model = Net().to(dtype)
    expected = Net().double().eval()(x.double()).detach().numpy()
    check = tws.verify_port(model, x.double().numpy(), expected)
    assert check
    told = f"The inputs were cast: float64 to {str(dtype).removeprefix('torch.')}."
    assert (told in str(check)) == (dtype != torch.float64)
    assert check.cast == (
        "" if dtype == torch.float64 else told[len("The inputs were cast: ") : -1]
    )


def test_inputs_that_count_or_that_a_mixed_model_takes_are_not_cast():
    ids, table = np.array([0, 2]), nn.Embedding(3, 2)
    assert tws.verify_port(table, ids, table(torch.tensor(ids)).detach()).cast == ""
    mixed = nn.Sequential(nn.Linear(3, 2).double())
    mixed.register_buffer("other", torch.zeros(1))
    x = np.ones((1, 3))
    assert tws.verify_port(mixed, x, mixed(torch.tensor(x)).detach()).cast == ""


@pytest.mark.parametrize("as_record", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_a_model_that_works_in_place_leaves_the_record_as_it_is(as_record):
    recorded = as_record([[-1.0, 2.0]])
    model = nn.Sequential(nn.ReLU(inplace=True))
    assert not tws.verify_port(model, recorded, recorded)
    assert recorded.tolist() == [[-1.0, 2.0]]


def test_of_a_module_that_runs_twice_the_first_call_is_compared(x):
    model = nn.Sequential(layer := nn.Linear(3, 3), layer)
    first = layer(x).detach()
    assert tws.verify_port(model, x, layer(first).detach(), layers={"0": first})


class Merges(nn.Linear):
    """As loralib's layers: merged in eval mode, of which only `train` takes it out again."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.is_merged, self.seen = False, []

    def train(self, mode=True):
        super().train(mode)
        if self.is_merged is mode:
            self.weight.data += -1.0 if mode else 1.0
            self.is_merged = not mode
        return self

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        return torch.nn.functional.dropout(super().forward(x), 0.5)


def test_what_a_run_changes_is_undone():
    model, x = Merges(), torch.ones(1, 2)
    state, chance = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    tws.verify_port(model, x, torch.ones(1, 2), layers={"": torch.ones(1, 2)})
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert (model.training, model.is_merged, model.seen) == (True, False, [])
    assert torch.equal(torch.get_rng_state(), chance)
    assert not model._forward_hooks


def test_a_layer_that_refuses_eval_mode_leaves_the_mode():
    class Stays(nn.Identity):
        def train(self, mode=True):
            raise RuntimeError("no")

    model = nn.Sequential(nn.Dropout(), Stays())
    with pytest.raises(RuntimeError, match="no"):
        tws.verify_port(model, torch.ones(1), torch.ones(1))
    assert [one.training for one in model.modules()] == [True, True, True]


def test_a_model_that_is_lazy_still_is_refused_and_stays_lazy():
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(tws.SettingsError, match="without a shape"):
        tws.verify_port(model, torch.ones(1, 2), torch.ones(1, 2))
    assert type(model[0]) is nn.LazyLinear


def test_a_scripted_model_is_run_and_in_its_mode_again():
    model, x = torch.jit.script(nn.Linear(2, 2)), torch.ones(1, 2)
    assert tws.verify_port(model, x, model(x).detach())
    assert model.training  # as it was


def test_an_exported_model_is_run_as_it_was_exported():
    model, x = nn.Linear(2, 2).eval(), torch.ones(1, 2)
    exported = torch.export.export(model, (x,)).module()
    assert tws.verify_port(exported, x, model(x).detach())
    assert not tws.verify_port(exported, x, model(x).detach() + 1)


class Packed(nn.Linear):
    """What a quantised layer has instead of tensors: objects of its own."""

    def get_extra_state(self):
        return {"bits": 8}

    def set_extra_state(self, state):
        del state


def test_a_model_whose_state_holds_more_than_tensors_is_run():
    model, x = Packed(2, 2), torch.ones(1, 2)
    assert tws.verify_port(model, x, model(x).detach())


# -- the command -----------------------------------------------------------------------------------

MODEL = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

number = 3

def nothing():
    return number
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, x):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "verified_model.py").write_text(MODEL)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.save(model.state_dict(), "old.pt")
    record = {"inputs/0": x.numpy(), "outputs": model(x).detach().numpy()}
    np.savez("record.npz", **record, **{"layers/0": model[0](x).detach().numpy()})
    np.savez("half.npz", **{"inputs/0": x.numpy()})
    wide = {name: value.astype("float64") for name, value in record.items()}
    np.savez("wide.npz", **wide)
    none = {"inputs/0": x.numpy()[:0], "outputs": model(x[:0]).detach().numpy()}
    np.savez("none.npz", **none)
    return tmp_path


def test_the_command_proves_a_port(folder, capsys):
    assert main(["verify", "verified_model:make", "record.npz", "--checkpoint", "old.pt"]) == 0
    assert "agrees with the record in 2 places" in capsys.readouterr().out


def test_the_command_fails_where_the_model_departs(folder, capsys):
    assert main(["verify", "verified_model:make", "record.npz"]) == 1
    assert "the first is '0'" in capsys.readouterr().out


def test_the_command_casts_a_record_and_says_so(folder, capsys):
    assert main(["verify", "verified_model:make", "wide.npz", "--checkpoint", "old.pt"]) == 0
    assert "The inputs were cast: float64 to float32.\nThe port agrees" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verified_model:make", "none.npz"], "verify_port compared nothing: `expected` and"),
        (["verified_model", "record.npz"], "given as MODULE:CALLABLE, or as a directory"),
        (["verified_model:mak", "record.npz"], "There is no 'verified_model:mak'"),
        (["no_such:make", "record.npz"], "There is no module 'no_such'"),
        (["verified_model:nothing", "record.npz"], "makes no torch.nn.Module, but int"),
        (["verified_model:make", "half.npz"], "has nothing named outputs or outputs/...; it has"),
    ],
)
def test_the_command_says_what_is_wrong(folder, capsys, arguments, message):
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err
