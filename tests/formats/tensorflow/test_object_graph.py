"""Names in object-based checkpoints: full names, paths through the object graph, slots."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, field_bytes, field_varint, write_bundle
from cpu_time import cpu_seconds_below
from formats_helpers import FIXTURES, expected_of, float_entry, floats, raw
from torch import nn

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    PlanError,
    SettingsError,
)
from torch_warmstart.formats import ATTRIBUTE_SUFFIX
from torch_warmstart.formats import OBJECT_GRAPH_KEY as KEY

Edge = tuple[int, str]


def node(
    *children: Edge, key: str = "", full_name: str = "", slots: Sequence[tuple[int, str, int]] = ()
) -> bytes:
    """An encoded TrackableObject; with a key it is a variable."""
    encoded = b"".join(
        field_bytes(1, field_varint(1, number) + field_bytes(2, name.encode()))
        for number, name in children
    )
    if key:
        names = [b"VARIABLE_VALUE", full_name.encode(), key.encode()]
        attribute = b"".join(field_bytes(n, text) for n, text in enumerate(names, 1))
        encoded += field_bytes(2, attribute)
    for variable, name, slot in slots:
        about = field_varint(1, variable) + field_bytes(2, name.encode()) + field_varint(3, slot)
        encoded += field_bytes(3, about)
    return encoded


def graph_entry(*nodes: bytes) -> BundleEntry:
    return BundleEntry(KEY, DType.STRING, [], [b"".join(field_bytes(1, n) for n in nodes)])


def open_graph(prefix: Path, nodes: Sequence[bytes], *keys: str) -> Any:
    """A checkpoint of this graph; the keys' tensors differ from each other."""
    tensors = [BundleEntry(k, DType.FLOAT, [1], floats(1, n)) for n, k in enumerate(keys)]
    write_bundle(prefix, [graph_entry(*nodes), *tensors])
    return tw.load_checkpoint(prefix)


# ---- Golden files ----------------------------------------------------------------------------

GOLDEN = ["object_based", "sharded_object", "saved_model"]


def paths(nodes: list[dict[str, Any]], depth: int = 6) -> Iterator[tuple[str, int]]:
    """Every path of at most `depth` edges from the root, with the node it leads to."""
    level = [("", 0)]
    for _ in range(depth):
        level = [
            (f"{path}/{name}" if path else name, child)
            for path, number in level
            for child, name in nodes[number]["children"]
        ]
        yield from level


def variable_key(about: dict[str, Any]) -> str | None:
    return next((key for name, _, key in about["attributes"] if name == "VARIABLE_VALUE"), None)


@pytest.mark.parametrize("folder", GOLDEN)
def test_every_path_to_a_variable_finds_it(folder: str) -> None:
    expected = expected_of(FIXTURES / folder)
    nodes = expected["object_graph"]
    checkpoint = tw.load_checkpoint(FIXTURES / folder / expected["prefix"])

    tried = 0
    for path, number in paths(nodes):
        key = variable_key(nodes[number])
        if key is not None:
            assert checkpoint.spec(path).key == key, path
            assert checkpoint.spec(path + ATTRIBUTE_SUFFIX).key == key, path
            tried += 1
        else:
            with pytest.raises(MissingTensorError):
                checkpoint.spec(path)
    assert tried


@pytest.mark.parametrize("folder", GOLDEN)
def test_a_full_name_of_one_variable_finds_it(folder: str) -> None:
    expected = expected_of(FIXTURES / folder)
    checkpoint = tw.load_checkpoint(FIXTURES / folder / expected["prefix"])

    for name, keys in checkpoint.full_names().items():
        if len(keys) == 1 and name not in ("first", "second"):
            assert checkpoint.spec(name).key == keys[0]


def test_slots_are_found_by_every_path_to_their_variable() -> None:
    checkpoint = tw.load_checkpoint(FIXTURES / "object_based")
    key = f"model/layer_with_weights-1/kernel/.OPTIMIZER_SLOT/optimizer/v{ATTRIBUTE_SUFFIX}"

    for path in ("model/layer_with_weights-1/kernel", "model/layer-2/kernel"):
        name = f"{path}/.OPTIMIZER_SLOT/optimizer/v"
        assert checkpoint.spec(name).key == key
        assert checkpoint.spec(name + ATTRIBUTE_SUFFIX).key == key
    assert checkpoint.spec("Adam/den/kernel/v").key == key


