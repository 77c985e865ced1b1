"""Attention: what TensorFlow computes, torch computes too once it is warm-started from it.

Layers are TensorFlow's own, with random weights and biases, saved by TensorFlow; the torch model
has the same layer name, and nothing is renamed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, UnsupportedError, WarmStartSettings
from torch_warmstart.layouts import attention as heads

BATCH, QUERIES, KEYS = 2, 4, 5
HEADS, SIZE = 2, 4  # Keras 3 has the root of the size as float32, which holds that of 4
WIDE = HEADS * SIZE
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


# -- layouts, both ways ----------------------------------------------------------------------------


def _random(*shapes):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


KERNEL, BIAS = (WIDE, HEADS, SIZE), (HEADS, SIZE)
LAYOUTS = [
    (heads.attention_kernels(HEADS, SIZE), [KERNEL] * 3),
    (heads.attention_kernels(HEADS, SIZE, 1), [(7, HEADS, SIZE)]),
    (heads.attention_biases(HEADS, SIZE), [BIAS] * 3),
    (heads.HEADS_IN, [(5, 1, WIDE)]),
    (heads.HEADS_OUT, [(1, WIDE, 5)]),
    (heads.HEADS_BIAS, [(1, WIDE)]),
]
with_layouts = pytest.mark.parametrize(
    ("layout", "shapes"), LAYOUTS, ids=[layout.name for layout, _ in LAYOUTS]
)


@with_layouts
def test_each_layout_and_its_inverse_undo_each_other(layout, shapes):
    there = _random(*shapes)
    here = layout.to_torch(*there)
    back = layout.to_tf(*here)
    assert all(torch.equal(a, b) for a, b in zip(there, back, strict=True))
    again = layout.to_torch(*back)
    assert all(torch.equal(a, b) for a, b in zip(here, again, strict=True))
    assert layout.shapes_in_torch(shapes) == tuple(tuple(tensor.shape) for tensor in here)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(heads.HEADS_IN, KERNEL), (heads.HEADS_OUT, (HEADS, SIZE, 5)), (heads.HEADS_BIAS, BIAS)],
)
def test_a_linear_layer_forgets_the_heads_and_nothing_else(layout, shape):
    here = layout.to_torch(*_random(shape))
    assert torch.equal(layout.to_torch(*layout.to_tf(*here))[0], here[0])


def test_flat_kernels_and_kernels_with_heads_are_the_same_weight():
    kernels = _random(*[KERNEL] * 3)
    layout = heads.attention_kernels(HEADS, SIZE)
    flat = [kernel.flatten(1) for kernel in kernels]
    assert torch.equal(layout.to_torch(*kernels)[0], layout.to_torch(*flat)[0])


# -- real layers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    files: str  # "3 keras": which Keras, and how it saves
    dtype: str = "float32"
    bias: bool = True
    keys_wide: int = WIDE
    values_wide: int = WIDE

    def __str__(self):
        widths = f"{self.keys_wide}-{self.values_wide}"
        bias = "" if self.bias else "-no-bias"
        return f"{self.files.replace(' ', '-')}-{widths}{bias}-{self.dtype}"


CASES = [
    Case("3 checkpoint"),
    Case("3 keras", dtype="float64"),
    Case("3 weights.h5", bias=False, keys_wide=4, values_wide=5),
    Case("2 checkpoint", dtype="float64", keys_wide=5),
    Case("2 h5"),
    Case("3 h5", dtype="float64", bias=False),
]


@pytest.fixture(scope="module")
def libraries():
    pytest.importorskip("tensorflow")
    import keras
    import tf_keras

    return {"3": keras, "2": tf_keras}


def _save(model, how, folder):
    if how == "checkpoint":
        import tensorflow as tf

        return tf.train.Checkpoint(model).save(str(folder / "model"))
    path = str(folder / f"model.{how}")
    (model.save_weights if how == "weights.h5" else model.save)(path)
    return path


def _randomise(model, dtype):
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype(dtype) for w in model.get_weights()])


def _close(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def _inputs(case):
    rng = np.random.default_rng(5)
    shapes = (QUERIES, WIDE), (KEYS, case.keys_wide), (KEYS, case.values_wide)
    return [rng.normal(size=(BATCH, *shape)).astype(case.dtype) for shape in shapes]


def _keras_model(keras, case):
    layer = keras.layers.MultiHeadAttention(
        HEADS, SIZE, use_bias=case.bias, name="enc", dtype=case.dtype
    )
    query, key, value = (keras.Input(x.shape[1:], dtype=case.dtype) for x in _inputs(case))
    out, scores = layer(query, value, key=key, return_attention_scores=True)
    model = keras.Model([query, key, value], [out, scores])
    _randomise(model, case.dtype)
    return model


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_attention_of_keras_computes_the_same_in_torch(case, libraries, tmp_path):
    import tensorflow as tf

    model = _keras_model(libraries[case.files[0]], case)
    path = _save(model, case.files.partition(" ")[2], tmp_path)
    inputs = [tf.constant(x) for x in _inputs(case)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out, scores = model(inputs)
        loss = tf.reduce_sum(out**2)
    module = nn.MultiheadAttention(
        WIDE,
        HEADS,
        bias=case.bias,
        kdim=case.keys_wide,
        vdim=case.values_wide,
        batch_first=True,
        dtype=getattr(torch, case.dtype),
    )
    if case.bias:  # which torch begins with zeros, as it does without
        nn.init.normal_(module.in_proj_bias)
    ported = nn.ModuleDict({"enc": module})
    report = tws.warm_start(ported, path)
    assert report.count("kept") == 0
    x = [torch.tensor(value.numpy(), requires_grad=True) for value in inputs]
    found, weights = module(*x, average_attn_weights=False)
    (found**2).sum().backward()
    tolerance = TOLERANCE[case.dtype]
    _close(found.detach(), out, tolerance)
    _close(weights.detach(), scores, tolerance)
    for ours, theirs in zip(x, tape.gradient(loss, inputs), strict=True):
        _close(ours.grad, theirs, tolerance)


class Separate(nn.Module):
    """Attention of four linear layers, as BERT's are in torch."""

    def __init__(self):
        super().__init__()
        for name in ("query", "key", "value", "attention_output"):
            self.add_module(name, nn.Linear(WIDE, WIDE))

    def forward(self, query, key, value):
        q, k, v = (
            getattr(self, name)(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
            for name, x in (("query", query), ("key", key), ("value", value))
        )
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.attention_output(out.transpose(1, 2).flatten(2))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("files", ["3 h5", "2 checkpoint"])
def test_an_attention_of_keras_is_four_linear_layers(files, dtype, libraries, tmp_path):
    import tensorflow as tf

    case = Case(files, dtype)
    model = _keras_model(libraries[files[0]], case)
    ported = nn.ModuleDict({"enc": Separate()}).to(getattr(torch, dtype))
    report = tws.warm_start(ported, _save(model, files.partition(" ")[2], tmp_path))
    assert report.count("kept") == 0
    inputs = [tf.constant(x) for x in _inputs(case)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        expected = model(inputs)[0]
        loss = tf.reduce_sum(expected**2)
    x = [torch.tensor(value.numpy(), requires_grad=True) for value in inputs]
    found = ported["enc"](*x)
    (found**2).sum().backward()
    _close(found.detach(), expected, TOLERANCE[dtype])
    for ours, theirs in zip(x, tape.gradient(loss, inputs), strict=True):
        _close(ours.grad, theirs, TOLERANCE[dtype])


def _bert_with_dense(tf1, hidden):
    """Self-attention as google-research/bert's modeling.py has it, with its names."""

    def dense(x, name):
        with tf1.variable_scope(name):
            kernel = tf1.get_variable("kernel", (WIDE, WIDE), x.dtype)
            return tf1.tensordot(x, kernel, 1) + tf1.get_variable("bias", (WIDE,), x.dtype)

    def split(name):
        x = tf1.reshape(dense(hidden, name), (BATCH, QUERIES, HEADS, SIZE))
        return tf1.transpose(x, (0, 2, 1, 3))

    with tf1.variable_scope("layer_0/attention"):
        with tf1.variable_scope("self"):
            query, key, value = map(split, ("query", "key", "value"))
            scores = tf1.matmul(query, key, transpose_b=True) / SIZE**0.5
            context = tf1.matmul(tf1.nn.softmax(scores), value)
        context = tf1.reshape(tf1.transpose(context, (0, 2, 1, 3)), (BATCH, QUERIES, WIDE))
        with tf1.variable_scope("output"):
            return dense(context, "dense")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_attention_of_bert_computes_the_same_in_torch(dtype, tmp_path):
    tf = pytest.importorskip("tensorflow")
    tf1 = tf.compat.v1
    inputs = np.random.default_rng(5).normal(size=(BATCH, QUERIES, WIDE)).astype(dtype)
    with tf1.Graph().as_default(), tf1.Session() as session:
        out = _bert_with_dense(tf1, tf.constant(inputs))
        rng = np.random.default_rng(3)
        for variable in tf1.global_variables():
            variable.load(rng.normal(0, 0.5, variable.shape).astype(dtype), session)
        expected = session.run(out)
        path = tf1.train.Saver().save(session, str(tmp_path / "model"))
    ported = nn.ModuleDict(
        {
            "layer_0": nn.ModuleDict(
                {
                    "attention": nn.MultiheadAttention(
                        WIDE, HEADS, batch_first=True, dtype=getattr(torch, dtype)
                    )
                }
            )
        }
    )
    tws.warm_start(ported, path)
    x = torch.tensor(inputs)
    found, _ = ported["layer_0"]["attention"](x, x, x)
    _close(found.detach(), expected, TOLERANCE[dtype])


# -- what is refused, and why ----------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    def write(**shapes):
        return write_random_bundle(str(tmp_path / "model.ckpt-1"), shapes)

    return write


def _keras_attention(heads=HEADS, size=SIZE, wide=WIDE):
    tensors = {f"enc/{name}/kernel": (wide, heads, size) for name in ("query", "key", "value")}
    tensors |= {f"enc/{name}/bias": (heads, size) for name in ("query", "key", "value")}
    return tensors | {
        "enc/attention_output/kernel": (heads, size, wide),
        "enc/attention_output/bias": (wide,),
    }


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        (
            _keras_attention(heads=4, size=2),
            {},
            "it has 4 heads of size 2, the module 2 of size 4",
        ),
        (
            _keras_attention(heads=2, size=5),
            {},
            "2 heads of size 5 make 10, but nn.MultiheadAttention splits its embed_dim, 8, into",
        ),
        (
            {**_keras_attention(), "enc/gate/kernel": KERNEL},
            {},
            r"its attention has a gate \(use_gate=True\), which nn.MultiheadAttention has not",
        ),
        (
            {**_keras_attention(), "enc/bias_k": (1, 1, WIDE)},
            {"add_bias_kv": True},
            "bias_k: TensorFlow's attention has no bias among its keys and values",
        ),
        (
            _keras_attention(),
            {"bias": False},
            r"1. enc.in_proj_bias is None, but the checkpoint has 'enc/query/bias' and "
            r"'enc/key/bias' and 'enc/value/bias' for it: it would be lost.\n"
            r"  2. enc.out_proj.bias is None, but the checkpoint has 'enc/attention_output/bias' ",
        ),
        (
            {"enc/in_proj_weight": (3 * WIDE, WIDE)},
            {},
            "in_proj_weight: torch packs query, key and value into one tensor",
        ),
    ],
)
def test_what_torch_cannot_be_is_refused(checkpoint, tensors, options, message):
    model = nn.ModuleDict({"enc": nn.MultiheadAttention(WIDE, HEADS, **options)})
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(PlanError, match=message):
        tws.warm_start(model, checkpoint(**tensors))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_layout_says_itself_why_it_refuses():
    with pytest.raises(UnsupportedError, match="it has 4 heads of size 2"):
        heads.attention_biases(HEADS, SIZE).shapes_in_torch([(4, 2)] * 3)


