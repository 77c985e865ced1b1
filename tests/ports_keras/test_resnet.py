"""A small ResNet of Keras', with strides and SAME padding, computes the same in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from keras_port import (
    PadSame,
    assert_agrees,
    channels_first,
    everything,
    floats,
    images,
    numbers,
    outputs_by_layer,
    port,
    randomise,
    relative_error,
)
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

CLASSES = 5
WIDTHS = (8, 16)
SIZE = 32
LAYERS = ["stem_conv", "stem_norm", "pool", "a_conv1", "a_norm2", "b_shortcut", "b_norm2", "head"]


# -- Keras' side -----------------------------------------------------------------------------------


def keras_block(
    keras: Any, x: Any, width: int, stride: int, name: Any, shortcut_first: bool = False
) -> Any:
    """Two convolutions beside a shortcut, which is projected where the size changes."""
    layers = keras.layers

    def residual() -> Any:
        y = layers.Conv2D(width, 3, stride, "same", use_bias=False, name=name("conv1"))(x)
        y = layers.ReLU()(layers.BatchNormalization(name=name("norm1"))(y))
        y = layers.Conv2D(width, 3, 1, "same", use_bias=False, name=name("conv2"))(y)
        return layers.BatchNormalization(name=name("norm2"))(y)

    def shortcut() -> Any:
        if stride == 1:
            return x
        y = layers.Conv2D(width, 1, stride, "same", use_bias=False, name=name("shortcut"))(x)
        return layers.BatchNormalization(name=name("shortcut_norm"))(y)

    parts = [shortcut, residual] if shortcut_first else [residual, shortcut]
    return layers.ReLU()(layers.Add()([part() for part in parts]))


def keras_resnet(keras: Any, named: bool = True, **options: Any) -> Any:
    """The network; without names, Keras numbers its layers."""

    def called(name: str) -> str | None:
        return name if named else None

    if not named:  # it then counts from nothing, as in a fresh program
        keras.backend.clear_session()

    layers = keras.layers
    images_in = layers.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(WIDTHS[0], 7, 2, "same", use_bias=False, name=called("stem_conv"))(images_in)
    x = layers.ReLU()(layers.BatchNormalization(name=called("stem_norm"))(x))
    x = layers.MaxPooling2D(3, 2, "same", name=called("pool"))(x)
    x = keras_block(keras, x, WIDTHS[0], 1, lambda name: called(f"a_{name}"), **options)
    x = keras_block(keras, x, WIDTHS[1], 2, lambda name: called(f"b_{name}"), **options)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images_in, layers.Dense(CLASSES, name=called("head"))(x))
    randomise(model)
    return model


# -- torch's side ----------------------------------------------------------------------------------


class ResNet(nn.Module):
    """The same network with the same names; `naive` has torch's defaults where they differ."""

    def __init__(self, eps: float = 1e-3, naive_padding: bool = False):
        super().__init__()
        self.eps, self.naive_padding = eps, naive_padding
        self.stem_pad, self.stem_conv = self.conv(3, WIDTHS[0], 7, 2)
        self.stem_norm = self.norm(WIDTHS[0])
        if naive_padding:
            self.pool = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.pool = nn.Sequential(PadSame(3, 2, -torch.inf), nn.MaxPool2d(3, 2))
        self.add_block("a", WIDTHS[0], WIDTHS[0], 1)
        self.add_block("b", WIDTHS[0], WIDTHS[1], 2)
        self.head = nn.Linear(WIDTHS[1], CLASSES)

    def conv(
        self, inputs: int, outputs: int, size: int, stride: int
    ) -> tuple[nn.Module, nn.Conv2d]:
        if self.naive_padding:
            pads = size // 2
            return nn.Identity(), nn.Conv2d(inputs, outputs, size, stride, pads, bias=False)
        return PadSame(size, stride), nn.Conv2d(inputs, outputs, size, stride, bias=False)

    def norm(self, width: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(width, eps=self.eps, momentum=0.01)

    def add_block(self, name: str, inputs: int, outputs: int, stride: int) -> None:
        pad1, conv1 = self.conv(inputs, outputs, 3, stride)
        pad2, conv2 = self.conv(outputs, outputs, 3, 1)
        parts = {"pad1": pad1, "conv1": conv1, "norm1": self.norm(outputs)}
        parts |= {"pad2": pad2, "conv2": conv2, "norm2": self.norm(outputs)}
        if stride > 1:
            parts["shortcut"] = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            parts["shortcut_norm"] = self.norm(outputs)
        for part, module in parts.items():
            self.add_module(f"{name}_{part}", module)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        part = {
            key.removeprefix(f"{name}_"): m
            for key, m in self._modules.items()
            if key.startswith(f"{name}_")
        }
        y = part["norm1"](part["conv1"](part["pad1"](x))).relu()
        y = part["norm2"](part["conv2"](part["pad2"](y)))
        if "shortcut" in part:
            x = part["shortcut_norm"](part["shortcut"](x))
        return (x + y).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem_norm(self.stem_conv(self.stem_pad(x))).relu())
        x = self.block("b", self.block("a", x))
        return self.head(x.mean((2, 3)))


# -- tests -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def trained(keras: Any) -> Any:
    return keras_resnet(keras)


