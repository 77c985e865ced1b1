"""Names of variables that real TensorFlow and Keras make, found on our side."""

from __future__ import annotations

import numpy as np
import pytest
from names_helpers import error, keys_of, linear
from torch import nn

import torch_warmstart as tws
from torch_warmstart import WarmStartSettings

# -- real TensorFlow and Keras ---------------------------------------------------------------------

LAYERS = ("emb", "den", "bn", "norm", "out")


class Torch(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.den = nn.Linear(4, 4)
        self.bn = nn.BatchNorm1d(4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 4)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = Torch()
        self.head = nn.Linear(4, 2)


def _stack(keras):
    layers = keras.layers
    kinds = (
        layers.Embedding(6, 4, name="emb"),
        layers.Dense(4, name="den"),
        layers.BatchNormalization(name="bn"),
        layers.LayerNormalization(name="norm"),
        layers.Dense(4, name="out"),
    )
    return dict(zip(LAYERS, kinds, strict=True))


def _sequential(keras):
    return keras.Sequential([keras.layers.Input((3,)), *_stack(keras).values()])


def _functional(keras):
    inputs = values = keras.layers.Input((3,))
    for layer in _stack(keras).values():
        values = layer(values)
    return keras.Model(inputs, values)


def _subclassed(keras, name=None):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name=name)
            for attribute, layer in _stack(keras).items():
                setattr(self, attribute, layer)

        def call(self, values):
            for attribute in LAYERS:
                values = getattr(self, attribute)(values)
            return values

    model = Subclassed()
    model(np.zeros((2, 3), "int32"))
    return model


def _nested(keras):
    class Nested(keras.Model):
        def __init__(self):
            super().__init__()
            self.enc = _subclassed(keras, "enc")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, values):
            return self.head(self.enc(values))

    model = Nested()
    model(np.zeros((2, 3), "int32"))
    return model


MODELS = {
    "sequential": (_sequential, Torch),
    "functional": (_functional, Torch),
    "subclassed": (_subclassed, Torch),
    "nested": (_nested, Outer),
}
# What is not in a file cannot be found: tf_keras saves no names of layers in `.weights.h5`, and
# not those of subclassed models in `.keras`; Keras 3's export() keeps no attributes.
WITHOUT_NAMES = {
    ("tf_keras", "weights.h5"),
    ("tf_keras", "keras", "subclassed"),
    ("tf_keras", "keras", "nested"),
    ("tf_keras", "h5", "subclassed"),
    ("tf_keras", "h5", "nested"),
    ("keras", "export", "subclassed"),
    ("keras", "export", "nested"),
}


def _save(keras, model, kind, folder):
    import tensorflow as tf

    path = str(folder / "saved")
    if kind == "weights.h5":
        model.save_weights(f"{path}.weights.h5")
        return f"{path}.weights.h5"
    if kind in ("keras", "h5"):
        model.save(f"{path}.{kind}")
        return f"{path}.{kind}"
    if kind == "export":
        model.export(path, verbose=False) if hasattr(model, "export") else model.save(path)
        return path
    if kind == "name-based":
        names = {getattr(w, "path", w.name).removesuffix(":0"): w for w in model.weights}
        values = {name: getattr(w, "_value", w) for name, w in names.items()}
        assert len(values) == len(model.weights)
        return tf.compat.v1.train.Saver(values).save(None, path)
    tracked = tf.train.Checkpoint(model) if kind == "root" else tf.train.Checkpoint(model=model)
    return tracked.save(path)


@pytest.mark.tensorflow
@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize(
    "kind", ["root", "attribute", "name-based", "weights.h5", "keras", "h5", "export"]
)
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_the_same_names_of_layers_need_no_rule(version, kind, made, tmp_path):
    if {(version, kind), (version, kind, made)} & WITHOUT_NAMES:
        pytest.skip("such a file has no names of layers")
    keras = pytest.importorskip(version)
    make, torch_model = MODELS[made]
    model = make(keras)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    if (version, kind) == ("tf_keras", "export"):
        pytest.skip("tf_keras exports the checkpoint that Checkpoint(model) writes")
    ours = torch_model()
    report = tws.warm_start(ours, WarmStartSettings(_save(keras, model, kind, tmp_path), [".*"]))
    assert not [name for name in report.missing_keys if not name.endswith("_tracked")]
    layers = {f"enc.{n}": model.enc for n in LAYERS} if made == "nested" else {}
    layers = layers or dict.fromkeys(LAYERS, model)
    for path, around in layers.items():
        found = [layer for layer in around.layers if layer.name == path.rpartition(".")[2]]
        theirs = found[0].get_weights()
        own = dict(ours.get_submodule(path).state_dict())
        own.pop("num_batches_tracked", None)
        for value, (leaf, tensor) in zip(theirs, own.items(), strict=True):
            is_kernel = leaf == "weight" and isinstance(ours.get_submodule(path), nn.Linear)
            assert np.array_equal(value.T if is_kernel else value, tensor.numpy()), (path, leaf)


