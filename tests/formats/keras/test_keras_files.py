"""Keras's files, written by Keras 3 and tf_keras themselves and by hand."""

from __future__ import annotations

import json
import os
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from keras_files_helpers import MATRIX, VECTOR, numbered
from torch import nn

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingDependencyError,
    UnsupportedError,
)

h5py = pytest.importorskip("h5py")

SIZES = {"entries": 6, "width": 4}


class Torch(nn.Module):
    """The torch side, with the names that the Keras models give their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(SIZES["entries"], SIZES["width"])
        self.den = nn.Linear(SIZES["width"], SIZES["width"])
        self.bn = nn.BatchNorm1d(SIZES["width"])
        self.norm = nn.LayerNorm(SIZES["width"])
        self.out = nn.Linear(SIZES["width"], SIZES["width"])


# The other side of the names, spelled out here: torch's name, Keras's layer and variable.
PAIRS = [
    ("emb.weight", "emb", "embeddings"),
    ("den.weight", "den", "kernel"),
    ("den.bias", "den", "bias"),
    ("bn.weight", "bn", "gamma"),
    ("bn.bias", "bn", "beta"),
    ("bn.running_mean", "bn", "moving_mean"),
    ("bn.running_var", "bn", "moving_variance"),
    ("norm.weight", "norm", "gamma"),
    ("norm.bias", "norm", "beta"),
    ("out.weight", "out", "kernel"),
    ("out.bias", "out", "bias"),
]


def leaf_values(layer: Any) -> dict[str, Any]:
    """A Keras layer's variables by their own names: `den/kernel:0` and `kernel` are `kernel`."""
    return {
        v.name.removesuffix(":0").rpartition("/")[2]: value
        for v, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def keras_model(keras: Any, *, functional: bool) -> Any:
    """Every weight is another random number, so that none can be taken for another."""
    layers = keras.layers
    stack = [
        layers.Embedding(SIZES["entries"], SIZES["width"], name="emb"),
        layers.Dense(SIZES["width"], name="den"),
        layers.BatchNormalization(name="bn"),
        layers.LayerNormalization(name="norm"),
        layers.Dense(SIZES["width"], name="out"),
    ]
    inputs = layers.Input((3,))
    if functional:
        outputs = inputs
        for layer in stack:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Sequential([inputs, *stack])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def keras3() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def keras2() -> Any:
    return pytest.importorskip("tf_keras")


@pytest.fixture(scope="module", params=[False, True], ids=["sequential", "functional"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: Any, keras3: Any, keras2: Any
) -> dict[str, tuple[Path, Any]]:
    """Files of every kind by what they are called here, each with the model saved in it."""
    folder = tmp_path_factory.mktemp("keras")
    files: dict[str, tuple[Path, Any]] = {}
    for version, keras in (("3", keras3), ("2", keras2)):
        model = keras_model(keras, functional=request.param)
        for name in ("weights.h5", "h5", "keras"):
            path = folder / f"k{version}.{name}"
            save = model.save_weights if name == "weights.h5" else model.save
            save(str(path))
            files[path.name] = (path, model)
    path = folder / "k2-weights-only.h5"
    model.save_weights(str(path))
    files[path.name] = (path, model)
    return files


NAMED = ["k3.weights.h5", "k3.h5", "k3.keras", "k2.h5", "k2.keras", "k2-weights-only.h5"]
NAMELESS = "k2.weights.h5"  # as Keras 3 wrote before it noted the layers' names


# ---- Real files ------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMED)
def test_every_weight_is_found_by_its_keras_name(saved: Any, name: str) -> None:
    path, model = saved[name]
    with tw.load_checkpoint(path) as checkpoint:
        assert checkpoint.family == "tensorflow"
        for _, layer, leaf in PAIRS:
            full = f"{layer}/{leaf}"
            keys = [full] if full in checkpoint else checkpoint.full_names()[full]
            assert len(keys) == 1
            values = leaf_values(model.get_layer(layer))[leaf]
            assert checkpoint[keys[0]].shape == values.shape
            assert checkpoint.get_tensor(keys[0]).numpy().tolist() == values.tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMED)
def test_a_model_with_the_same_names_is_warm_started(saved: Any, name: str) -> None:
    path, model = saved[name]
    new = Torch()
    tw.warm_start(new, tw.WarmStartSettings(str(path), vars_to_warm_start=[".*"]))

    for torch_name, layer, leaf in PAIRS:
        values = leaf_values(model.get_layer(layer))[leaf]
        expected = values.T if leaf == "kernel" else values
        assert new.state_dict()[torch_name].numpy().tolist() == expected.tolist(), torch_name


@pytest.mark.tensorflow
def test_without_layer_names_folders_are_the_names(saved: Any) -> None:
    path, _ = saved[NAMELESS]
    names = tw.load_checkpoint(path).full_names()

    assert names["layers/dense/kernel"] == ("layers/dense/vars/0",)
    assert names["layers/dense_1/bias"] == ("layers/dense_1/vars/1",)
    assert names["layers/batch_normalization/moving_mean"] == ("layers/batch_normalization/vars/2",)
    assert not any(name.startswith("dense") for name in names)  # nobody knows that they are


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [*NAMED, NAMELESS])
def test_optimizer_variables_have_keys_of_their_own(saved: Any, name: str) -> None:
    keys = list(tw.load_checkpoint(saved[name][0]))

    optimizer = [key for key in keys if key.startswith("optimizer")]
    assert bool(optimizer) == (name != "k2-weights-only.h5")
    assert len(keys) == len(set(keys))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [*NAMED, NAMELESS])