@pytest.mark.parametrize(
    "name",
    [
        "model/layer-2/kernel/.OPTIMIZER_SLOT/optimizer/w",
        "model/layer-2/kernel/.OPTIMIZER_SLOT/model/v",
        "model/layer-2/kernel/.OPTIMIZER_SLOT/v",
        "model/layer-2/.OPTIMIZER_SLOT/optimizer/v",
        "model/layer-2",
        "model/layer-2/kernel/more",
        "/model/layer-2/kernel",
        "model//kernel",
        "",
    ],
)
def test_a_path_to_no_variable_finds_none(name: str) -> None:
    with pytest.raises(MissingTensorError, match="has no tensor"):
        tw.load_checkpoint(FIXTURES / "object_based").spec(name)


@pytest.mark.parametrize("name", ["d/a.b", "d/a..b", "d/k/y", "d/k.Sy"])
def test_edges_may_be_written_as_they_are_or_as_in_keys(name: str) -> None:
    key = tw.load_checkpoint(FIXTURES / "object_based").spec(name).key

    assert key == ("d/a..b" if "a" in name else "d/k.Sy") + ATTRIBUTE_SUFFIX


def test_everything_that_takes_a_key_takes_a_name() -> None:
    with tw.load_checkpoint(FIXTURES / "object_based") as checkpoint:
        key = f"model/layer_with_weights-1/kernel{ATTRIBUTE_SUFFIX}"
        value = checkpoint.get_tensor(key)

        assert raw(checkpoint.get_tensor("den/kernel")) == raw(value)
        row = checkpoint.get_tensor("model/layer-2/kernel", torch.tensor([1]))
        assert raw(row) == raw(value[1:2])
        assert checkpoint["den/kernel"] == checkpoint[key]
        assert checkpoint.location("den/kernel") == checkpoint.location(key)
        checkpoint.verify("den/kernel")


def test_a_name_is_no_key() -> None:
    checkpoint = tw.load_checkpoint(FIXTURES / "object_based")

    assert "den/kernel" not in checkpoint
    assert checkpoint.get("den/kernel") is None


def test_an_ambiguous_name_is_an_error_that_lists_the_keys() -> None:
    checkpoint = tw.load_checkpoint(FIXTURES / "object_based")

    message = (
        r"'fruit' is the name of several tensors; name one by its key: "
        r"'first/.ATTRIBUTES/VARIABLE_VALUE' or 'second/.ATTRIBUTES/VARIABLE_VALUE'\.$"
    )
    for read in (checkpoint.spec, checkpoint.get_tensor, checkpoint.verify, checkpoint.location):
        with pytest.raises(SettingsError, match=message):
            read("fruit")


def test_a_missing_name_is_told_with_near_full_names() -> None:
    with pytest.raises(MissingTensorError, match="Did you mean 'den/kernel'"):
        tw.load_checkpoint(FIXTURES / "object_based").spec("den/kernl")


def test_a_name_based_checkpoint_has_keys_only() -> None:
    checkpoint = tw.load_checkpoint(FIXTURES / "name_based")

    assert checkpoint.keys_of(next(iter(checkpoint))) == ()


# ---- Graphs made by hand ---------------------------------------------------------------------


def test_a_path_is_walked_even_if_the_key_goes_another_way(tmp_path: Path) -> None:
    nodes = [
        node((1, "model"), (2, "optimizer")),
        node((3, "den")),
        node((4, "vars/0")),
        node((4, "kernel")),
        node(key="optimizer/vars/0"),
    ]
    checkpoint = open_graph(tmp_path / "a", nodes, "optimizer/vars/0", "model/den/other")

    assert checkpoint.spec("model/den/kernel").key == "optimizer/vars/0"
    with pytest.raises(MissingTensorError):
        checkpoint.spec("model/den")


