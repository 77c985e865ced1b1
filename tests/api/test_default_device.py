"""A default device of the caller's (`torch.set_default_device`) is that of the caller's own code.

The meta device stands for one that is not the CPU: nothing can be worked out there.
"""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from bundle_writer import FULL, BundleEntry, DType, write_bundle
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart import SegmentInfo, VocabInfo, WarmStartSettings

TABLE = torch.arange(12.0).reshape(4, 3)
OLD, NEW = list("abcd"), list("dxa")


def _bundle(path):
    parts = [(((at, 2), FULL), TABLE[at : at + 2].numpy().tobytes()) for at in (0, 2)]
    write_bundle(path, [BundleEntry("weight", DType.FLOAT, (4, 3), slices=parts)])


WRITERS = {
    "torch": lambda path: torch.save({"weight": TABLE}, path),
    "safetensors": lambda path: save_file({"weight": TABLE}, path),
    "npz": lambda path: np.savez_compressed(path, weight=TABLE.numpy()),
    "bundle": _bundle,
    "dcp": lambda path: dcp.save({"weight": TABLE}, checkpoint_id=path, no_dist=True),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    path = str(tmp_path / f"file.{request.param}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about one process
        WRITERS[request.param](path)
    return path


def _new(model, source, **more):
    infos = {"weight": VocabInfo(NEW, old_vocab=OLD, **more)}
    return WarmStartSettings(source, ".*", infos)


def _is_right(model):
    assert torch.equal(model.weight[[0, 2]], TABLE[[3, 0]])


def test_rows_of_any_format_are_moved(written):
    model = nn.Embedding(3, 3)
    with torch.device("meta"):
        tws.warm_start(model, _new(model, written))
    _is_right(model)


def test_tensors_of_any_format_are_read(written):
    with torch.device("meta"), tws.load_checkpoint(written) as checkpoint:
        whole, some = checkpoint.get_tensor("weight"), checkpoint.get_tensor("weight", rows=[2, 0])
    assert torch.equal(whole, TABLE)
    assert torch.equal(some, TABLE[[2, 0]])


VECTORS = (["a", "b", "x"], torch.eye(3))


@pytest.mark.parametrize(
    "initializer",
    [
        tws.init.normal(),
        tws.init.mean() + tws.init.noise(0.1),
        tws.init.similar(VECTORS, k=2),
        tws.init.omp(VECTORS, k=2),
        tws.init.group_mean({"a": "1", "x": "1"}) | tws.init.mean(),
        tws.init.alias({"x": "a"}) | tws.init.mean(),
        tws.init.subword({"x": ["a", "b"]}) | tws.init.mean(),
        nn.init.zeros_,
    ],
    ids=["normal", "noise", "similar", "omp", "groups", "alias", "subword", "torch"],
)
def test_new_rows_are_made(initializer):
    model = nn.Embedding(3, 3)
    with torch.device("meta"):
        tws.warm_start(model, _new(model, {"weight": TABLE}, backup_initializer=initializer))
    _is_right(model)


def test_columns_slots_and_plans_follow():
    model, old = nn.Linear(4, 2, bias=False), torch.arange(6.0).reshape(2, 3)
    optimizer = torch.optim.Adagrad(model.parameters())
    state = {"step": torch.tensor(1.0), "sum": old + 1}
    source = {
        "model": {"weight": old},
        "optimizer": {"state": {0: state}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    infos = {"weight": SegmentInfo({"a": 1, "b": 3}, {"c": 2, "a": 1})}
    with torch.device("meta"):
        settings = WarmStartSettings(source, ".*", infos)
        tws.apply_plan(tws.plan_warm_start(model, settings, optimizer=optimizer))
    assert torch.equal(model.weight[:, 0], old[:, 2])
    assert torch.equal(optimizer.state[model.weight]["sum"][:, 0], old[:, 2] + 1)


def test_vocabularies_are_compared_and_kept(tmp_path):
    with torch.device("meta"):
        vocabulary = tws.Vocabulary.load(OLD)
        later = tws.update_vocabulary(vocabulary, {"a": 2, "z": 1})
        changes = tws.diff_vocabularies(vocabulary, later)
        rows, found = tws.generate_vocab_remapping(NEW, OLD)
        later.save(tmp_path / "later.txt")
    assert (rows.tolist(), found) == ([3, -1, 0], 2)
    assert vocabulary.rows(["c", "q"]).tolist() == [2, -1]
    assert str(changes)


def test_a_live_model_gets_another_vocabulary():
    model = nn.Embedding.from_pretrained(TABLE.clone())
    with torch.device("meta"):
        tws.change_vocabulary(model, {"weight": VocabInfo(NEW, old_vocab=OLD)})
    _is_right(model)


def test_the_callers_code_has_the_callers_default():
    seen = []
    model = nn.Embedding(3, 3)
    look = lambda *_: seen.append(torch.empty(0).device.type)  # noqa: E731
    model._register_load_state_dict_pre_hook(look)
    with torch.device("meta"):
        tws.warm_start(model, _new(model, {"weight": TABLE}, backup_initializer=look))
        assert torch.empty(0).is_meta
    assert set(seen) == {"meta"}
    assert len(seen) > 1


def test_a_warning_is_of_the_callers_line():
    model = nn.BatchNorm1d(2)
    with torch.device("meta"), pytest.warns(tws.WarmStartWarning) as warned:
        tws.warm_start(model, model.state_dict())
    assert {warning.filename for warning in warned} == {__file__}


def test_functions_say_what_they_take():
    assert next(iter(inspect.signature(tws.apply_plan).parameters)) == "plan"
    assert tws.apply_plan.__module__ == "torch_warmstart.api"