def test_slots_of_three_kernels_are_a_slot_of_one_weight(checkpoint):
    kernels = _keras_attention()
    path = checkpoint(**kernels, **{f"{key}/Momentum": shape for key, shape in kernels.items()})
    model = nn.ModuleDict({"enc": nn.MultiheadAttention(WIDE, HEADS)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tws.warm_start(model, WarmStartSettings(path, [".*"]), optimizer=optimizer)
    slot = optimizer.state[model["enc"].in_proj_weight]["momentum_buffer"]
    query = tws.load_variable(path, "enc/query/kernel/Momentum")
    assert torch.allclose(slot[:WIDE].abs(), query.flatten(1).t().abs())


def test_slots_of_query_key_and_value_are_joined_as_the_weights_are(checkpoint):
    tensors = _keras_attention()
    prefix = checkpoint(**tensors, **{f"{key}/Momentum": shape for key, shape in tensors.items()})
    model = nn.ModuleDict({"enc": nn.MultiheadAttention(WIDE, HEADS)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    tws.warm_start(model, WarmStartSettings(prefix, [".*"]), optimizer=optimizer)
    with tws.load_checkpoint(prefix) as opened:
        for leaf, ending in (("in_proj_weight", "kernel"), ("in_proj_bias", "bias")):
            slots = [
                opened.get_tensor(f"enc/{name}/{ending}/Momentum")
                for name in ("query", "key", "value")
            ]
            expected = torch.cat([slot.reshape(-1, HEADS * SIZE).t().squeeze(-1) for slot in slots])
            parameter = getattr(model["enc"], leaf)
            assert torch.equal(optimizer.state[parameter]["momentum_buffer"], expected)
