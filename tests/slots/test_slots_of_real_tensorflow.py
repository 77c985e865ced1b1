"""Slots that real TensorFlow and Keras wrote, and those of public projects."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorflow_slots_helpers import EVERYTHING, One
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, UnsupportedError, WarmStartSettings

FOLDER = os.environ.get("TORCH_WARMSTART_CHECKPOINTS", "")


# -- real TensorFlow -------------------------------------------------------------------------------

LR, STEPS = 0.05, 6
OLD_STYLE, NEW_STYLE, KERAS_3 = "legacy", "tf_keras", "keras"


def _gradients(step):
    random = np.random.default_rng(step)
    return [random.standard_normal(shape).astype("f4") for shape in ((3, 2), (2,), (4, 3))]


def _train_tf1(folder, make, scope="", partitions=0):
    """A checkpoint after some steps, what slots held then, and the weights after one more."""
    from tf_oracle import tf1

    with tf1.Graph().as_default(), tf1.Session() as session:
        cut = tf1.fixed_size_partitioner(partitions) if partitions else None
        with tf1.variable_scope("", partitioner=cut):
            variables = [
                tf1.get_variable(name, shape, initializer=tf1.glorot_uniform_initializer(seed=1))
                for name, shape in (("d/kernel", [3, 2]), ("d/b", [2]), ("e/embeddings", [4, 3]))
                if name != "d/b"
            ]
            variables.insert(1, tf1.get_variable("d/bias", [2], initializer=tf1.zeros_initializer))
        wholes = [tf1.convert_to_tensor(v) for v in variables]
        feeds = [tf1.placeholder(whole.dtype, whole.shape) for whole in wholes]
        # The gradient of a product with a constant is that constant.
        loss = sum(tf1.reduce_sum(w * f) for w, f in zip(wholes, feeds, strict=True))
        count = tf1.train.get_or_create_global_step()
        optimizer = make(tf1.train)
        if scope:
            with tf1.variable_scope(scope):
                train = optimizer.minimize(loss, global_step=count)
        else:
            train = optimizer.minimize(loss, global_step=count)
        session.run(tf1.global_variables_initializer())

        def step(number):
            session.run(train, dict(zip(feeds, _gradients(number), strict=True)))

        for number in range(STEPS):
            step(number)
        prefix = tf1.train.Saver().save(session, str(folder / "tf1"))
        slots = {
            name: [session.run(optimizer.get_slot(v, name)) for v in variables]
            for name in optimizer.get_slot_names()
            if not partitions
        }
        step(STEPS)
        return prefix, slots, session.run(wholes)


class Twin(nn.Module):
    """What the TensorFlow model of these tests is in torch."""

    def __init__(self):
        super().__init__()
        self.d = nn.Linear(3, 2)
        self.e = nn.Embedding(4, 3)


def _go_on(prefix, make, prefix_of_names=""):
    """A twin, started from a checkpoint and one step further, with its optimizer's slots before."""
    model = Twin()
    holder = model
    if prefix_of_names:
        holder = nn.Module()
        setattr(holder, prefix_of_names, model)
    optimizer = make(holder.parameters())
    report = tws.warm_start(holder, WarmStartSettings(prefix, EVERYTHING), optimizer=optimizer)
    parameters = [model.d.weight, model.d.bias, model.e.weight]
    slots = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in parameters]
    gradients = [torch.from_numpy(g) for g in _gradients(STEPS)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.t().contiguous() if parameter is model.d.weight else gradient
    optimizer.step()
    weights = [model.d.weight.detach().t(), model.d.bias.detach(), model.e.weight.detach()]
    return SimpleNamespace(slots=slots, weights=weights, report=report)


# By case: TensorFlow's optimizer, torch's, its slots by TensorFlow's names, and how far the weights
# may be apart after the step. Where it is not rounding, epsilon stands elsewhere.
TF1_CASES = {
    "Momentum": (
        lambda t: t.MomentumOptimizer(LR, 0.9),
        lambda p: torch.optim.SGD(p, LR, momentum=0.9),
        {"momentum": "momentum_buffer"},
        1e-6,
    ),
    "Momentum, Nesterov": (
        lambda t: t.MomentumOptimizer(LR, 0.9, use_nesterov=True),
        lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True),
        {"momentum": "momentum_buffer"},
        1e-6,
    ),
    "Adam": (
        lambda t: t.AdamOptimizer(LR),
        lambda p: torch.optim.Adam(p, LR),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        1e-6,
    ),
    "Adam, other betas and name": (
        lambda t: t.AdamOptimizer(LR, 0.8, 0.95, name="Foo"),
        lambda p: torch.optim.AdamW(p, LR, (0.8, 0.95), weight_decay=0),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        1e-6,
    ),
    "Adagrad": (
        lambda t: t.AdagradOptimizer(LR),
        lambda p: torch.optim.Adagrad(p, LR),
        {"accumulator": "sum"},
        1e-6,
    ),
    "ProximalAdagrad": (
        lambda t: t.ProximalAdagradOptimizer(LR),
        lambda p: torch.optim.Adagrad(p, LR),
        {"accumulator": "sum"},
        1e-6,
    ),
    "Adadelta": (
        lambda t: t.AdadeltaOptimizer(LR, 0.9, 1e-6),
        lambda p: torch.optim.Adadelta(p, LR, 0.9, 1e-6),
        {"accum": "square_avg", "accum_update": "acc_delta"},
        1e-6,
    ),
    "RMSProp": (
        lambda t: t.RMSPropOptimizer(LR, 0.9, 0.8, 1e-10),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8),
        {"rms": "square_avg"},
        1e-6,
    ),
    "RMSProp, centered": (
        lambda t: t.RMSPropOptimizer(LR, 0.9, 0.8, 1e-10, centered=True),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8, centered=True),
        {"rms": "square_avg", "mg": "grad_avg"},
        1e-5,
    ),
}