def test_keras_3_keeps_kernels_under_private_names(tmp_path: Path) -> None:
    nodes = [node((1, "a"), (2, "b")), node((3, "_kernel")), node((3, "_kernel"), (4, "kernel"))]
    nodes += [node(key="x"), node(key="y")]
    checkpoint = open_graph(tmp_path / "a", nodes, "x", "y")

    assert checkpoint.spec("a/kernel").key == "x"
    assert checkpoint.spec("b/kernel").key == "y"


def test_a_cyclic_graph_is_walked_as_far_as_the_path_goes(tmp_path: Path) -> None:
    nodes = [node((0, "self"), (1, "a")), node((0, "back"), (1, "self"), (2, "w")), node(key="w")]
    checkpoint = open_graph(tmp_path / "a", nodes, "w")

    assert checkpoint.spec("/".join(["a", "back"] * 500 + ["a", "w"])).key == "w"
    assert checkpoint.spec("/".join(["self"] * 500 + ["a"] + ["self"] * 500 + ["w"])).key == "w"
    with pytest.raises(MissingTensorError):
        checkpoint.spec("/".join(["self"] * 1000))


def test_a_graph_with_many_ways_at_each_step_is_walked_quickly(tmp_path: Path) -> None:
    fan = [(number, "x") for number in range(300)]  # 300**20 paths
    nodes = [node(*fan) for _ in range(299)] + [node(*fan, key="w")]
    checkpoint = open_graph(tmp_path / "a", nodes, "w")

    with cpu_seconds_below(5):
        assert checkpoint.spec("/".join(["x"] * 20)).key == "w"


def test_two_edges_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    nodes = [node((1, "w"), (2, "w")), node(key="a"), node(key="b")]

    with pytest.raises(SettingsError, match="by its key: 'a' or 'b'"):
        open_graph(tmp_path / "a", nodes, "a", "b").spec("w")


def test_a_path_and_a_full_name_of_different_variables_are_ambiguous(tmp_path: Path) -> None:
    nodes = [node((1, "w"), (2, "v")), node(key="a", full_name="v"), node(key="b", full_name="u")]
    checkpoint = open_graph(tmp_path / "a", nodes, "a", "b")

    with pytest.raises(SettingsError, match="by its key: 'a' or 'b'"):
        checkpoint.spec("v")
    assert checkpoint.spec("w").key == "a"
    assert checkpoint.spec("u").key == "b"


def test_a_key_wins_over_other_names(tmp_path: Path) -> None:
    nodes = [node((1, "b"), (2, "a")), node(key="a"), node(key="b")]
    checkpoint = open_graph(tmp_path / "a", nodes, "a", "b")

    assert checkpoint.spec("a").key == "a"


def test_variables_of_one_name_that_hold_the_same_are_one(tmp_path: Path) -> None:
    nodes = [node(), node(key="a", full_name="w"), node(key="b", full_name="w")]
    same = [graph_entry(*nodes), float_entry("a", 3), float_entry("b", 3)]
    other_shape = [graph_entry(*nodes), float_entry("a", 3), float_entry("b", 3, 1)]
    write_bundle(tmp_path / "same", same)
    write_bundle(tmp_path / "other", other_shape)

    assert tw.load_checkpoint(tmp_path / "same").spec("w").key == "a"
    with pytest.raises(SettingsError, match="by its key: 'a' or 'b'"):
        tw.load_checkpoint(tmp_path / "other").spec("w")


def test_a_variable_that_was_not_saved_is_not_found(tmp_path: Path) -> None:
    nodes = [node((1, "w")), node(key="gone", full_name="full")]
    checkpoint = open_graph(tmp_path / "a", nodes, "b")

    for name in ("w", "full"):
        with pytest.raises(MissingTensorError):
            checkpoint.spec(name)


def test_a_slot_name_may_have_slashes(tmp_path: Path) -> None:
    nodes = [node((1, "w"), (2, "o")), node(key="w"), node(slots=[(1, "a/b", 3)]), node(key="s")]
    checkpoint = open_graph(tmp_path / "a", nodes, "w", "s")

    assert checkpoint.spec("w/.OPTIMIZER_SLOT/o/a/b").key == "s"
    assert checkpoint.spec("w/.OPTIMIZER_SLOT/o/a.Sb").key == "s"