class TimeDistributed(nn.Module):
    def __init__(self):
        super().__init__()
        self.td = nn.Linear(4, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.td(x))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["root", "attribute", "name-based", "weights.h5", "keras", "h5"])
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_what_time_distributed_has_inside_is_found_by_its_name(version, kind, tmp_path):
    if (version, kind) in WITHOUT_NAMES:
        pytest.skip("such a file has no names of layers")
    keras = pytest.importorskip(version)
    layers = keras.layers
    inner = layers.Dense(3, name="inner")
    model = keras.Sequential(
        [
            layers.Input((5, 4)),
            layers.TimeDistributed(inner, name="td"),
            layers.Dense(2, name="out"),
        ]
    )
    ours = TimeDistributed()
    tws.warm_start(ours, _save(keras, model, kind, tmp_path))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    assert tws.verify_port(ours, x, np.asarray(model(x)))


@pytest.mark.parametrize("before", ["", "net/"])
def test_what_is_alone_in_a_wrapper_is_found(write, before):
    checkpoint = write(linear(f"{before}td/inner", 2, 3))
    model = nn.ModuleDict({"td": nn.Linear(2, 3)})
    assert keys_of(model, checkpoint) == {
        "td.weight": f"{before}td/inner/kernel",
        "td.bias": f"{before}td/inner/bias",
    }
    plan = tws.plan_warm_start(model, checkpoint)
    assert plan.items[0].reason == "TensorFlow's name, in a wrapper"


@pytest.mark.parametrize(
    "shapes",
    [
        {**linear("td/a"), **linear("td/b")},
        {**linear("td/a"), "td/norm/gamma": (2,)},
        {"td/a/kernel": (2, 2), "td/b/bias": (2,), "td/c/bias": (2,)},
        {"td/a/kernel": (2, 2)},
        {"td/a/kernel": (2, 2), "td/b/bias": (2,)},
        {**linear("td/a"), "td/g": (2,)},
    ],
)
def test_of_several_in_a_wrapper_none_is_found(write, shapes):
    text = error(nn.ModuleDict({"td": nn.Linear(2, 2)}), write(shapes))
    assert "1. td.weight is not in the checkpoint. Nearest: " in text


def test_what_another_variable_finds_is_not_in_a_wrapper(write):
    model = nn.ModuleDict({"td": nn.Linear(2, 2), "inner": nn.Linear(2, 2)})
    text = error(model, write(linear("td/inner")))
    assert "has 2 problems" in text
    assert "1. td.weight is not in the checkpoint" in text


@pytest.mark.tensorflow
def test_a_recurrent_layer_of_a_subclassed_model_is_found_by_its_attribute(tmp_path):
    keras = pytest.importorskip("keras")
    import tensorflow as tf

    class Tagger(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = keras.layers.LSTM(3)

        def call(self, values):
            return self.lstm(values)

    model = Tagger()
    model(np.zeros((1, 2, 2), "float32"))
    ours = nn.ModuleDict({"lstm": nn.LSTM(2, 3)})
    prefix = tf.train.Checkpoint(model=model).save(str(tmp_path / "c"))
    keys = keys_of(ours, prefix)
    assert len(keys) == 4
    assert all("lstm/cell/" in key for key in keys.values())
    with tws.load_checkpoint(prefix) as checkpoint:
        (kernel,) = checkpoint.keys_like("lstm/c*l/kernel", in_a_scope=True)
        assert checkpoint.keys_like("model/lstm/c*l/kernel") == (kernel,)
        assert checkpoint.keys_like("lstm/c*l/kernel") == ()


def test_a_scope_finds_a_tied_variable_under_any_of_its_names(write):
    model = nn.ModuleDict({"head": nn.Linear(2, 3, bias=False), "words": nn.Embedding(3, 2)})
    model["head"].weight = model["words"].weight
    checkpoint = write({"old/words/embeddings": (3, 2)})
    settings = WarmStartSettings(checkpoint, var_name_to_prev_var_name={"/": "old/"})
    report = tws.warm_start(model, settings)
    assert report["head.weight"].key == "old/words/embeddings"
    assert report["head.weight"].state == "renamed"
