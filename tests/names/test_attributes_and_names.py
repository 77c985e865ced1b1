"""Files of Keras 3 call a layer by its own name, and some by the model's attribute, too."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import torch_warmstart as tws

h5py = pytest.importorskip("h5py")


@pytest.fixture
def write(tmp_path):
    """Writes Dense layers by their folders, each with the name that the layer has."""

    def write(layers):
        path = tmp_path / "m.weights.h5"
        with h5py.File(path, "w") as file:
            for number, (folder, name) in enumerate(layers.items()):
                variables = file.create_group(f"{folder}/vars")
                variables.attrs["name"] = name
                variables["0"] = np.full((2, 3), number, "float32")
                variables["1"] = np.full((3,), number, "float32")
        return str(path)

    return write


def twin(*names):
    return nn.ModuleDict({name: nn.Linear(2, 3) for name in names})


def test_a_name_that_is_anothers_attribute_is_an_error(write):
    path = write({"first": "second", "layers/dense": "first"})
    with pytest.raises(tws.PlanError) as caught:
        tws.plan_warm_start(twin("first", "second"), path)
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == 2  # of weight and bias; `second` is no attribute of another
    assert "first.weight is found under different keys" in said[0]
    assert "'layers/dense/vars/0' and 'first/vars/0'" in said[0]


@pytest.mark.parametrize(
    ("folder", "other"),
    [("first", "layers/dense"), ("layers/dense", "first")],
)
def test_a_rule_says_which_is_meant_by_its_keys(write, folder, other):
    path = write({"first": "second", "layers/dense": "first"})
    model = twin("first", "second")
    leaves = {"weight": "vars/0", "bias": "vars/1"}
    rules = {
        f"{name}.{leaf}": f"{place}/{number}"
        for name, place in (("first", folder), ("second", other))
        for leaf, number in leaves.items()
    }
    tws.warm_start(model, tws.WarmStartSettings(path, ".*", None, rules))
    written = {"first": 0.0, "layers/dense": 1.0}
    assert model["first"].weight.eq(written[folder]).all()
    assert model["second"].weight.eq(written[other]).all()


def test_a_rule_by_what_is_both_is_an_error(write):
    path = write({"first": "second", "layers/dense": "first"})
    settings = tws.WarmStartSettings(path, ".*", None, {"it.": "first/"})
    with pytest.raises(tws.PlanError, match="it.weight is found under different keys"):
        tws.plan_warm_start(twin("it"), settings)


@pytest.mark.parametrize(
    "layers",
    [
        {"dense": "dense", "head": "head"},
        {"dense": "dense_7", "head": "head_1"},  # Keras's own numbers are nobody's attribute
        {"layers/dense": "dense", "layers/dense_1": "head"},
        {"dense_1": "dense", "dense_2": "dense_1"},
    ],
)
def test_names_and_attributes_that_do_not_contradict_each_other(write, layers):
    path = write(layers)
    attributes = [f if "/" not in f else name for f, name in layers.items()]
    model = twin(*attributes)
    tws.warm_start(model, path)
    found = [model[name].weight[0, 0].item() for name in attributes]
    assert found == [0.0, 1.0]
