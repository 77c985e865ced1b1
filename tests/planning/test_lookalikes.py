"""Layers that keep tensors of the same names and shapes: told by the file, or warned of."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from torch import nn

import torch_warmstart as tws

KERNEL = np.ones((3, 3, 4, 4), "f4")


def _weights(path, layer, kernel=KERNEL):
    """A file of weights alone, as Keras 2 writes them: no class of any layer."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode()]
        group = file.create_group(layer)
        group.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
        group[f"{layer}/kernel:0"] = kernel
    return str(path)


def _codes(path, name, module):
    return [note.code for note in tws.plan_warm_start(nn.ModuleDict({name: module}), path).notes]


def _conv():
    return nn.Conv2d(4, 4, 3, bias=False)


def _transposed():
    return nn.ConvTranspose2d(4, 4, 3, bias=False)


@pytest.mark.parametrize(
    ("name", "module", "is_told"),
    [
        ("up", _conv, True),
        ("deconv_1", _conv, True),
        ("block1", _conv, True),
        ("block1_conv2", _conv, False),
        ("conv2d_7", _conv, False),
        ("block1_conv2", _transposed, True),
        ("upsample", _transposed, False),
        ("conv2d_transpose", _transposed, False),
        ("groups", _transposed, True),
        ("transition1", _transposed, True),
        ("group_conv", _conv, False),
        ("transition1_conv", _conv, False),
        ("convUp", _transposed, False),
        ("Deconv", _transposed, False),
        ("conv_up1", _conv, True),
    ],
)
def test_a_square_kernel_of_no_class_is_warned_of(name, module, is_told, tmp_path):
    path = _weights(tmp_path / "w.h5", name)
    assert ("layout-presumed" in _codes(path, name, module())) is is_told
    plan = tws.plan_warm_start(nn.ModuleDict({name: module()}), path)
    assert plan.inferred == ((f"{name}.weight",) if is_told else ())


def test_a_kernel_that_is_not_square_tells_itself(tmp_path):
    path = _weights(tmp_path / "w.h5", "up", np.ones((3, 3, 4, 8), "f4"))
    assert not _codes(path, "up", nn.Conv2d(4, 8, 3, bias=False))


@pytest.mark.parametrize(
    ("name", "module"), [("conv2d_transpose_2", _conv), ("conv2d", _transposed)]
)
def test_keras_own_name_tells_the_class(name, module, tmp_path):
    with pytest.raises(tws.PlanError, match="computes something else"):
        _codes(_weights(tmp_path / "w.h5", name), name, module())


def test_it_is_certain_once_it_is_said(tmp_path):
    settings = tws.WarmStartSettings(
        _weights(tmp_path / "w.h5", "up"), var_name_to_layout={"up.weight": "conv"}
    )
    plan = tws.plan_warm_start(nn.ModuleDict({"up": _conv()}), settings)
    assert not plan.inferred
    assert "layout-presumed" not in [note.code for note in plan.notes]


NORMS = {
    "batch": ("BatchNormalization", {}, {"BatchNorm1d"}),
    "layer": ("LayerNormalization", {}, {"LayerNorm"}),
    "rms": ("RMSNormalization", {}, {"RMSNorm"}),
    "groups": ("GroupNormalization", {"groups": 2}, {"GroupNorm"}),
    "one-group": ("GroupNormalization", {"groups": 1}, {"GroupNorm"}),
    "channels": ("GroupNormalization", {"groups": -1}, {"GroupNorm", "InstanceNorm1d"}),
}


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_is_none_of_another_class(norm, tmp_path):
    keras = pytest.importorskip("keras")
    made = {
        "BatchNorm1d": nn.BatchNorm1d(4),
        "LayerNorm": nn.LayerNorm(4, elementwise_affine=True),
        "RMSNorm": nn.RMSNorm(4),
        "GroupNorm": nn.GroupNorm({"groups": 2, "one-group": 1}.get(norm, 4), 4),
        "InstanceNorm1d": nn.InstanceNorm1d(4, affine=True),
    }
    kind, options, same = NORMS[norm]
    layer = getattr(keras.layers, kind)(name="norm", **options)
    keras.Sequential([keras.Input((4,)), layer]).save(tmp_path / "m.keras")
    settings = tws.WarmStartSettings(tmp_path / "m.keras", [".*"])
    for name in same:
        tws.plan_warm_start(nn.ModuleDict({"norm": made[name]}), settings)
    for name in made.keys() - same:
        with pytest.raises(tws.PlanError, match="computes something else than"):
            tws.plan_warm_start(nn.ModuleDict({"norm": made[name]}), settings)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_exported", [False, True])
def test_in_an_object_graph_too(is_exported, tmp_path):
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")

    def saved(name, layer, shape):
        inputs = keras.Input(shape)
        model = keras.Model(inputs, layer(inputs))
        if is_exported:
            model.export(str(tmp_path / name), verbose=False)
            return str(tmp_path / name)
        return tf.train.Checkpoint(model=model).write(str(tmp_path / name))

    layers = keras.layers
    up = saved("up", layers.Conv2DTranspose(4, 3, use_bias=False, name="up"), (8, 8, 4))
    assert "layout-presumed" in _codes(up, "up", _conv())
    rms = saved("norm", layers.RMSNormalization(name="norm"), (4,))
    for module in (nn.LayerNorm(4), nn.LayerNorm(4, bias=False)):
        with pytest.raises(tws.PlanError, match="rms_normalization"):
            _codes(rms, "norm", module)
    assert not _codes(rms, "norm", nn.RMSNorm(4))