@pytest.mark.parametrize(
    "nodes",
    [
        [node((1, "a"))],
        [node((-1, "a"))],
        [node((2**31, "a"))],
        [node(slots=[(1, "m", 0)])],
        [node(slots=[(0, "m", 9)])],
    ],
    ids=["child", "negative child", "huge child", "variable of a slot", "slot"],
)
def test_an_edge_to_nowhere_is_refused(tmp_path: Path, nodes: list[bytes]) -> None:
    checkpoint = open_graph(tmp_path / "a", nodes, "w")

    with pytest.raises(CorruptCheckpointError, match="its object graph: an edge leads to node"):
        checkpoint.spec("a")
    assert checkpoint.spec("w").key == "w"


def test_an_empty_graph_has_no_names(tmp_path: Path) -> None:
    checkpoint = open_graph(tmp_path / "a", [], "w")

    assert checkpoint.full_names() == {}
    assert checkpoint.keys_of("") == checkpoint.keys_of("a") == ()


# ---- Warm start ------------------------------------------------------------------------------


def warm_started(module: nn.Module, source: Path, **settings: Any) -> nn.Module:
    everything = tw.WarmStartSettings(source, vars_to_warm_start=[".*"], **settings)
    tw.warm_start(module, everything)
    return module


def test_a_model_is_found_by_the_paths_of_its_attributes(tmp_path: Path) -> None:
    nodes = [node((1, "blocks")), node((2, "0")), node((3, "_kernel"), (4, "bias"))]
    nodes += [node(key="x"), node(key="y")]
    tensors = [
        BundleEntry("x", DType.FLOAT, [2, 1], floats(2)),
        BundleEntry("y", DType.FLOAT, [1], floats(1, 7)),
    ]
    write_bundle(tmp_path / "a", [graph_entry(*nodes), *tensors])
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 1)])})

    warm_started(model, tmp_path / "a")

    assert model["blocks"][0].weight.tolist() == [[0, 1]]
    assert model["blocks"][0].bias.tolist() == [7]


def test_a_variable_may_be_renamed_to_a_path(tmp_path: Path) -> None:
    model = nn.ModuleDict({"dense": nn.Linear(4, 3)})
    folder = FIXTURES / "object_based"
    kernel = tw.load_checkpoint(folder).get_tensor("den/kernel")
    model["dense"] = nn.Linear(*kernel.shape)
    names = {"dense.weight": "model/layer-2/kernel", "dense.bias": "den/bias:0"}

    warm_started(model, folder, var_name_to_prev_var_name=names)

    assert torch.equal(model["dense"].weight.T, kernel)


def test_a_model_that_answers_to_two_variables_is_refused(tmp_path: Path) -> None:
    nodes = [node((1, "w")), node(key="a"), node(key="b", full_name="w")]
    open_graph(tmp_path / "a", nodes, "a", "b")

    with pytest.raises(PlanError, match="w is found under different keys: 'b' and 'a'"):
        warm_started(nn.ParameterDict({"w": torch.zeros(1)}), tmp_path / "a")


# ---- Real Keras ------------------------------------------------------------------------------


def torch_model() -> nn.ModuleDict:
    """Layers called like those of `keras_model`."""
    return nn.ModuleDict(
        {
            "emb": nn.Embedding(5, 4),
            "hid": nn.Linear(4, 6),
            "bn": nn.BatchNorm1d(6),
            "ln": nn.LayerNorm(6),
            "den": nn.Linear(6, 2),
        }
    )