def _assert_went_on(ours, weights, tolerance):
    for mine, theirs in zip(ours.weights, weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=tolerance, rtol=0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", TF1_CASES.values(), ids=TF1_CASES)
def test_torch_goes_on_where_tensorflow_1_was(tmp_path, case):
    make, make_torch, names, tolerance = case
    prefix, slots, weights = _train_tf1(tmp_path, make)
    ours = _go_on(prefix, make_torch)
    for theirs, mine in names.items():
        for number, kept in enumerate(slots[theirs]):
            value = ours.slots[number][mine]
            np.testing.assert_array_equal(value.t() if number == 0 else value, kept)
    _assert_went_on(ours, weights, tolerance)


@pytest.mark.tensorflow
@pytest.mark.parametrize("partitions", [0, 1, 2])
@pytest.mark.parametrize("scope", ["", "opt", "d", "a/long/scope", "d/kernel/part_0"])
def test_scopes_and_partitions_are_seen_through(tmp_path, scope, partitions):
    make = TF1_CASES["Adam"][0]
    prefix, _, weights = _train_tf1(tmp_path, make, scope, partitions)
    if scope and partitions == 2:  # each part is a tensor of its own, with holes
        with pytest.raises(PlanError, match="is in parts"):
            _go_on(prefix, TF1_CASES["Adam"][1])
        return
    _assert_went_on(_go_on(prefix, TF1_CASES["Adam"][1]), weights, 1e-6)


def _train_keras(folder, style, make):
    import tensorflow as tf

    if style == KERAS_3:
        import keras
    else:
        import tf_keras as keras
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")], name="n")
    table = keras.Sequential(
        [keras.layers.Input(()), keras.layers.Embedding(4, 3, name="e")], name="n"
    )
    variables = [*model.trainable_variables, *table.trainable_variables]
    module = keras.optimizers.legacy if style == OLD_STYLE else keras.optimizers
    optimizer = make(module)

    def step(number):
        gradients = [tf.constant(g) for g in _gradients(number)]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for number in range(STEPS):
        step(number)
    saved = tf.train.Checkpoint(model=model, table=table, optimizer=optimizer)
    prefix = saved.save(str(folder / "keras"))
    step(STEPS)
    return prefix, [np.asarray(v) for v in variables]


def _sgd(momentum=0.9, **more):
    return lambda p: torch.optim.SGD(p, LR, momentum=momentum, **more)


# By case: Keras' optimizer, torch's, the styles of Keras it is in, and the tolerance.
BOTH, ALL = (NEW_STYLE, KERAS_3), (OLD_STYLE, NEW_STYLE, KERAS_3)
KERAS_CASES = {
    "SGD": (lambda k: k.SGD(LR, 0.9), _sgd(), ALL, 1e-6),
    "SGD, Nesterov": (lambda k: k.SGD(LR, 0.9, nesterov=True), _sgd(nesterov=True), ALL, 1e-6),
    "Adam": (lambda k: k.Adam(LR), lambda p: torch.optim.Adam(p, LR, eps=1e-7), ALL, 1e-6),
    "Adam, amsgrad": (
        lambda k: k.Adam(LR, amsgrad=True),
        lambda p: torch.optim.Adam(p, LR, eps=1e-7, amsgrad=True),
        ALL,
        1e-6,
    ),
    "Adam, another name": (
        lambda k: k.Adam(LR, name="mine"),
        lambda p: torch.optim.Adam(p, LR, eps=1e-7),
        ALL,
        1e-6,
    ),
    "AdamW": (
        lambda k: k.AdamW(LR, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, LR, eps=1e-7, weight_decay=0.1),
        BOTH,
        1e-6,
    ),
    "Nadam": (
        lambda k: k.Nadam(LR),
        lambda p: torch.optim.NAdam(p, LR, eps=1e-7, momentum_decay=1.0),
        BOTH,
        1e-6,
    ),
    "Nadam, before 2.11": (
        lambda k: k.Nadam(LR),
        lambda p: torch.optim.NAdam(p, LR, eps=1e-7),
        (OLD_STYLE,),
        1e-6,
    ),
    "Adamax": (lambda k: k.Adamax(LR), lambda p: torch.optim.Adamax(p, LR, eps=1e-7), ALL, 1e-6),
    "Adagrad": (lambda k: k.Adagrad(LR), lambda p: torch.optim.Adagrad(p, LR, eps=1e-7), ALL, 1e-6),
    "Adadelta": (
        lambda k: k.Adadelta(LR, 0.9, 1e-6),
        lambda p: torch.optim.Adadelta(p, LR, 0.9, 1e-6),
        ALL,
        1e-6,
    ),
    "RMSprop": (
        lambda k: k.RMSprop(LR, 0.9, epsilon=1e-10),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10),
        ALL,
        1e-5,
    ),
    "RMSprop, centered, with momentum": (
        lambda k: k.RMSprop(LR, 0.9, 0.8, 1e-10, centered=True),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8, centered=True),
        ALL,
        1e-5,
    ),
    "Adafactor": (
        lambda k: k.Adafactor(LR),
        lambda p: torch.optim.Adafactor(p, LR, eps=(1e-15, 1e-3), weight_decay=0),
        (KERAS_3,),
        1e-6,
    ),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "style"), [(name, style) for name, case in KERAS_CASES.items() for style in case[2]]
)
def test_torch_goes_on_where_keras_was(tmp_path, name, style):
    make, make_torch, _, tolerance = KERAS_CASES[name]
    prefix, weights = _train_keras(tmp_path, style, make)
    ours = _go_on(prefix, make_torch, "n" if style == KERAS_3 else "")
    _assert_went_on(ours, weights, tolerance)
    assert not ours.report.missing_keys


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", ["Momentum", "Adam", "Adagrad", "Adadelta", "RMSProp, centered"])
def test_tensorflow_1s_optimizers_are_found_in_an_object_graph(tmp_path, case):
    import tensorflow as tf
    from tf_oracle import tf1

    make, make_torch, names, tolerance = TF1_CASES[case]
    root = tf.Module()
    shapes = {"d/kernel": (3, 2), "d/bias": (2,), "e/embeddings": (4, 3)}
    variables = [tf.Variable(tf.ones(shape), name=name) for name, shape in shapes.items()]
    root.variables_ = variables
    optimizer = make(tf1.train)

    def step(number):
        gradients = [tf.constant(g) for g in _gradients(number)]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for number in range(STEPS):
        step(number)
    prefix = tf.train.Checkpoint(root=root, optimizer=optimizer).save(str(tmp_path / "tf"))
    kept = {name: optimizer.get_slot(variables[0], name).numpy() for name in names}
    step(STEPS)
    ours = _go_on(prefix, make_torch)
    for theirs, mine in names.items():
        np.testing.assert_array_equal(ours.slots[0][mine].t(), kept[theirs])
    _assert_went_on(ours, [v.numpy() for v in variables], tolerance)


