"""Rows of one layer that a vocabulary would move for its weight only, in as many rows as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings
from torch_warmstart.planning.checks import half_changed

SHUFFLED = VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"])
# Rows that stay are where they were.
REUSED = VocabInfo(["a", "b", "new"], old_vocab=["a", "b", "c"], backup_initializer="keep")
GROWN = VocabInfo(
    ["a", "b", "new"],
    old_vocab=tws.Vocabulary.load(["a", "b"]).padded_to(3),
    backup_initializer="keep",
)


def _weight_normed():
    return parametrizations.weight_norm(nn.Embedding(3, 2))


def _pruned():
    return prune.random_unstructured(nn.Linear(2, 3, bias=False), "weight", 0.5)


LAYERS = {
    "a bias": (lambda: nn.Linear(2, 3), "weight"),
    "of a bias only": (lambda: nn.Linear(2, 3), "bias"),
    "of a convolution": (lambda: nn.Conv1d(2, 3, 2), "weight"),
    "a subclass": (lambda: type("Own", (nn.Linear,), {})(2, 3), "weight"),
    "norms": (_weight_normed, "parametrizations.weight.original1"),
    "a mask": (_pruned, "weight_orig"),
    "statistics": (lambda: nn.BatchNorm1d(3), "weight"),
    "a parametrised weight's bias": (
        lambda: parametrizations.spectral_norm(nn.Linear(2, 3)),
        "parametrizations.weight.original",
    ),
    "the vectors of a norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(2, 3, bias=False)),
        "parametrizations.weight.original",
    ),
    "the vectors of an old norm": (
        lambda: spectral_norm(nn.Linear(2, 3, bias=False)),
        "weight_orig",
    ),
}


def _start(make, infos):
    settings = WarmStartSettings(make().state_dict(), [".*"], infos)
    return tws.warm_start(make(), settings)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("info", [SHUFFLED, REUSED], ids=["shuffled", "reused"])
def test_half_of_a_layer_is_refused(name, info):
    """Where rows move, and where one is another entry's now, as an update has it."""
    make, moved = LAYERS[name]
    with pytest.raises(tws.PlanError, match="of the same layer, as many by position") as raised:
        _start(make, {moved: info})
    assert {problem.code for problem in raised.value.problems} == {"rows-of-one-layer"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("info", [GROWN, ClipOrPad(axis=0)], ids=["grown", "clipped"])
def test_rows_that_stay_where_they_are_are_each_others(name, info):
    make, moved = LAYERS[name]
    _start(make, {moved: info})


def test_the_whole_layer_moves():
    make, _ = LAYERS["a bias"]
    report = _start(make, {"": SHUFFLED})
    assert not report.notes


def test_a_transposed_convolution_has_its_outputs_along_its_second_axis():
    def make():
        return nn.ConvTranspose1d(3, 3, 2)

    _start(make, {"weight": SHUFFLED})  # its inputs
    with pytest.raises(tws.PlanError, match="of the same layer, as many by position"):
        _start(make, {"weight": VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"], axis=1)})


def _untransposed():
    return pytest.importorskip("transformers").pytorch_utils.Conv1D(3, 3)


def test_the_linear_layer_of_gpt2_has_its_outputs_along_its_second_axis():
    outputs = VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"], axis=1)
    assert not _start(_untransposed, {"weight": SHUFFLED}).notes  # its inputs
    with pytest.raises(tws.PlanError, match="bias, of the same layer, as many by position"):
        _start(_untransposed, {"weight": outputs})
    states = {
        axis: [v.state for v in _start(_untransposed, {"": info}).variables]
        for axis, info in enumerate((SHUFFLED, outputs))
    }
    assert states == {0: ["remapped", "copied"], 1: ["remapped", "remapped"]}


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_norms_vectors_go_with_the_axis_that_each_is_of(norm, dim, axis):
    def make():
        torch.manual_seed(0)
        return norm(nn.Linear(3, 3, bias=False), dim=dim)

    before = make().state_dict()
    info = VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"], axis=axis)
    original = next(name for name in before if "orig" in name)
    with pytest.raises(tws.PlanError, match="_u, of the" if axis == dim else "_v, of the"):
        _start(make, {original: info})

    model = make()
    tws.warm_start(model, WarmStartSettings(before, [".*"], {"": info}))
    moved = "_u" if axis == dim else "_v"
    for name, tensor in model.state_dict().items():
        of_axis = axis if name == original else 0 if name.endswith(moved) else None
        rows = torch.tensor([2, 0, 1] if of_axis is not None else [0, 1, 2])
        assert torch.equal(tensor, before[name].index_select(of_axis or 0, rows)), name


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_a_norms_vector_of_several_axes_cannot_follow_one_of_them(norm):
    def make():
        return norm(nn.Conv1d(3, 2, 2, bias=False))

    original = next(name for name in make().state_dict() if "orig" in name)
    moved = VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"], axis=1)
    with pytest.raises(tws.PlanError, match="has a number for each place along several of its"):
        _start(make, {original: moved})
    _start(make, {original: VocabInfo(["b", "a"], old_vocab=["b", "a"])})
    settings = WarmStartSettings(make().state_dict(), [".*orig"], {original: moved})
    assert not tws.warm_start(make(), settings).notes  # as it says


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 2))
        self.scale = nn.Parameter(torch.randn(3))
        self.other = nn.Parameter(torch.randn(4))


def test_of_a_module_that_nobody_knows_it_is_a_warning():
    with pytest.warns(tws.WarmStartWarning, match="table takes its rows as .* scale, of the same"):
        report = _start(Scaled, {"table": SHUFFLED})
    assert [note.code for note in report.notes] == ["rows-of-one-layer"]
    assert not _start(Scaled, {"table": SHUFFLED, "scale": SHUFFLED}).notes


def test_a_module_that_nobody_knows_stays_so_when_torch_computes_one_of_its_weights():
    def make():
        return parametrizations.weight_norm(Scaled(), "other", dim=None)

    with pytest.warns(tws.WarmStartWarning, match="table takes its rows as .* scale, of the same"):
        _start(make, {"table": SHUFFLED})


def test_what_is_said_of_both_is_meant():
    make, _ = LAYERS["a bias"]
    assert not _start(make, {"weight": SHUFFLED, "bias": ClipOrPad()}).notes


def test_a_container_of_very_many_parameters_is_looked_through_once(monkeypatch):
    asked, original = [], half_changed.attribute_of
    monkeypatch.setattr(
        half_changed, "attribute_of", lambda leaf: asked.append(leaf) or original(leaf)
    )

    def make():
        return nn.ParameterDict({f"f{at}": nn.Parameter(torch.randn(3, 2)) for at in range(300)})

    _start(make, {"f0": SHUFFLED})
    assert sorted(asked) == sorted(f"f{at}" for at in range(300))