@functools.cache
def keras_model(keras: Any) -> Any:
    """A trained functional model, in which no two tensors are equal."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Embedding(5, 4, name="emb")(inputs)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    hidden = keras.layers.Dense(6, name="hid")(hidden)
    hidden = keras.layers.BatchNormalization(name="bn")(hidden)
    hidden = keras.layers.LayerNormalization(name="ln")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, name="den")(hidden))
    model.compile("adam", "mse")
    model.fit(np.arange(12).reshape(4, 3) % 5, np.eye(4)[:, :2], verbose=0)
    return model


def expected_values(model: Any) -> dict[str, np.ndarray]:
    """The weights of a `keras_model` under the names of `torch_model`."""
    emb, hid, bn, ln, den = (model.get_layer(n) for n in ("emb", "hid", "bn", "ln", "den"))
    gamma, beta, mean, variance = bn.get_weights()
    return {
        "emb.weight": emb.get_weights()[0],
        "hid.weight": hid.get_weights()[0].T,
        "hid.bias": hid.get_weights()[1],
        "bn.weight": gamma,
        "bn.bias": beta,
        "bn.running_mean": mean,
        "bn.running_var": variance,
        "ln.weight": ln.get_weights()[0],
        "ln.bias": ln.get_weights()[1],
        "den.weight": den.get_weights()[0].T,
        "den.bias": den.get_weights()[1],
    }


def save(keras: Any, model: Any, how: str, folder: Path) -> Path:
    """Saves a model; returns what to open."""
    import tensorflow as tf

    if how == "Checkpoint":
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / "ckpt"))
    elif how == "export":
        model.export(str(folder / "saved"), **({"verbose": False} if is_keras_3(keras) else {}))
        return folder / "saved"
    elif how == "save_weights":
        model.save_weights(str(folder / "weights"))
    else:
        model.save(str(folder / "saved"), save_format="tf")
        return folder / "saved"
    return folder


def is_keras_3(keras: Any) -> bool:
    return str(keras.__name__) == "keras"


@pytest.fixture(scope="module", params=["tf_keras", "keras"])
def trained(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    keras = pytest.importorskip(request.param)
    if is_keras_3(keras) and not keras.__version__.startswith("3"):
        pytest.skip("keras is Keras 2 here")
    return keras, keras_model(keras)


@pytest.mark.tensorflow
@pytest.mark.parametrize("how", ["Checkpoint", "export", "save_weights", "SavedModel"])
def test_a_keras_model_warm_starts_a_torch_model_without_renames(
    tmp_path: Path, trained: tuple[Any, Any], how: str
) -> None:
    keras, model = trained
    if is_keras_3(keras) and how in ("save_weights", "SavedModel"):
        pytest.skip("Keras 3 writes no TensorFlow checkpoint then")
    source = save(keras, model, how, tmp_path)

    state = warm_started(torch_model(), source).state_dict()

    for name, value in expected_values(model).items():
        assert np.array_equal(state[name].numpy(), value), name


@pytest.mark.tensorflow
def test_the_slots_of_a_keras_optimizer_are_found_by_path(
    tmp_path: Path, trained: tuple[Any, Any]
) -> None:
    keras, model = trained
    checkpoint = tw.load_checkpoint(save(keras, model, "Checkpoint", tmp_path))

    momentum = checkpoint.get_tensor("optimizer/_momentums/1")  # of the second variable, hid/kernel

    variables = model.optimizer.variables
    variables = variables() if callable(variables) else variables  # a method in Keras 2
    stored = next(v.numpy() for v in variables if tuple(v.shape) == (4, 6))
    assert np.array_equal(momentum.numpy(), stored)
    assert momentum.abs().sum() > 0


@pytest.mark.tensorflow
def test_keras_3_stores_model_weights_under_keys_of_the_optimizer(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", minversion="3")
    model = keras_model(keras)
    checkpoint = tw.load_checkpoint(save(keras, model, "Checkpoint", tmp_path))

    for name in ("hid/kernel", "model/_operations/3/kernel", "model/_operations/3/_kernel"):
        assert checkpoint.spec(name).key == "optimizer/_trainable_variables/1" + ATTRIBUTE_SUFFIX


@pytest.mark.tensorflow
@pytest.mark.parametrize("package", ["tf_keras", "keras"])
def test_a_subclassed_keras_model_is_found_by_its_attributes(tmp_path: Path, package: str) -> None:
    import tensorflow as tf

    keras = pytest.importorskip(package)

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.layers.Dense(3)  # whose own name is dense or dense_1
            self.den = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.den(self.inner(inputs))

    model = Model()
    model(np.zeros((1, 4), np.float32))
    prefix = tf.train.Checkpoint(model).write(str(tmp_path / "model"))
    module = nn.ModuleDict({"inner": nn.Linear(4, 3), "den": nn.Linear(3, 2)})

    warm_started(module, Path(prefix))

    for name in ("inner", "den"):
        kernel = getattr(model, name).get_weights()[0]
        assert np.array_equal(module[name].weight.detach().numpy(), kernel.T)
