"""A weight norm's v of which cells come or go that its norms are over, or begin as zeros."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, SegmentInfo, VocabInfo, WarmStartSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")

DRESSED = {
    "parametrised": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "by a hook": (weight_norm, "weight_v"),
}
DROPPED = SegmentInfo({"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1})
CHANGES = {
    "a feature has gone": (DROPPED, 2),
    "a feature is not zeros": (
        SegmentInfo({"a": 2, "n": 1, "b": 1}, {"a": 2, "b": 1}, 1, nn.init.ones_),
        4,
    ),
    "an entry has gone": (VocabInfo(["y", "z"], old_vocab=["x", "y", "z"], axis=1), 2),
    "cut off": (ClipOrPad(1), 2),
    "back from an older checkpoint": (
        VocabInfo(
            ["x", "y", "z", "w"],
            old_vocab=["x", "y", "z"],
            axis=1,
            fallback=[(nn.Linear(1, 2).state_dict(), ["w"])],
        ),
        4,
    ),
}


def _start(dress, leaf, info, width, source=None):
    """A layer of three columns to one of another width; what it computes of unit inputs."""
    old = nn.Linear(3, 2) if source is None else source(nn.Linear(3, 2))
    model = dress(nn.Linear(width, 2))
    weight = (old(torch.eye(3)) - old.bias).T
    tws.warm_start(model, WarmStartSettings(old.state_dict(), [".*"], {leaf: info}))
    return weight, (model(torch.eye(width)) - model.bias).T


@pytest.mark.parametrize("how", DRESSED)
@pytest.mark.parametrize("what", CHANGES)
def test_what_would_be_scaled_is_refused(how, what):
    dress, leaf = DRESSED[how]
    info, width = CHANGES[what]
    with pytest.raises(tws.PlanError, match="which are over what comes or goes along axis 1"):
        _start(dress, leaf, info, width)


def test_it_is_refused_from_a_layer_that_is_normed_too():
    with pytest.raises(tws.PlanError, match="weight_norm") as raised:
        _start(*DRESSED["parametrised"], DROPPED, 2, source=parametrizations.weight_norm)
    assert [problem.code for problem in raised.value.problems] == ["norm-over-axis"]


@pytest.mark.parametrize("how", DRESSED)
def test_zeros_beside_all_that_was_there_change_no_norm(how):
    dress, leaf = DRESSED[how]
    info = VocabInfo(["z", "new", "x", "y"], old_vocab=["x", "y", "z"], axis=1)
    old, new = _start(dress, leaf, info, 4)
    assert torch.allclose(new[:, [2, 3, 0]], old, atol=1e-6)
    assert torch.allclose(new[:, 1], torch.zeros(2), atol=1e-6)


def test_rows_under_norms_of_columns_are_refused_though_one_is_left():
    def dress(layer):
        return parametrizations.weight_norm(layer, dim=1)

    old, model = nn.Linear(3, 2), nn.Sequential(dress(nn.Linear(3, 1)))
    info = VocabInfo(["x"], old_vocab=["x", "y"])
    checkpoint = nn.Sequential(old).state_dict()
    settings = WarmStartSettings(checkpoint, ".*", {"0": info})
    with pytest.raises(tws.PlanError, match="goes along axis 0"):
        tws.plan_warm_start(model, settings)


def test_a_layer_without_the_norm_takes_its_columns():
    old = parametrizations.weight_norm(nn.Linear(3, 2))
    model = nn.Linear(2, 2)
    tws.warm_start(model, WarmStartSettings(old.state_dict(), ".*", {"weight": DROPPED}))
    assert torch.allclose(model.weight, old.weight[:, [0, 2]], atol=1e-6)


ZEROS = {
    "nobody says": None,
    "nobody answers": tws.init.alias({"other": "x"}),
}
MADE = {"the model's": "keep", "a function's": nn.init.ones_}


def _grow(dress, initializer):
    layer = dress(nn.Linear(3, 3))
    info = VocabInfo(["y", "n", "x"], old_vocab=["x", "y"], backup_initializer=initializer)
    settings = WarmStartSettings(nn.Sequential(dress(nn.Linear(3, 2))), ".*", {"0": info})
    tws.warm_start(nn.Sequential(layer), settings)
    return layer(torch.eye(3))


@pytest.mark.parametrize("how", DRESSED)
@pytest.mark.parametrize("what", ZEROS)
def test_new_rows_without_a_direction_are_refused(how, what):
    with pytest.raises(tws.PlanError, match="would be NaN there") as raised:
        _grow(DRESSED[how][0], ZEROS[what])
    assert [problem.code for problem in raised.value.problems] == ["norm-of-zeros"]


@pytest.mark.parametrize("how", DRESSED)
@pytest.mark.parametrize("what", MADE)
def test_new_rows_with_one_are_taken(how, what):
    assert _grow(DRESSED[how][0], MADE[what]).isfinite().all()


def test_a_mixture_of_directions_is_warned_of():
    with pytest.warns(tws.WarmStartWarning, match="the weight's are other mixtures, and longer"):
        _grow(parametrizations.weight_norm, tws.init.mean())


MOVED = VocabInfo(["y", "x"], old_vocab=["x", "y"])
GONE = VocabInfo(["x"], old_vocab=["x", "y"])
SPECTRAL = {"parametrised": parametrizations.spectral_norm, "by a hook": spectral_norm}


def _of_itself(dress, info, rows):
    """A layer of two rows and its successor of some, each under a norm."""
    old, model = dress(nn.Linear(3, 2)), dress(nn.Linear(3, rows))
    settings = WarmStartSettings(nn.Sequential(old), [".*"], {"0": info})
    return tws.warm_start(nn.Sequential(model), settings)


@pytest.mark.parametrize("how", SPECTRAL)
def test_rows_that_go_under_a_spectral_norm_are_warned_of(how):
    with pytest.warns(tws.WarmStartWarning, match="divided by its spectral norm, which is of what"):
        report = _of_itself(SPECTRAL[how], GONE, 1)
    assert [note.code for note in report.notes] == ["norm-over-axis"]
    assert not _of_itself(SPECTRAL[how], MOVED, 2).notes  # all that was there


class _Own(nn.Module):
    def forward(self, weight):
        return weight.cumsum(0)


def _own(layer):
    parametrize.register_parametrization(layer, "weight", _Own())
    return layer


@pytest.mark.parametrize("dress", [_own, parametrizations.orthogonal], ids=["own", "orthogonal"])
def test_rows_of_what_nobody_knows_to_compute_are_warned_of(dress):
    with pytest.warns(tws.WarmStartWarning, match="whether that moves alike its class knows"):
        report = _of_itself(dress, MOVED, 2)
    assert [note.code for note in report.notes] == ["rows-parametrized"]


@pytest.mark.parametrize("dress", [parametrizations.weight_norm, weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_layer_may_be_named_for_either_axis(dress, dim, axis):
    """Its norms go with the axis that each is of, and with no other."""
    old = dress(nn.Linear(2, 2, bias=False), dim=dim)
    model = nn.ModuleDict({"fc": dress(nn.Linear(2, 2, bias=False), dim=dim)})
    state = {f"fc.{name}": tensor for name, tensor in old.state_dict().items()}
    info = VocabInfo(["b", "a"], old_vocab=["a", "b"], axis=axis)
    tws.warm_start(model, WarmStartSettings(state, [".*"], {"fc": info}))
    units = torch.eye(2)
    found, expected = model["fc"](units), old(units)
    assert torch.allclose(found, expected.flip(1 if axis == 0 else 0))
