"""Variables that lie on the same memory, and sources that lie on the model's."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings


class Two(nn.Module):
    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = nn.Parameter(one), nn.Parameter(other)


def _alias():
    memory = torch.zeros(4, 2)
    return Two(memory, memory.clone().set_(memory))


def _overlapping():
    memory = torch.zeros(6, 2)
    return Two(memory[:4], memory[2:])


def _numpy():
    memory = np.zeros((6, 2), dtype=np.float32)
    return Two(torch.from_numpy(memory[:4]), torch.from_numpy(memory[2:]))


@pytest.mark.parametrize("make", [_alias, _overlapping, _numpy])
def test_two_values_for_the_same_memory_are_an_error(make):
    model = make()
    source = {"one": torch.ones(4, 2), "other": torch.full((4, 2), 2.0)}
    with pytest.raises(tws.SettingsError, match="'one' and 'other' share memory"):
        tws.warm_start(model, source)
    assert not model.one.any()
    assert not model.other.any()


@pytest.mark.parametrize("make", [_alias, _overlapping, _numpy])
def test_the_same_values_for_the_same_memory_are_written(make):
    model = make()
    whole = torch.arange(12.0).view(6, 2) if make is not _alias else torch.ones(4, 2)
    source = {"one": whole[:4].clone(), "other": whole[-4:].clone()}
    report = tws.warm_start(model, source)
    assert torch.equal(model.one, source["one"])
    assert torch.equal(model.other, source["other"])
    assert [report[name].state for name in ("one", "other")] == ["copied", "copied"]


def test_columns_that_lie_between_each_other_are_not_shared():
    memory = torch.zeros(3, 4)
    model = Two(memory[:, :2], memory[:, 2:])
    source = {"one": torch.ones(3, 2), "other": torch.full((3, 2), 2.0)}
    report = tws.warm_start(model, source)
    assert memory.tolist() == [[1, 1, 2, 2]] * 3
    assert report.count("copied") == 2


def test_what_lies_on_the_memory_of_another_is_not_called_kept():
    model = _alias()
    report = tws.warm_start(model, WarmStartSettings({"one": torch.ones(4, 2)}, "one"))
    assert model.other.tolist() == [[1, 1]] * 4
    assert report["other"].state == "copied"
    assert report["other"].reason == "shares its memory with one"


def test_rows_that_stay_contradict_what_another_writes_there():
    model = _overlapping()
    info = {"one": VocabInfo(list("abcx"), -1, 0, list("abc"), -1, "keep")}
    source = {"one": torch.ones(3, 2), "other": torch.ones(4, 2)}
    with pytest.raises(tws.SettingsError, match="share memory"):
        tws.warm_start(model, WarmStartSettings(source, ".*", info))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.zeros(1, 3).expand(2, 3), "expanded"),
        (lambda: torch.zeros(5).as_strided((2, 3), (1, 1)), "expanded"),
        (lambda: torch.zeros(2, 3).to_sparse(), "sparse_coo"),
        (lambda: torch.zeros(2, 3, dtype=torch.complex64).conj(), "conjugates or negates"),
        (lambda: torch.zeros(2, 3, dtype=torch.complex64).conj().imag, "conjugates or negates"),
    ],
)
def test_a_tensor_that_cannot_be_filled_is_found_while_planning(make, why):
    model = nn.Module()
    model.fine = nn.Parameter(torch.zeros(2))
    model.weight = nn.Parameter(make())
    source = {"fine": torch.ones(2), "weight": torch.ones(2, 3)}
    with pytest.raises(tws.PlanError, match=f"weight is .*{why}") as error:
        tws.plan_warm_start(model, source)
    assert [problem.code for problem in error.value.problems] == ["unwritable-tensor"]


def test_a_tensor_made_under_inference_mode_is_found_while_planning():
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    source = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    with pytest.raises(tws.PlanError, match="inference_mode"):
        tws.plan_warm_start(model, source)
    with torch.inference_mode():
        plan = tws.plan_warm_start(model, source)
    with pytest.raises(tws.SettingsError, match="inference_mode"):
        tws.apply_plan(plan)
    with torch.inference_mode():
        tws.apply_plan(plan)
    assert model.bias.tolist() == [1, 1]


def test_strides_that_only_look_as_if_they_overlap_are_filled():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(8).as_strided((2, 2), (3, 2)))
    tws.warm_start(model, {"weight": torch.tensor([[1.0, 2], [3, 4]])})
    assert model.weight.tolist() == [[1, 2], [3, 4]]


def test_an_expanded_parameter_that_is_kept_is_no_problem():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1, 3).expand(2, 3))
    model.fine = nn.Parameter(torch.zeros(2))
    settings = WarmStartSettings({"fine": torch.ones(2)}, ".*", on_missing="keep")
    assert tws.warm_start(model, settings).count("copied") == 1


# -- sources ---------------------------------------------------------------------------------------

_INFO = {"weight": VocabInfo(list("dcbaefg"), -1, 0, list("abcdefg"))}
_ORDER = [3, 2, 1, 0, 4, 5, 6]


def test_a_source_that_is_the_models_memory_by_numpy_is_read_first():
    memory = np.arange(16, dtype=np.float32).reshape(8, 2)
    model = nn.Module()
    model.weight = nn.Parameter(torch.from_numpy(memory[:7]))
    expected = torch.tensor(memory[1:][_ORDER])
    tws.warm_start(model, WarmStartSettings({"weight": torch.from_numpy(memory[1:])}, ".*", _INFO))
    assert torch.equal(model.weight, expected)


def test_a_model_is_its_own_source_with_a_tensor_of_no_elements():
    model = nn.Linear(2, 2)
    model.register_buffer("seen", torch.empty(0, 3))
    weight = model.weight.detach().clone()
    report = tws.warm_start(model, WarmStartSettings(model.state_dict(), [".*"]))
    assert report.count("copied") == 3
    assert torch.equal(model.weight, weight)


def test_a_source_that_is_the_file_under_the_model_is_read_first(tmp_path):
    path = tmp_path / "weight.npy"
    values = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.save(path, values)
    memory = np.load(path, mmap_mode="r+")
    model = nn.Module()
    model.weight = nn.Parameter(torch.from_numpy(np.asarray(memory)))
    rename = {"weight": "weight"}
    tws.warm_start(model, WarmStartSettings(str(path), ".*", _INFO, rename))
    assert model.weight.tolist() == values[_ORDER].tolist()


def test_what_a_user_writes_into_a_tensor_does_not_change_the_checkpoint(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    for path in ("m.pt", "m.safetensors"):
        model = nn.Module()
        model.w = nn.Parameter(torch.zeros(2))
        with tws.load_checkpoint(str(tmp_path / path)) as checkpoint:
            checkpoint.get_tensor("w").fill_(5)
            tws.warm_start(model, checkpoint)
        assert model.w.tolist() == [1, 1]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="only Linux tells")
@pytest.mark.parametrize(
    "info", [None, {"other": VocabInfo(["c", "a"], old_vocab=["a", "b", "c"])}]
)
def test_a_parameter_in_a_file_that_is_mapped_to_be_read_only_is_refused(tmp_path, info):
    """To write there would end the process."""
    np.save(tmp_path / "rows.npy", np.zeros((2, 2), np.float32))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is read-only
        model = Two(torch.zeros(2), torch.from_numpy(mapped))
    source = {"one": torch.ones(2), "other": torch.ones(3 if info else 2, 2)}
    with pytest.raises(
        tws.SettingsError, match="other lies in a file that is mapped to be read only"
    ):
        tws.warm_start(model, WarmStartSettings(source, ".*", info))
    assert model.one.count_nonzero() == 0
    tws.warm_start(model, WarmStartSettings(source, "one"))
    assert model.one.count_nonzero() == 2
