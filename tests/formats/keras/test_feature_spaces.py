"""The vocabularies of a FeatureSpace that was saved by itself, by the names of its features."""

from __future__ import annotations

import json
import zipfile

import pytest

import torch_warmstart as tws

pytest.importorskip("h5py")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

ROWS = {
    "z": ["z1", "z2", "z2"],
    "ids": [3, 3, 9],
    "amount": [1.0, 2.0, 3.0],
    "a": ["a1", "a2", "a2"],
    "hashed": ["h", "h", "h"],
    "m": ["m1", "m2", "m2"],
    "words": ["t1 t2", "t2", "t2"],
}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """One whose features do not stand in the order of their names, and where it is saved."""
    keras, tf = (pytest.importorskip(name) for name in ("keras", "tensorflow"))
    kinds = keras.utils.FeatureSpace
    words = keras.layers.TextVectorization(output_mode="int")
    features = {
        "z": kinds.string_categorical(output_mode="int"),
        "ids": kinds.integer_categorical(output_mode="one_hot"),
        "a": kinds.string_categorical(num_oov_indices=2),
        "hashed": kinds.string_hashed(8),
        "amount": kinds.float_normalized(),
        "m": kinds.string_categorical(),
        "words": kinds.feature("string", words, "int"),
    }
    made = kinds(features, output_mode="dict")
    made.adapt(tf.data.Dataset.from_tensor_slices(ROWS).batch(2))
    path = tmp_path_factory.mktemp("spaces") / "space.keras"
    made.save(path)
    return made, path


def test_each_features_vocabulary_is_keras_own(space):
    made, path = space
    with tws.load_checkpoint(path) as checkpoint:
        found = checkpoint.vocabularies()
    layers = {n: p for n, p in made.preprocessors.items() if hasattr(p, "get_vocabulary")}
    assert list(found) == list(layers) == ["z", "ids", "a", "m", "words"]
    for name, layer in layers.items():
        own = tws.Vocabulary.load(layer)
        assert list(found[name].entries) == list(own.entries)
        assert dict(found[name].special) == dict(own.special)
        assert found[name].fingerprint == own.fingerprint
    assert len(tws.Vocabulary.load(path, key="a")) == 4


def test_what_a_configuration_claims_is_looked_at_before_it_is_used(space, tmp_path):
    _, path = space
    broken = [{"features": 3}, {"features": {"a": 3, "b": {"class_name": "F", "config": {}}}}, {}]
    for number, config in enumerate(broken):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.keras", "w") as new:
            for name in old.namelist():
                said = {**json.loads(old.read("config.json")), "config": config}
                new.writestr(name, json.dumps(said) if name == "config.json" else old.read(name))
        with tws.load_checkpoint(tmp_path / "b.keras") as checkpoint:
            assert not checkpoint.vocabularies(), number