def test_rows_are_read_here_and_from_afar(saved: Any, name: str) -> None:
    path, model = saved[name]
    url = f"memory://{uuid.uuid4().hex}/{name}"
    fsspec.filesystem("memory").pipe(url, path.read_bytes())
    values = model.get_layer("emb").get_weights()[0]
    for where in (path, url):
        checkpoint = tw.load_checkpoint(where)
        (key,) = [k for k in checkpoint if checkpoint[k].shape == values.shape and "optim" not in k]
        rows = torch.tensor([5, 0, 0, 2])
        assert checkpoint.get_tensor(key, rows).numpy().tolist() == values[rows].tolist()
        checkpoint.verify(key)


@pytest.mark.tensorflow
def test_the_names_of_many_layers_are_those_of_keras(keras3: Any, tmp_path: Path) -> None:
    """Keras writes the variables' paths into `.h5`, which tells whether we number them right."""
    layers = keras3.layers
    inner_input = keras3.Input((8,))
    inner = keras3.Model(inner_input, layers.Dense(3, name="in_den")(inner_input), name="inner")
    x = inputs = keras3.Input((6, 8))
    for layer in (
        layers.LSTM(4, return_sequences=True, name="ls"),
        layers.GRU(4, return_sequences=True, name="gr"),
        layers.SimpleRNN(8, return_sequences=True, use_bias=False, name="sr"),
        layers.Conv1D(8, 2, padding="same", name="cv"),
        layers.Conv1DTranspose(8, 2, padding="same", use_bias=False, name="ct"),
        layers.SeparableConv1D(8, 2, padding="same", name="sc"),
        layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d", name="ein"),
        layers.PReLU(shared_axes=[1], name="pr"),
        layers.BatchNormalization(scale=False, name="bns"),
        layers.BatchNormalization(center=False, name="bnc"),
        layers.LayerNormalization(scale=False, name="lns"),
        layers.GroupNormalization(2, center=False, name="gn"),
        layers.GlobalAveragePooling1D(),
        inner,
        layers.Dense(3, use_bias=False, name="out"),
    ):
        x = layers.MultiHeadAttention(2, 3, name="mha")(x, x) if layer.name == "pr" else x
        x = layer(x)
    model = keras3.Model(inputs, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")

    with tw.load_checkpoint(tmp_path / "m.h5") as written:
        expected = {key: written.get_tensor(key) for key in written}
    with tw.load_checkpoint(tmp_path / "m.keras") as worked_out:
        for key, tensor in expected.items():
            name = f"inner/{key}" if key.startswith("in_den") else key
            (found,) = worked_out.full_names()[name]
            assert torch.equal(worked_out.get_tensor(found), tensor), key


@pytest.mark.tensorflow
def test_attributes_of_a_model_of_ones_own_are_not_guessed(keras3: Any, tmp_path: Path) -> None:
    class Own(keras3.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = keras3.layers.Dense(3, name="dense")
            self.blocks = [keras3.layers.Dense(3, name="second")]

        def call(self, x: Any) -> Any:
            return self.blocks[0](self.first(x))

    model = Own()
    model(np.zeros((1, 3)))
    model.save_weights(tmp_path / "m.weights.h5")
    checkpoint = tw.load_checkpoint(tmp_path / "m.weights.h5")

    assert "first/vars/0" in checkpoint
    assert set(checkpoint.full_names()) == {
        *("dense/vars/0", "dense/vars/1"),  # its name is known, its class is not
        *("second/kernel", "second/bias", "blocks/dense/kernel", "blocks/dense/bias"),
    }


# ---- Files made by hand ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "arrays", "leaves"),
    [
        ("dense", [MATRIX, VECTOR], ["kernel", "bias"]),
        ("dense_12", [MATRIX], ["kernel"]),
        ("dense", [VECTOR, MATRIX], [None, None]),  # some other class that is called Dense
        ("dense", [MATRIX, VECTOR, VECTOR], [None, None, None]),
        ("dense", [MATRIX.astype("i1"), VECTOR], [None, None]),  # quantised, with a scale
        ("batch_normalization", [VECTOR] * 4, ["gamma", "beta", "moving_mean", "moving_variance"]),
        ("batch_normalization", [VECTOR] * 3, [None, "moving_mean", "moving_variance"]),
        ("batch_normalization", [VECTOR] * 2, ["moving_mean", "moving_variance"]),
        ("layer_normalization", [VECTOR], [None]),  # gamma or beta
        ("my_layer", [MATRIX, VECTOR], [None, None]),
    ],
)
def test_variables_are_named_only_if_one_answer_fits(
    h5: Any, layer: str, arrays: list[Any], leaves: list[str | None]
) -> None:
    path = h5(lambda file: numbered(file, f"layers/{layer}", *arrays, name="mine"))
    names = tw.load_checkpoint(path).full_names()

    expected = {
        f"{owner}/{leaf}": (f"layers/{layer}/vars/{number}",)
        for number, leaf in enumerate(leaves)
        if leaf
        for owner in ("mine", f"layers/{layer}")
    }
    assert names == expected


def archive(path: Path, weights: Path, config: Any, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        text = config if isinstance(config, str) else json.dumps(config)
        file.writestr("config.json", text)
        file.write(weights, "model.weights.h5")
    return path


def config_of(*layers: tuple[str, str, dict[str, Any]], module: str = "keras.layers") -> Any:
    listed = [
        {"module": module, "class_name": kind, "config": {"name": name, **options}}
        for kind, name, options in layers
    ]
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": listed}}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_config_json_names_layers_and_settles_what_is_open(
    h5: Any, tmp_path: Path, method: int
) -> None:
    def fill(file: Any) -> None:
        numbered(file, "layers/layer_normalization", VECTOR)
        numbered(file, "layers/layer_normalization_1", VECTOR)

    config = config_of(
        ("LayerNormalization", "a", {"scale": False}),
        ("LayerNormalization", "b", {"center": False}),
    )
    names = tw.load_checkpoint(archive(tmp_path / "m.keras", h5(fill), config, method)).full_names()

    assert names["a/beta"] == ("layers/layer_normalization/vars/0",)
    assert names["b/gamma"] == ("layers/layer_normalization_1/vars/0",)
    assert "a/gamma" not in names


def test_a_class_of_the_users_own_is_not_named(h5: Any, tmp_path: Path) -> None:
    weights = h5(lambda file: numbered(file, "layers/dense", MATRIX, VECTOR))
    config = config_of(("Dense", "a", {}), module="my_package")

    assert tw.load_checkpoint(archive(tmp_path / "m.keras", weights, config)).full_names() == {}


@pytest.mark.parametrize(
    "config", [[], {}, {"config": []}, {"config": {"layers": [1, {}, {"class_name": 3}]}}, None]
)
def test_a_strange_config_only_costs_names(h5: Any, tmp_path: Path, config: Any) -> None:
    weights = h5(lambda file: numbered(file, "layers/dense", MATRIX, VECTOR))
    checkpoint = tw.load_checkpoint(archive(tmp_path / "m.keras", weights, config))

    assert set(checkpoint.full_names()) == {"layers/dense/kernel", "layers/dense/bias"}


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "\xff"])
def test_a_config_that_is_no_json_is_told(h5: Any, tmp_path: Path, config: str) -> None:
    weights = h5(lambda file: numbered(file, "layers/dense", MATRIX))
    with pytest.raises(CorruptCheckpointError, match=r"its config\.json is no JSON"):
        tw.load_checkpoint(archive(tmp_path / "m.keras", weights, config))


