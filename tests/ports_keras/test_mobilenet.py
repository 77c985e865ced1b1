"""MobileNets: depthwise and separable convolutions, ReLU6, and a convolution that is a Linear."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from keras_port import (
    PadSame,
    assert_agrees,
    floats,
    images,
    numbers,
    outputs_by_layer,
    port,
    randomise,
)
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

CLASSES = 4


# -- the one of Keras' applications ----------------------------------------------------------------

SIZE = 64
# Width and stride of the depthwise block, at a quarter of the full width.
BLOCKS = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)]
BLOCKS += [(128, 1)] * 5 + [(256, 2), (256, 1)]


class MobileNet(nn.Module):
    """`keras.applications.MobileNet(alpha=0.25)`, in torch and by the same names."""

    def __init__(self, eps: float = 1e-3):
        super().__init__()
        self.conv1_pad = PadSame(3, 2)
        self.add("conv1", nn.Conv2d(3, 8, 3, 2, bias=False), eps)
        for number, ((inputs, _), (outputs, stride)) in enumerate(
            itertools.pairwise([(8, 1), *BLOCKS]), start=1
        ):
            # A stride of 2 has zeros behind only, SAME or written out; one of 1 has both.
            padding = 0 if stride > 1 else 1
            depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False)
            self.add(f"conv_dw_{number}", depthwise, eps)
            self.add(f"conv_pw_{number}", nn.Conv2d(inputs, outputs, 1, bias=False), eps)
        self.conv_preds = nn.Linear(BLOCKS[-1][0], CLASSES)  # a convolution of size 1 in Keras

    def add(self, name: str, conv: nn.Conv2d, eps: float) -> None:
        self.add_module(name, conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(conv.out_channels, eps, momentum=0.01))

    def normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu6(getattr(self, f"{name}_bn")(getattr(self, name)(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.normed("conv1", self.conv1_pad(x))
        for number, (_, stride) in enumerate(BLOCKS, start=1):
            if stride > 1:
                x = nn.functional.pad(x, (0, 1, 0, 1))
            x = self.normed(f"conv_pw_{number}", self.normed(f"conv_dw_{number}", x))
        return self.conv_preds(x.mean((2, 3)))


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def of_keras(keras: Any) -> Any:
    trained = keras.applications.MobileNet(
        (SIZE, SIZE, 3), alpha=0.25, weights=None, classes=CLASSES, classifier_activation=None
    )
    randomise(trained)
    return trained


@pytest.fixture(scope="module")
def files_of_keras(of_keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mobilenet")
    of_keras.save(folder / "mobilenet.keras")
    of_keras.save_weights(folder / "mobilenet.weights.h5")
    return folder


@pytest.mark.parametrize("file", ["mobilenet.keras", "mobilenet.weights.h5"])
def test_the_application_needs_no_rename(keras, of_keras, files_of_keras, file):
    path = files_of_keras / file
    theirs, mine = images("float32", 2, SIZE, SIZE, 3)
    model = MobileNet()
    plan = port(model, path)
    assert plan.unused_keys == ()
    names = ["conv1_bn", "conv_dw_2", "conv_pw_13"]
    layers = outputs_by_layer(keras, of_keras, theirs, names)
    assert_agrees(model, mine, numbers(of_keras(theirs)), layers)


def test_with_torchs_epsilon_it_departs_at_its_first_norm(keras, of_keras, files_of_keras):
    theirs, mine = images("float32", 2, SIZE, SIZE, 3)
    model = MobileNet(eps=1e-5)
    plan = port(model, files_of_keras / "mobilenet.keras")
    layers = outputs_by_layer(keras, of_keras, theirs, ["conv1", "conv1_bn", "conv_dw_1"])
    check = tws.verify_port(model, mine, numbers(of_keras(theirs)), layers=layers)
    assert check.first_departure == "conv1_bn"
    [audit] = plan.audits
    assert audit.modules[0] == "conv1_bn"
    assert len(audit.modules) == 1 + 2 * len(BLOCKS)


# -- separable convolutions and inverted residuals, in tf_keras ------------------------------------


def keras_separable(keras: Any) -> Any:
    layers = keras.layers
    images_in = layers.Input((16, 16, 3))
    x = layers.SeparableConv2D(8, 3, 2, "same", depth_multiplier=2, name="stem")(images_in)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.Conv2D(24, 1, use_bias=False, name="expand")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="expand_norm")(y))
    y = layers.DepthwiseConv2D(5, 1, "same", use_bias=True, name="filter")(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="filter_norm", scale=False)(y))
    y = layers.Conv2D(8, 1, use_bias=False, name="project")(y)
    x = layers.Add()([x, layers.BatchNormalization(name="project_norm", center=False)(y)])
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(images_in, layers.Dense(CLASSES, name="head")(x))


class Separable(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem_pad = PadSame(3, 2)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, groups=3, bias=False), nn.Conv2d(6, 8, 1))
        self.stem_norm = self.norm(8)
        self.expand = nn.Conv2d(8, 24, 1, bias=False)
        self.expand_norm = self.norm(24)
        self.filter = nn.Conv2d(24, 24, 5, padding=2, groups=24)
        self.filter_norm = self.norm(24)
        self.project = nn.Conv2d(24, 8, 1, bias=False)
        self.project_norm = self.norm(8)
        self.head = nn.Linear(8, CLASSES)

    def norm(self, width: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        relu6 = nn.functional.relu6
        x = relu6(self.stem_norm(self.stem(self.stem_pad(x))))
        y = relu6(self.expand_norm(self.expand(x)))
        y = relu6(self.filter_norm(self.filter(y)))
        x = x + self.project_norm(self.project(y))
        return self.head(x.amax((2, 3)))


@pytest.fixture(scope="module")
def tf_keras() -> Any:
    return pytest.importorskip("tf_keras")


def port_separable(path: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Keras leaves out a gamma or beta that nobody trains; a fresh torch norm has 1 and 0."""
    model = Separable().to(dtype)
    settings = tws.WarmStartSettings(str(path), [".*"], on_missing="keep")
    report = tws.warm_start(model, settings)
    missing = {n for n in report.missing_keys if not n.endswith("num_batches_tracked")}
    assert missing == {"filter_norm.weight", "project_norm.bias"}
    return model


