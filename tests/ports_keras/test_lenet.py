"""A Dense behind a Flatten: its rows are numbered by places before channels in Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_port import assert_agrees, everything, images, numbers, outputs_by_layer, randomise
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

RULES = """
[scopes]
"features.0." = "conv2d/"
"features.3." = "conv2d_1/"
"classifier.0." = "dense/"
"classifier.2." = "dense_1/"

[layouts]
"classifier.0.weight" = "flatten_channels_last[8]"
"""


def keras_lenet(keras: Any) -> Any:
    """With the names that a fresh program of Keras 3 gives its layers."""
    keras.backend.clear_session()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((20, 24, 1)),
            layers.Conv2D(4, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(8, 3, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(16, activation="tanh"),
            layers.Dense(5),
        ]
    )
    randomise(model)
    return model


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 4, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(4, 8, 3), nn.Tanh(), nn.AvgPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Linear(8 * 3 * 4, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture(scope="module")
def trained() -> Any:
    return keras_lenet(pytest.importorskip("keras"))


@pytest.fixture
def archive(trained: Any, tmp_path: Path) -> Path:
    trained.save(tmp_path / "lenet.keras")
    return tmp_path / "lenet.keras"


@pytest.fixture
def rules(tmp_path: Path) -> tws.NameRules:
    (tmp_path / "rules.toml").write_text(RULES, encoding="utf-8")
    return tws.load_rules(tmp_path / "rules.toml")


@pytest.fixture
def record(trained: Any) -> tuple[torch.Tensor, np.ndarray, dict[str, np.ndarray]]:
    keras = pytest.importorskip("keras")
    theirs, mine = images("float32", 3, 20, 24, 1)
    layers = outputs_by_layer(keras, trained, theirs, ["conv2d_1", "dense"])
    names = {"conv2d_1": "features.4", "dense": "classifier.1"}  # activations are layers here
    return mine, numbers(trained(theirs)), {names[name]: out for name, out in layers.items()}


def test_a_rules_file_names_layers_and_the_layout_behind_the_flatten(archive, rules, record):
    model = LeNet()
    settings = everything(
        archive, var_name_to_prev_var_name=rules, var_name_to_layout=rules.layouts
    )
    plan = tws.plan_warm_start(model, settings)
    assert [item.layout.name for item in plan.items if item.name == "classifier.0.weight"] == [
        "flatten_channels_last[8]"
    ]
    tws.apply_plan(plan)
    inputs, outputs, layers = record
    assert_agrees(model, inputs, outputs, layers)


def test_without_the_layout_it_departs_behind_the_flatten(archive, rules, record):
    model = LeNet()
    tws.warm_start(model, everything(archive, var_name_to_prev_var_name=rules.names))
    inputs, outputs, layers = record
    check = tws.verify_port(model, inputs, outputs, layers=layers)
    assert check.first_departure == "classifier.1"
    assert "after 'features.4' still agreed" in str(check)