def test_a_damaged_archive_is_told_by_verify(h5: Any, tmp_path: Path) -> None:
    weights = h5(lambda file: numbered(file, "layers/dense", np.ones((100, 100), "f4")))
    path = archive(tmp_path / "m.keras", weights, {})
    data = bytearray(path.read_bytes())
    data[data.index(np.ones(50, "f4").tobytes())] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptCheckpointError, match=r"member 'model\.weights\.h5' is damaged"):
        tw.load_checkpoint(path).verify("layers/dense/vars/0")


def keras2_layer(file: Any, layer: str, weights: dict[str, Any], cut: int | None = None) -> None:
    group = file.create_group(layer)
    names = [name.encode() for name in weights]
    if cut is None:
        group.attrs["weight_names"] = names
    else:
        for number, start in enumerate(range(0, len(names), cut)):
            group.attrs[f"weight_names{number}"] = names[start : start + cut]
    for name, array in weights.items():
        group[name] = array


@pytest.mark.parametrize("cut", [None, 2])
def test_weight_names_are_keys(h5: Any, cut: int | None) -> None:
    weights = {f"d/w{i}:0": VECTOR + i for i in range(5)}
    checkpoint = tw.load_checkpoint(h5(lambda file: keras2_layer(file, "d", weights, cut)))

    assert sorted(checkpoint) == [f"d/w{i}" for i in range(5)]
    assert checkpoint.get_tensor("d/w3").tolist() == [3, 4, 5]


