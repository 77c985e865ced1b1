"""What messages propose for Keras's optimizers, and say of them, against Keras itself."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.two(self.one(x))


def _trained(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")]
    )
    model.compile(optimizer, "mse")
    data = np.random.default_rng(0).normal(size=(8, 3)).astype("f4")
    model.fit(data, data, epochs=2, verbose=0)
    return model


def _objects(model, tmp_path):
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "tf"))


NAMES = {
    f"{layer}.{leaf}": f"model/_operations/{at}/{tf_leaf}/.ATTRIBUTES/VARIABLE_VALUE"
    for at, layer in ((1, "one"), (2, "two"))
    for leaf, tf_leaf in (("weight", "_kernel"), ("bias", "bias"))
}


def _start(source, optimizer, model, **options):
    return tws.warm_start(model, tws.WarmStartSettings(source, **options), optimizer=optimizer)


def test_the_models_own_kernel_is_no_slot(tmp_path):
    """Keras 3's optimizer refers to it, and without momentum it keeps nothing else."""
    prefix = _objects(_trained(keras.optimizers.SGD(0.1)), tmp_path)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    report = _start(prefix, optimizer, model)
    assert "no-optimizer-state" in [note.code for note in report.notes]
    assert not optimizer.state


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, use_ema=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.Adam(0.1, use_ema=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
        lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    ],
    ids=["sgd-ema", "momentum-ema", "adam-ema", "momentum-accumulated", "adam-accumulated"],
)
def test_no_number_is_proposed_where_the_order_is_not_known(tmp_path, make):
    path = tmp_path / "m.keras"
    _trained(make()).save(path)
    for kind in (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), torch.optim.Adam):
        model = Net()
        with pytest.raises(tws.PlanError) as error:
            _start(path, kind(model.parameters()), model)
        assert ": 'optimizer/vars" not in str(error.value)


@pytest.mark.parametrize("accumulates", [False, True])
def test_averages_and_sums_of_gradients_are_no_state_in_an_object_graph(tmp_path, accumulates):
    options = {"gradient_accumulation_steps": 2} if accumulates else {"use_ema": True}
    prefix = _objects(_trained(keras.optimizers.SGD(0.1, **options)), tmp_path)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    report = _start(prefix, optimizer, model)
    assert "no-optimizer-state" in [note.code for note in report.notes]


@pytest.mark.parametrize("options", [{}, {"centered": True}, {"momentum": 0.9}])
def test_legacy_rmsprop_goes_on_with_the_same_epsilon(tmp_path, options):
    tf_keras = pytest.importorskip("tf_keras")
    theirs = tf_keras.optimizers.legacy.RMSprop(0.01, epsilon=1e-3, **options)
    variable = tf.Variable([1.0, -2.0, 3.0], name="w")
    root = tf.train.Checkpoint(w=variable, optimizer=theirs)

    def step(value):
        theirs.apply_gradients([(tf.constant(value), variable)])

    step([0.1, 0.02, -0.3])
    prefix = root.save(str(tmp_path / "legacy"))
    model = nn.ParameterDict({"w": torch.zeros(3)})
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, alpha=0.9, eps=1e-3, **options)
    report = tws.warm_start(model, prefix, optimizer=optimizer)
    notes = " ".join(map(str, report.notes))
    step([0.01, -0.02, 0.3])
    model["w"].grad = torch.tensor([0.01, -0.02, 0.3])
    optimizer.step()
    gap = float(np.abs(variable.numpy() - model["w"].detach().numpy()).max())
    if "momentum" in options:
        assert "under the root" in notes
        return
    assert gap < 1e-6
    assert "under the root" not in notes
    assert "eps=epsilon" in notes


@pytest.mark.parametrize("is_object", [True, False])
def test_a_count_of_batches_is_told_where_gradients_were_summed(tmp_path, is_object):
    keras_model = _trained(keras.optimizers.Adam(0.1, gradient_accumulation_steps=2))
    path = _objects(keras_model, tmp_path) if is_object else str(tmp_path / "m.h5")
    if not is_object:
        keras_model.save(path)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(tws.WarmStartWarning, match="steps-of-batches"):
        _start(path, optimizer, model)
    assert optimizer.state[model.one.weight]["step"] == 2
    assert int(keras_model.optimizer.iterations) == 1
