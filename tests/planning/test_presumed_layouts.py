"""A square kernel fits either way: what the file says decides, and else it is told or refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

KERNEL = np.arange(9, dtype="f4").reshape(3, 3)
SETTING = "var_name_to_layout"


def _weights(path, layers, version=None):
    """A file of weights alone, as Keras 2 writes them."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.split("/")[0].encode() for name in layers]
        if version:
            file.attrs["keras_version"] = version
        for name, kernel in layers.items():
            group = file.create_group(name.split("/")[0])
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode()]
            group[f"{name}/kernel:0"] = kernel
    return str(path)


def _model(name):
    return nn.ModuleDict({name: nn.Linear(3, 3, bias=False)})


def _plan(path, name="fc", **more):
    return tws.plan_warm_start(_model(name), tws.WarmStartSettings(path, **more))


def _codes(plan):
    return [note.code for note in plan.notes]


def test_of_a_layer_with_a_name_of_its_own_it_is_inferred_and_warned_of(tmp_path):
    path = _weights(tmp_path / "w.h5", {"fc": KERNEL}, "2.9.0")
    plan = _plan(path)
    assert plan.inferred == ("fc.weight",)
    (told,) = [note for note in plan.notes if note.code == "layout-presumed"]
    assert told.severity == "warning"
    assert "var_name_to_layout={'fc.weight': 'transpose'}" in str(told)
    with pytest.warns(tws.WarmStartWarning, match="layout-presumed"):
        tws.warm_start(_model("fc"), path)


@pytest.mark.parametrize(("layout", "right"), [("transpose", KERNEL.T), ("identity", KERNEL)])
def test_it_is_certain_once_it_is_said(tmp_path, layout, right):
    path = _weights(tmp_path / "w.h5", {"fc": KERNEL}, "2.9.0")
    settings = tws.WarmStartSettings(path, var_name_to_layout={"fc.weight": layout})
    model = _model("fc")
    plan = tws.plan_warm_start(model, settings)
    assert not plan.inferred
    assert "layout-presumed" not in _codes(plan)
    tws.apply_plan(plan)
    assert np.array_equal(model["fc"].weight.detach(), right)


@pytest.mark.parametrize("version", ["2.3.0-tf", "2.2.4", "1.2.0"])
def test_keras_had_no_einsum_before_2_4(tmp_path, version):
    plan = _plan(_weights(tmp_path / "w.h5", {"fc": KERNEL}, version))
    assert not plan.inferred
    assert "layout-presumed" not in _codes(plan)


def test_a_name_that_keras_gives_tells_the_class(tmp_path):
    path = _weights(tmp_path / "w.h5", {"dense_1": KERNEL}, "2.9.0")
    assert not _plan(path, "dense_1").inferred
    path = _weights(tmp_path / "e.h5", {"einsum_dense_1": KERNEL}, "2.9.0")
    with pytest.raises(tws.PlanError, match="equation") as error:
        _plan(path, "einsum_dense_1")
    assert [problem.code for problem in error.value.problems] == ["layout-refused"]


def test_beside_an_einsum_that_is_known_it_is_refused(tmp_path):
    path = _weights(tmp_path / "w.h5", {"fc": KERNEL, "einsum_dense": KERNEL}, "2.9.0")
    with pytest.raises(tws.PlanError, match="var_name_to_layout"):
        _plan(path)


def test_a_kernel_that_is_not_square_tells_itself(tmp_path):
    path = _weights(tmp_path / "w.h5", {"fc": np.ones((2, 3), "f4")}, "2.9.0")
    model = nn.ModuleDict({"fc": nn.Linear(2, 3, bias=False)})
    assert not tws.plan_warm_start(model, path).inferred


def test_transformers_writes_no_einsum(tmp_path):
    layer = "bert/tf_bert_model/bert/encoder/layer_._0/query"
    path = _weights(tmp_path / "w.h5", {layer: KERNEL}, "2.9.0")
    model = nn.ModuleDict({"query": nn.Linear(3, 3, bias=False)})
    rule = {"query.weight": next(iter(tws.list_variables(path)))[0]}
    assert "layout-presumed" not in _codes(
        tws.plan_warm_start(model, tws.WarmStartSettings(path, ".*", None, rule))
    )


def test_a_norm_of_the_weight_changes_nothing_of_it(tmp_path):
    path = _weights(tmp_path / "w.h5", {"fc": KERNEL}, "2.9.0")
    model = nn.ModuleDict(
        {"fc": nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3, bias=False))}
    )
    assert len(tws.plan_warm_start(model, path).inferred) == 1


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("export", [False, True])
def test_keras_3_keeps_a_dense_and_an_einsum_alike(tmp_path, export):
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    for name, is_certain in (("fc", False), ("dense", True)):
        inputs = keras.Input((3,))
        original = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name=name)(inputs))
        path = str(tmp_path / name)
        if export:
            original.export(path, verbose=False)
        else:
            path = tf.train.Checkpoint(model=original).write(path)
        model = _model(name)
        plan = tws.plan_warm_start(model, path)
        assert bool(plan.inferred) is not is_certain
        tws.apply_plan(plan)
        kernel = torch.tensor(original.layers[-1].kernel.numpy())
        assert torch.equal(model[name].weight, kernel.T)