def test_weight_names_that_are_not_unique_are_told_apart_by_layer(h5: Any) -> None:
    def fill(file: Any) -> None:
        for layer in ("a", "b"):
            keras2_layer(file, layer, {"kernel": MATRIX})

    checkpoint = tw.load_checkpoint(h5(fill))

    assert list(checkpoint) == ["a/kernel", "b/kernel"]
    assert checkpoint.full_names() == {"kernel": ("a/kernel", "b/kernel")}


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}])
@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": (2, 2)},
        {"chunks": (2, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (3, 3), "compression": "lzf", "maxshape": (None, 3)},
    ],
)
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "bool", "u2", "i8", "c8"])
def test_datasets_of_every_kind_are_read(h5: Any, options: Any, storage: Any, dtype: str) -> None:
    array = np.arange(21).reshape(7, 3).astype(dtype)

    def fill(file: Any) -> None:
        file.create_dataset("g/x:0", data=array, **storage)
        file["g/empty"] = np.zeros((0, 3), dtype)
        file["g/scalar"] = array[2, 1]

    with tw.load_checkpoint(h5(fill, **options)) as checkpoint:
        assert set(checkpoint) == {"g/x", "g/empty", "g/scalar"}
        whole = checkpoint.get_tensor("g/x")
        assert str(whole.dtype).removeprefix("torch.") == array.dtype.name
        assert whole.tolist() == array.tolist()
        for rows in ([6, 0, 3, 3], [], [2], list(range(7))):
            some = checkpoint.get_tensor("g/x", torch.tensor(rows, dtype=torch.int64))
            assert some.tolist() == array[np.array(rows, dtype=int)].tolist()
        assert checkpoint.get_tensor("g/empty").shape == (0, 3)
        assert checkpoint.get_tensor("g/scalar").tolist() == array[2, 1].tolist()


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_bfloat16_as_keras_marks_it_is_read(h5: Any, chunks: Any) -> None:
    expected = torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16)

    def fill(file: Any) -> None:
        bits = expected.view(torch.int16).numpy().view("V2")
        file.create_dataset("x", data=bits, chunks=chunks).attrs["dtype"] = "bfloat16"

    checkpoint = tw.load_checkpoint(h5(fill))
    assert checkpoint["x"].dtype == torch.bfloat16
    assert torch.equal(checkpoint.get_tensor("x"), expected)
    assert torch.equal(checkpoint.get_tensor("x", torch.tensor([2, 0])), expected[[2, 0]])


