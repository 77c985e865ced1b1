"""Where a tensor lies in a Keras file is no name: `layers/dense_1` is a class and a number."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings

pytest.importorskip("h5py")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]
KINDS = ["keras", "weights.h5", "h5", "checkpoint"]


def save(keras, model, kind, folder):
    path = str(folder / f"m.{kind}")
    if kind == "checkpoint":
        import tensorflow as tf

        return tf.train.Checkpoint(model=model).save(path)
    (model.save_weights if kind == "weights.h5" else model.save)(path)
    return path


def towers(keras):
    """Two towers, of which the second is made first: classes and numbers are in another order."""
    layers, first, second = keras.layers, keras.Input((4,)), keras.Input((4,))

    def tower(values, names):
        for name in names:
            values = layers.Dense(8, name=name)(values)
        return values

    ends = [tower(first, ("dense_2", "dense_3")), tower(second, ("dense", "dense_1"))]
    model = keras.Model([second, first], layers.Add()(ends))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def torch_towers():
    sizes = {"dense": 4, "dense_1": 8, "dense_2": 4, "dense_3": 8}
    return nn.ModuleDict({name: nn.Linear(size, 8) for name, size in sizes.items()})


def test_folders_are_not_names_and_the_error_proposes_rules(tmp_path):
    keras = pytest.importorskip("tf_keras")
    path = save(keras, towers(keras), "weights.h5", tmp_path)
    with pytest.raises(PlanError) as caught:
        tws.warm_start(torch_towers(), path)
    (problem,) = caught.value.problems
    assert problem.code == "layers-without-names"
    assert "dense.weight is not in the checkpoint" in problem.text
    assert "'layers/dense" in problem.hint
    assert "  low" in problem.hint
    assert "high" not in problem.hint
    kept = tws.plan_warm_start(torch_towers(), WarmStartSettings(path, on_missing="keep"))
    assert all(item.state == "kept" for item in kept.items)
    assert {note.code for note in kept.notes} == {"layers-without-names", "everything-kept"}
    rule = {"dense.": "layers/dense/"}  # a user may name it
    plan = tws.plan_warm_start(
        torch_towers(), WarmStartSettings(path, "dense[.]", var_name_to_prev_var_name=rule)
    )
    assert plan.items[0].keys == ("layers/dense/vars/0",)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_layers_are_found_by_their_names_whatever_their_folders(version, kind, tmp_path):
    if (version, kind) == ("tf_keras", "weights.h5"):
        pytest.skip("such a file has no names of layers")
    keras = pytest.importorskip(version)
    keras.backend.clear_session()
    model, ours = towers(keras), torch_towers()
    tws.warm_start(ours, save(keras, model, kind, tmp_path))
    for name, layer in ours.items():
        kernel = model.get_layer(name).get_weights()[0]
        assert np.array_equal(layer.weight.detach().numpy().T, kernel), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_a_new_layer_does_not_get_what_a_model_within_has_by_that_name(version, kind, tmp_path):
    keras = pytest.importorskip(version)
    keras.backend.clear_session()
    layers = keras.layers
    backbone = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="proj")], name="backbone")
    model = keras.Sequential([layers.Input((4,)), backbone, layers.Dense(4, name="out")])
    inner = nn.ModuleDict({"proj": nn.Linear(4, 4)})
    ours = nn.ModuleDict({"backbone": inner, "out": nn.Linear(4, 4), "proj": nn.Linear(4, 4)})
    settings = WarmStartSettings(save(keras, model, kind, tmp_path), on_missing="keep")
    states = {item.name: item.state for item in tws.plan_warm_start(ours, settings).items}
    assert states["proj.weight"] == states["proj.bias"] == "kept"
    if version == "keras":
        assert states["backbone.proj.weight"] == "converted"


@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_of_layers_with_one_name_the_error_says_where_each_is(version, tmp_path):
    keras = pytest.importorskip(version)
    keras.backend.clear_session()

    def within(name):
        values = keras.Input((4,))
        return keras.Model(values, keras.layers.Dense(4, name="c1")(values), name=name)

    values = keras.Input((4,))
    model = keras.Model(values, within("b")(within("a")(values)))
    path = save(keras, model, "checkpoint", tmp_path)
    ours = nn.ModuleDict({"c1": nn.Linear(4, 4)})
    with pytest.raises(PlanError, match="found under different keys") as caught:
        tws.plan_warm_start(ours, path)
    text = str(caught.value)
    with tws.load_checkpoint(path) as checkpoint:
        (key, other) = checkpoint.full_names()["c1/kernel"]
        paths = [checkpoint.object_paths(key)[0] for key in (key, other)]
    assert all(f"in the saved model: {path!r}" in text for path in paths)
    for where, layer in zip(sorted(paths), model.layers[1:], strict=True):
        bias = where.replace("_kernel", "bias").replace("kernel", "bias")
        rules = {"c1.weight": where, "c1.bias": bias}
        tws.warm_start(ours, WarmStartSettings(path, var_name_to_prev_var_name=rules))
        assert np.array_equal(ours["c1"].weight.detach().numpy().T, layer.get_weights()[0])
