"""What is said of slots is what happens to them, and what counts steps is found where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws

M, V = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


@pytest.fixture
def tf_checkpoint(tmp_path):
    def write(tensors):
        entries = []
        for key, values in sorted(tensors.items()):
            array = np.asarray(values)
            is_count = array.dtype == np.int64
            dtype, kind = (DType.INT64, "<i8") if is_count else (DType.FLOAT, "<f4")
            entries.append(BundleEntry(key, dtype, array.shape, array.astype(kind).tobytes()))
        write_bundle(str(tmp_path / "m"), entries)
        return str(tmp_path / "m")

    return write


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))


def _start(source, kind=torch.optim.Adam, settings=None, **options):
    model = One()
    optimizer = kind(model.parameters(), **options)
    settings = tws.WarmStartSettings(source, **(settings or {}))
    return optimizer.state[model.w], tws.warm_start(model, settings, optimizer=optimizer)


# -- counts of steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["training/", "", "training_1/"])
@pytest.mark.parametrize("count", ["global_step", "train/global_step"])
def test_the_global_step_counts_for_a_keras_optimizer_of_an_estimator(tf_checkpoint, scope, count):
    slots = {f"{scope}Adam/w/m": M, f"{scope}Adam/w/v": V, count: np.int64(7)}
    state, report = _start(tf_checkpoint({"w": M, **slots}))
    assert state["step"] == 7
    assert state["exp_avg"].tolist() == M
    assert report["w/step"].keys == (count,)


@pytest.mark.parametrize(
    ("kind", "words"), [(torch.optim.RMSprop, ["rms"]), (torch.optim.Adagrad, ["accumulator"])]
)
def test_of_other_keras_optimizers_too(tf_checkpoint, kind, words):
    folder = f"training/{kind.__name__}/w"
    slots = {f"{folder}/{word}": V for word in words}
    prefix = tf_checkpoint({"w": M, **slots, "global_step": np.int64(7)})
    assert _start(prefix, kind)[0]["step"] == 7
    state, report = _start(tf_checkpoint({"w": M, **slots}), kind)
    assert state["step"] == 0
    assert "counts no steps" in report["w/step"].reason


def test_an_optimizers_own_count_comes_first(tf_checkpoint):
    slots = {"training/Adam/w/m": M, "training/Adam/w/v": V, "training/Adam/iter": np.int64(5)}
    state, _ = _start(tf_checkpoint({"w": M, **slots, "global_step": np.int64(7)}))
    assert state["step"] == 5


# -- one truth -------------------------------------------------------------------------------------


def test_a_slot_that_is_named_is_not_said_to_stay():
    old = {"emb.weight": torch.ones(2, 1), "s": torch.tensor([[1.0], [2.0]])}
    model = nn.ModuleDict({"emb": nn.Embedding(3, 1)})
    optimizer = torch.optim.Adagrad(model.parameters())
    settings = tws.WarmStartSettings(
        {"model": old, "optimizer": nn_state()},
        [".*"],
        {"emb.weight": tws.VocabInfo(["b", "c", "a"], 3, 0, ["a", "b"])},
        {"emb.weight/sum": "s"},
        on_missing="keep",
    )
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert report["emb.weight/sum"].state == "remapped"
    assert optimizer.state[model["emb"].weight]["sum"].tolist() == [[2.0], [0.0], [1.0]]
    (note,) = [n for n in report.notes if n.code.startswith("state-")]
    assert note.code == "state-in-parts"
    assert "'emb.weight/sum'" in str(note)
    assert "with all of its slots" not in str(note)


@pytest.mark.parametrize(
    ("make", "slot"),
    [
        (torch.optim.Adagrad, "sum"),
        (torch.optim.Adam, "exp_avg"),
        (torch.optim.RMSprop, "square_avg"),
    ],
)
def test_a_slot_that_is_named_is_not_said_to_stay_where_no_optimizer_was_saved(make, slot):
    old = {"emb.weight": torch.ones(2, 1), "s": torch.tensor([[1.0], [2.0]])}
    model = nn.ModuleDict({"emb": nn.Embedding(3, 1)})
    optimizer = make(model.parameters())
    settings = tws.WarmStartSettings(
        old,
        var_name_to_vocab_info={"emb.weight": tws.VocabInfo(["b", "c", "a"], 3, 0, ["a", "b"])},
        var_name_to_prev_var_name={f"emb.weight/{slot}": "s"},
        on_missing="keep",
    )
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert report[f"emb.weight/{slot}"].state == "remapped"
    assert [n.code for n in report.notes if n.severity == "warning"] == ["state-in-parts"]
    assert "stay as they are, which may not go together" in str(report)


def nn_state():
    """Of another optimizer, for another parameter."""
    other = nn.Linear(1, 1)
    optimizer = torch.optim.Adagrad(dict(other.named_parameters()).items())
    other(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def test_states_that_are_whole_and_named_in_part_are_told_apart(tf_checkpoint):
    model = nn.ParameterDict({"a": torch.zeros(3), "b": torch.zeros(3)})
    optimizer = torch.optim.Adam(model.parameters())
    tensors = {"a": M, "b": M, "a/Adam": M, "b/Adam": V, "x": V}
    settings = tws.WarmStartSettings(
        tf_checkpoint(tensors), ".*", None, {"b/exp_avg": "x"}, on_missing="keep"
    )
    report = tws.warm_start(model, settings, optimizer=optimizer)
    texts = {note.code: (note.subject, str(note)) for note in report.notes}
    assert texts["state-not-whole"][0] == "a"
    assert "1 parameter (such as 'a')" in texts["state-not-whole"][1]
    assert texts["state-in-parts"][0] == "b"
    assert optimizer.state[model["b"]]["exp_avg"].tolist() == V
    assert model["a"] not in optimizer.state


# -- optimizers without a counterpart --------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.ASGD, torch.optim.Rprop])
@pytest.mark.parametrize("selection", [".*", [".*"]])
def test_an_optimizer_that_tensorflow_has_nothing_like_is_said(tf_checkpoint, kind, selection):
    prefix = tf_checkpoint({"w": M, "SGD/w/momentum": V, "SGD/iter": np.int64(3)})
    state, report = _start(prefix, kind, {"vars_to_warm_start": selection})
    assert not state
    (warning,) = report.notes
    assert (warning.code, warning.severity) == ("optimizer-begins-anew", "warning")
    assert kind.__name__ in str(warning)