def test_what_torch_cannot_hold_is_told_when_it_is_read(h5: Any) -> None:
    def fill(file: Any) -> None:
        file["text"] = ["a", "b"]
        file["fixed"] = np.array([b"a"])
        file["pairs"] = np.zeros(2, [("x", "f4")])
        file["nothing"] = h5py.Empty("f4")
        file["x"] = VECTOR

    checkpoint = tw.load_checkpoint(h5(fill))
    assert checkpoint.get_tensor("x").tolist() == VECTOR.tolist()
    for key in ("text", "fixed", "pairs", "nothing"):
        with pytest.raises(UnsupportedError, match="which torch cannot hold"):
            checkpoint.get_tensor(key)


def test_h5py_is_needed_only_here(h5: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = h5(lambda file: numbered(file, "layers/dense", MATRIX))
    zipped = archive(tmp_path / "m.keras", path, {})
    monkeypatch.setitem(sys.modules, "h5py", None)

    for where in (path, zipped):
        with pytest.raises(MissingDependencyError, match=r"pip install 'torch-warmstart\[keras\]'"):
            tw.load_checkpoint(where)


# ---- Files of public projects ----------------------------------------------------------------


FOLDER = os.environ.get("TORCH_WARMSTART_CHECKPOINTS")


def public_files() -> Iterator[dict[str, Any]]:
    if FOLDER:
        manifest = json.loads((Path(FOLDER) / "manifest.json").read_text())
        for about in manifest["other_formats"]:
            if about["container"] in ("hdf5", "keras v3 zip"):
                yield about


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
@pytest.mark.parametrize("about", list(public_files()), ids=lambda about: str(about["path"]))
def test_a_real_file_is_read(about: dict[str, Any]) -> None:
    path = Path(FOLDER or "") / about["path"]
    with tw.load_checkpoint(path) as checkpoint:
        for key in checkpoint:
            assert checkpoint.get_tensor(key).shape == checkpoint[key].shape
        if "datasets" not in about:
            return
        assert len(checkpoint) == about["n_datasets"]
        with h5py.File(path) as file:
            for name, (shape, dtype) in about["datasets"].items():
                key = name.removesuffix(":0")
                if key.startswith("model_weights/"):
                    key = key.split("/", 2)[2]
                spec = checkpoint[key]
                assert (list(spec.shape), spec.stored_dtype) == (shape, dtype)
                assert checkpoint.get_tensor(key).numpy().tolist() == file[name][()].tolist()


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
def test_two_files_of_one_real_model_hold_the_same_under_the_same_names() -> None:
    files = [about["path"] for about in public_files() if about["path"].startswith("aerogel")]
    first, second = (tw.load_checkpoint(Path(FOLDER or "") / path) for path in sorted(files))
    shared = first.full_names().keys() & second.full_names().keys()

    assert len(shared) == 10
    for name in shared:
        (a,), (b,) = first.full_names()[name], second.full_names()[name]
        assert torch.equal(first.get_tensor(a), second.get_tensor(b))
