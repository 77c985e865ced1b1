"""Two models of Keras's in one object-based checkpoint, whose layers are called alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

WIDTHS = {"gen": (3, 5), "disc": (5, 1)}


@pytest.fixture(scope="module", params=["tf_keras", "keras"])
def saved(request, tmp_path_factory):
    """The checkpoint's path, and the models in it."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip(request.param)

    def make(inputs, outputs):
        x = keras.Input((inputs,))
        model = keras.Model(
            x, keras.layers.Dense(outputs, name="out")(keras.layers.Dense(4, name="hidden")(x))
        )
        rng = np.random.default_rng(inputs)
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        return model

    models = {name: make(*widths) for name, widths in WIDTHS.items()}
    folder = tmp_path_factory.mktemp("both")
    return tf.train.Checkpoint(**models).save(str(folder / "model")), models


class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.hidden, self.out = nn.Linear(inputs, 4), nn.Linear(4, outputs)


def _is_of(net, model):
    kernel, bias, *out = map(torch.from_numpy, model.get_weights())
    pairs = ((net.hidden, (kernel, bias)), (net.out, out))
    return all(torch.equal(a.weight, k.t()) and torch.equal(a.bias, b) for a, (k, b) in pairs)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", WIDTHS)
def test_each_is_taken_by_the_scope_that_the_error_gives(saved, name):
    path, models = saved
    net = Net(*WIDTHS[name])
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(net, path)
    assert "or of all, by what leads there, {'/': 'disc/'} or {'/': 'gen/'}." in str(error.value)
    rules = {"/": f"{name}/"}
    report = tws.warm_start(net, tws.WarmStartSettings(path, var_name_to_prev_var_name=rules))
    assert _is_of(net, models[name])
    assert not report.missing_keys


@pytest.mark.tensorflow
def test_a_model_that_has_both_by_these_names_needs_no_rule(saved):
    path, models = saved
    both = nn.ModuleDict({name: Net(*widths) for name, widths in WIDTHS.items()})
    tws.warm_start(both, path)
    assert all(_is_of(both[name], model) for name, model in models.items())


@pytest.mark.tensorflow
def test_a_name_without_its_models_is_no_name_behind_a_scope(tmp_path):
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("tf_keras")
    inside = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="proj")], name="body")
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, name="out")(inside(x)))
    path = tf.train.Checkpoint(net=model).save(str(tmp_path / "model"))
    net = nn.ModuleDict({"proj": nn.Linear(3, 3), "out": nn.Linear(3, 2)})
    settings = tws.WarmStartSettings(path, on_missing="keep")
    plan = tws.plan_warm_start(nn.ModuleDict({"net": net}), settings)
    states = {item.name: item.state for item in plan.items}
    assert states["net.out.weight"] == "converted"
    assert states["net.proj.weight"] == "kept"