@pytest.mark.tensorflow
@pytest.mark.parametrize("is_legacy", [False, True])
def test_an_optimizer_whose_loss_is_scaled_is_not_said_to_be_called_as_a_slot(tmp_path, is_legacy):
    import tf_keras as keras

    inner = (keras.optimizers.legacy if is_legacy else keras.optimizers).Adam()
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile(keras.mixed_precision.LossScaleOptimizer(inner), "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    model.save_weights(str(tmp_path / "model"), save_format="tf")
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(twin.parameters())
    settings = WarmStartSettings(str(tmp_path / "model"), EVERYTHING)
    (note,) = map(str, tws.warm_start(twin, settings, optimizer=optimizer).notes)
    assert note.startswith("TensorFlow's Adam adds epsilon to sqrt(v)")
    assert optimizer.state[twin.d.weight]["step"] == 3


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop, centered, with momentum", "Adagrad"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_optimizer_in_an_hdf5_file_of_keras_3_is_found(tmp_path, name):
    import keras

    make, make_torch, _, _ = KERAS_CASES[name]
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile(make(keras.optimizers), "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    model.save(str(tmp_path / "model.h5"))
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    optimizer = make_torch(twin.parameters())
    settings = WarmStartSettings(str(tmp_path / "model.h5"), EVERYTHING)
    assert not tws.warm_start(twin, settings, optimizer=optimizer).missing_keys
    endings = {
        "exp_avg": ("momentum", 1),
        "exp_avg_sq": ("velocity", 1),
        "square_avg": ("velocity", 1),
        "grad_avg": ("average_gradient", 1),
        "sum": ("accumulator", 1),
        "momentum_buffer": ("momentum", -LR if name == "SGD" else LR),
    }
    kept = {v.path.partition("d_kernel_")[2]: np.asarray(v) for v in model.optimizer.variables}
    for slot, value in optimizer.state[twin.d.weight].items():
        if slot != "step":
            ending, scale = endings[slot]
            np.testing.assert_allclose(value.t().numpy() * scale, kept[ending], rtol=1e-6)
    assert optimizer.state[twin.d.weight].get("step", 3) == 3


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop, centered, with momentum", "Adagrad"])
@pytest.mark.parametrize("style", [OLD_STYLE, NEW_STYLE])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_optimizers_in_an_hdf5_file_of_keras_2_are_found(tmp_path, name, style):
    import tf_keras as keras

    make, make_torch, _, _ = KERAS_CASES[name]
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    optimizer = make(keras.optimizers.legacy if style == OLD_STYLE else keras.optimizers)
    model.compile(optimizer, "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    path = str(tmp_path / "model.h5")
    model.save(path)
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    mine = make_torch(twin.parameters())
    report = tws.warm_start(twin, WarmStartSettings(path, EVERYTHING), optimizer=mine)
    assert not report.missing_keys
    every = (
        [np.asarray(v) for v in optimizer.variables() if v.shape == (3, 2)]
        if (style == OLD_STYLE)
        else [np.asarray(v) for v in optimizer.variables if v.shape == (3, 2)]
    )
    scale = {"momentum_buffer": -LR if name == "SGD" else LR}
    for slot, value in mine.state[twin.d.weight].items():
        if value.ndim:
            theirs = value.t().numpy() * scale.get(slot, 1)
            assert any(np.allclose(theirs, one, rtol=1e-6) for one in every), slot
    assert mine.state[twin.d.weight].get("step", 3) == 3


# -- checkpoints of public projects ----------------------------------------------------------------

REAL = {  # by folder: kind, and how many variables have slots
    "mlnet-cifar-ckpt/model.ckpt": ("Adam", 4),
    "mlnet-mnist-conv/variables/variables": ("Momentum", 10),
    "keras-bert-toy/bert_model.ckpt": ("Adam", 46),
    "mtcnn-pnet/PNet-18": ("Momentum", 15),
    "wide-deep-contrib/model.ckpt-6000": ("Adagrad", 10),
    "iris-contrib/model.ckpt-8000": ("Adagrad", 8),
    "linear-ftrl/model.ckpt-5000": ("Ftrl", 13),
    "tfx-taxi-2019/model.ckpt-10000": ("Adagrad", 10),
    "tfx-iris-tuner/checkpoint": ("Adam", 8),
    "lso-ckpt-tf22/ckpt": ("SGD", 2),
    "mnist-cnn-2shard/model.ckpt": ("Adam", 10),
    "tfnet-lstm/variables/variables": ("Adam", 5),
    "acrobot-v1/model.ckpt": ("Adam", 10),
    "nxt-v1/model.ckpt": ("Adam", 4),
}


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
@pytest.mark.parametrize("prefix", REAL)
def test_slots_of_real_checkpoints_are_tied_to_their_variables(prefix):
    from torch_warmstart.slots.tensorflow.index import SlotIndex

    kind, count = REAL[prefix]
    with tws.load_checkpoint(str(Path(FOLDER) / prefix)) as checkpoint:
        index = SlotIndex(checkpoint)
        found = [index.of(key) for key in checkpoint]
        assert sum(len(kept) == 1 and kept[0].kind == kind for kept in found) == count
        for key in checkpoint:
            for kept in index.of(key):
                shapes = {checkpoint.spec(slot).shape for slot in kept.slots.values()}
                assert shapes == {checkpoint.spec(key).shape}


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
@pytest.mark.parametrize(
    ("prefix", "variable"),
    [
        ("acrobot-v1/model.ckpt", "policy/Stack/fully_connected_1/biases"),
        ("sts-image/variables/variables", "conv1/bias"),
        ("mlnet-cifar-ckpt/model.ckpt", "b1"),
    ],
)
def test_real_powers_tell_the_steps(prefix, variable):
    path = str(Path(FOLDER) / prefix)
    with tws.load_checkpoint(path) as checkpoint:
        model = One(checkpoint.spec(variable).shape)
        slots = [key for key in checkpoint if key.endswith(f"{variable}/Adam_1")]
        wanted = checkpoint.get_tensor(slots[0])
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(path, EVERYTHING, var_name_to_prev_var_name={"w": variable})
    tws.warm_start(model, settings, optimizer=optimizer)
    state = optimizer.state[model.w]
    assert torch.equal(state["exp_avg_sq"], wanted)
    assert state["step"] >= 1
    assert float(state["step"]).is_integer()


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
def test_real_powers_that_have_become_0_are_refused():
    path = str(Path(FOLDER) / "nxt-v1/model.ckpt")
    model = One((10,))
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(path, EVERYTHING, var_name_to_prev_var_name={"w": "mbias"})
    with pytest.raises(UnsupportedError, match="have become 0 after many steps"):
        tws.warm_start(model, settings, optimizer=optimizer)
    assert not model.w.any()