@pytest.mark.parametrize(
    ("file", "dtype"),
    [
        ("separable.h5", "float64"),
        ("separable_saved_model", "float32"),
        ("separable.ckpt", "float32"),
        ("separable.ckpt", "float64"),
    ],
)
def test_separable_and_inverted(tf_keras, tmp_path, file, dtype):
    theirs, mine = images(dtype, 3, 16, 16, 3)
    with floats(tf_keras, dtype):
        trained = keras_separable(tf_keras)
        randomise(trained)
        expected = numbers(trained(theirs))
    save(trained, tmp_path / file)
    model = port_separable(tmp_path / file, getattr(torch, dtype))
    assert_agrees(model, mine, expected)


def save(model: Any, path: Path) -> None:
    if path.suffix == ".h5":
        model.save(path)
    elif path.suffix == ".ckpt":
        model.save_weights(path)
    else:
        model.save(path, save_format="tf")


def test_from_a_saver_of_tensorflow_1(tf_keras, tmp_path):
    tf1 = pytest.importorskip("tensorflow").compat.v1
    theirs, mine = images("float32", 3, 16, 16, 3)
    with tf1.Graph().as_default(), tf1.Session() as session:
        trained = keras_separable(tf_keras)
        session.run(tf1.global_variables_initializer())
        randomise(trained)
        expected = session.run(trained.output, {trained.input: theirs})
        tf1.train.Saver(trained.weights).save(session, str(tmp_path / "model"), global_step=7)
    assert "stem/depthwise_kernel" in dict(tws.list_variables(tmp_path))
    assert_agrees(port_separable(tmp_path), mine, expected)