@pytest.fixture(scope="module")
def archive(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("resnet") / "resnet.keras"
    trained.save(path)
    return str(path)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, torch.Tensor]:
    return images("float32", 4, SIZE, SIZE, 3)


def test_layer_by_layer_without_a_rename(keras, trained, archive, batch):
    theirs, mine = batch
    model = ResNet()
    plan = port(model, archive)
    assert plan.audits == ()
    layers = outputs_by_layer(keras, trained, theirs, LAYERS)
    assert_agrees(model, mine, numbers(trained(theirs)), layers)


@pytest.mark.parametrize("file", ["resnet.weights.h5", "resnet.ckpt", "resnet_saved_model"])
def test_in_float64_from_other_files(keras, tmp_path, file):
    with floats(keras, "float64"):
        trained = keras_resnet(keras)
    path = save(trained, tmp_path / file)
    theirs, mine = images("float64", 2, SIZE, SIZE, 3)
    model = ResNet().double()
    plan = port(model, path)
    assert not any(item.cast for item in plan.items)
    assert_agrees(model, mine, numbers(trained(theirs)))


def save(model: Any, path: Any) -> Any:
    tf = pytest.importorskip("tensorflow")
    if path.suffix == ".ckpt":
        return tf.train.Checkpoint(model=model).write(str(path))
    if path.suffix == ".h5":
        model.save_weights(path)
    else:
        model.export(path, verbose=False)
    return path


def test_gradients_of_the_images(trained, archive, batch):
    tf = pytest.importorskip("tensorflow")
    theirs, mine = batch
    images_in, weights = tf.constant(theirs), np.arange(CLASSES, dtype=np.float32)
    with tf.GradientTape() as tape:
        tape.watch(images_in)
        loss = tf.reduce_sum(trained(images_in, training=False) * weights)
    expected = channels_first(tape.gradient(loss, images_in))
    model = ResNet()
    port(model, archive)
    mine = mine.clone().requires_grad_()
    (model.eval()(mine) * torch.from_numpy(weights)).sum().backward()
    assert relative_error(mine.grad, expected) < 1e-5


@pytest.mark.parametrize(
    ("naive", "layer"),
    [({"naive_padding": True}, "stem_conv"), ({"eps": 1e-5}, "stem_norm")],
    ids=["padding", "epsilon"],
)
def test_torchs_defaults_depart_where_the_plan_said(keras, trained, archive, batch, naive, layer):
    theirs, mine = batch
    model = ResNet(**naive)
    plan = port(model, archive)
    check = tws.verify_port(
        model,
        mine,
        numbers(trained(theirs)),
        layers=outputs_by_layer(keras, trained, theirs, LAYERS),
    )
    assert check.first_departure == layer
    assert layer in {name for audit in plan.audits for name in audit.modules}
    assert f"Compare: {layer}" in str(plan)


def test_names_that_keras_gave_are_told_and_suggested(keras, batch, tmp_path):
    trained = keras_resnet(keras, named=False)
    path = tmp_path / "resnet.keras"
    trained.save(path)
    with pytest.raises(tws.PlanError, match=r"stem_conv\.weight is not in the checkpoint"):
        tws.plan_warm_start(ResNet(), everything(path))
    suggested = tws.suggest_names(ResNet(), everything(path))
    assert not suggested.unused
    tws.save_rules(tmp_path / "rules.toml", suggested, min_confidence="low")
    model = ResNet()
    theirs, mine = batch
    port(model, path, var_name_to_prev_var_name=tws.load_rules(tmp_path / "rules.toml"))
    assert_agrees(model, mine, numbers(trained(theirs)))


def test_a_guess_is_called_one_and_the_record_refutes_it(keras, batch, tmp_path):
    """Where the shortcut was made first, its norm has the number that a norm beside it has here."""
    trained = keras_resnet(keras, named=False, shortcut_first=True)
    trained.save(tmp_path / "resnet.keras")
    suggested = tws.suggest_names(ResNet(), everything(tmp_path / "resnet.keras"))
    guessed = {item.variable: item for item in suggested.items}["b_norm1.weight"]
    assert (guessed.names, guessed.confidence) == (("batch_normalization_3/gamma",), "low")
    theirs, mine = batch
    model = ResNet()
    rules = suggested.as_rules("low")
    port(model, tmp_path / "resnet.keras", var_name_to_prev_var_name=rules)
    made = {"b_conv1": "conv2d_4", "b_norm1": "batch_normalization_4"}
    record = outputs_by_layer(keras, trained, theirs, list(made.values()))
    layers = {name: record[theirs] for name, theirs in made.items()}
    check = tws.verify_port(model, mine, numbers(trained(theirs)), layers=layers)
    assert check.first_departure == "b_norm1"
    norms = ("b_shortcut_norm.", "b_norm1.", "b_norm2.")
    names = {norm: f"batch_normalization_{number}/" for number, norm in enumerate(norms, start=3)}
    rules = tws.NameRules({**rules.names, **names}, rules.patterns)
    port(model, tmp_path / "resnet.keras", var_name_to_prev_var_name=rules)
    assert_agrees(model, mine, numbers(trained(theirs)), layers)
