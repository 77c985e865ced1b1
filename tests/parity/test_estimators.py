"""The cases of TensorFlow's own tests of warm-started estimators.

`fixtures/` has what real estimators saved, and what those held that TensorFlow warm-started from
it; `make_estimator_fixtures.py` made it. Here torch models of the same structure are warm-started
from the same checkpoints. What is taken must equal what TensorFlow's estimator had, to the bit;
what TensorFlow left to its initialisers must stay as the torch model has it.
"""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

FIXTURES = Path(__file__).parent / "fixtures"
SOURCES = {"dir": "old", "saved_model": "old_saved_model"}
HIDDEN = (8, 6)
CITY, OCCUPATION = "city_embedding", "occupation_embedding"
INPUT_LAYER = "dnn.input_from_feature_columns.input_layer"


def expected_of(case):
    with np.load(FIXTURES / case / "expected.npz") as values:
        numbers = [name for name in values if values[name].dtype.kind in "fi"]
        return {name: torch.from_numpy(values[name]) for name in numbers}


# -- estimators of one variable --------------------------------------------------------------------


class OneVariable(nn.Module):
    """`x`, and TensorFlow's count of steps as a buffer."""

    def __init__(self, initial):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(initial))
        self.register_buffer("global_step", torch.tensor(0))

    def forward(self):
        return self.x + 1


@pytest.mark.parametrize("case", ["one_variable", "tpu"])
def test_trainable_variables_are_warm_started_and_the_step_is_not(case):
    """TensorFlow trained five steps more, from 0: the ten of the checkpoint were not taken."""
    expected = expected_of(case)
    assert expected["x"] == 42
    assert expected["global_step"] == 5
    model = OneVariable(36.0)
    report = tws.warm_start(model, FIXTURES / case / "old")
    assert model.x.item() == 42
    assert model.global_step.item() == 0
    assert "'global_step'" in str(report.notes[0])
    tws.warm_start(model, tws.WarmStartSettings(FIXTURES / case / "old", [".*"]))
    assert model.global_step.item() == 10


def test_a_saved_model_is_a_source():
    """TensorFlow's test has its path as bytes, which we refuse: see test_deviations.py."""
    expected = expected_of("one_variable")
    assert expected["@x_from_saved_model"] == 42
    model = OneVariable(36.0)
    tws.warm_start(model, FIXTURES / "one_variable" / "old_saved_model")
    assert model.x.item() == 42


def test_settings_take_a_saved_model_too():
    """TensorFlow resolves one only where it is given as a str in place of settings."""
    model = OneVariable(36.0)
    source = FIXTURES / "one_variable" / "old_saved_model"
    tws.warm_start(model, tws.WarmStartSettings(source, "x"))
    assert model.x.item() == 42


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_that_was_not_trained_is_evaluated_from_either_source(source):
    expected = expected_of("one_variable")
    model = OneVariable(36.0)
    tws.warm_start(model, FIXTURES / "one_variable" / SOURCES[source])
    assert model().item() == expected[f"@evaluated_from_{source}"] == 43


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_that_was_not_trained_predicts_from_either_source(source):
    expected = expected_of("matrix")
    model = OneVariable([[0.0]])
    tws.warm_start(model, FIXTURES / "matrix" / SOURCES[source])
    assert model().tolist() == [[4.0]]
    assert expected[f"@predicted_from_{source}"].tolist() == [4.0]


def test_a_model_that_was_not_trained_is_exported(tmp_path):
    """What TensorFlow exported in this way, and what torch saves, both hold the old value."""
    model = OneVariable(36.0)
    tws.warm_start(model, FIXTURES / "one_variable" / "old")
    torch.save(model.state_dict(), tmp_path / "exported.pt")
    for exported in (tmp_path / "exported.pt", FIXTURES / "one_variable" / "exported_untrained"):
        assert tws.load_variable(exported, "x").item() == 42


# -- a Keras model that became an estimator --------------------------------------------------------


class KerasModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, numbers):
        return self.out(self.hidden(numbers).relu())


def test_weights_that_keras_saved_are_where_training_goes_on():
    expected = expected_of("keras")
    with np.load(FIXTURES / "keras" / "expected.npz") as values:
        started_from = str(values["@started_from"])
    assert started_from == "keras/keras_model.ckpt"
    model = KerasModel()
    tws.warm_start(model, FIXTURES / "keras" / "old" / started_from)
    assert torch.equal(model.hidden.weight, expected["hidden/kernel"].T)
    assert torch.equal(model.out.bias, expected["out/bias"])
    inputs, targets = expected["@inputs"], expected["@targets"]
    torch.testing.assert_close(model(inputs), expected["@predicted"])
    before = nn.functional.mse_loss(model(inputs), targets)
    torch.testing.assert_close(before.detach(), expected["@loss_before"], rtol=1e-5, atol=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    after = nn.functional.mse_loss(model(inputs), targets)
    assert after < before
    torch.testing.assert_close(after.detach(), expected["@loss_after"], rtol=1e-4, atol=0)


# -- canned estimators in torch --------------------------------------------------------------------


class Dnn(nn.Module):
    """What `dnn/` is in the canned estimators: an embedding, hidden layers, logits."""

    def __init__(self, logits, *, column=None, rows=0, dim=0):
        super().__init__()
        self.column = column
        if column:
            self.input_from_feature_columns = nn.ModuleDict(
                {"input_layer": nn.ModuleDict({column: nn.Embedding(rows, dim)})}
            )
        sizes = (dim, *HIDDEN)
        for at, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            self.add_module(f"hiddenlayer_{at}", nn.Linear(inputs, outputs))
        self.logits = nn.Linear(HIDDEN[-1], logits)

    def forward(self, inputs):
        if self.column:
            inputs = self.get_submodule(INPUT_LAYER.removeprefix("dnn."))[self.column](inputs)
        for at in range(len(HIDDEN)):
            inputs = self.get_submodule(f"hiddenlayer_{at}")(inputs).relu()
        return self.logits(inputs)


class Weights(nn.Module):
    """A linear model's weights of one column, which TensorFlow keeps as [inputs, outputs]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(inputs, outputs))


class LinearModel(nn.Module):
    """What `linear/` is in the canned estimators."""

    def __init__(self, column, inputs, outputs):
        super().__init__()
        self.column = column
        self.linear_model = nn.ModuleDict({column: Weights(inputs, outputs)})
        self.linear_model.register_parameter("bias_weights", nn.Parameter(torch.randn(outputs)))

    def forward(self, inputs):
        return inputs @ self.linear_model[self.column].weights + self.linear_model.bias_weights


def canned(*, dnn=None, linear=None):
    return nn.ModuleDict({k: v for k, v in {"dnn": dnn, "linear": linear}.items() if v is not None})


def tf_name(model, name):
    """What TensorFlow calls a parameter, spelled out here and not asked of the library."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf == "weight":
        leaf = "embedding_weights" if isinstance(module, nn.Embedding) else "kernel"
    return f"{path}.{leaf}".replace(".", "/")


def in_torch(model, name, value):
    path = name.rpartition(".")[0]
    return (
        value.T if isinstance(model.get_submodule(path), nn.Linear) and value.ndim == 2 else value
    )


def check(case, model, settings, taken=".*"):
    """Warm-starts; what is `taken` equals TensorFlow's, and all else stays."""
    expected = expected_of(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tws.warm_start(model, settings)
    names = [name for name, _ in model.named_parameters()]
    chosen = {name for name in names if taken in name or taken == ".*"}
    assert chosen
    for name, value in model.state_dict().items():
        tf_value = in_torch(model, name, expected[tf_name(model, name)])
        assert torch.equal(value, tf_value if name in chosen else before[name]), name
    variables = {name for name in expected if name.startswith(("dnn/", "linear/"))}
    assert {tf_name(model, name) for name in names} == variables
    return expected, chosen


def old(case):
    return FIXTURES / case / "old"


def was_trained(case, model, names):
    """That TensorFlow's values of what was not taken are not the checkpoint's either."""
    expected = expected_of(case)
    for name in names:
        key = tf_name(model, name)
        assert not torch.equal(expected[key], tws.load_variable(old(case), key)), name


AGES = torch.tensor([[23.0], [31.0]])
CITIES = torch.tensor([0, 1])
both_versions = pytest.mark.parametrize("version", ["v1", "v2"])


# -- DNN estimators --------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize(("kind", "logits"), [("classifier", 4), ("regressor", 1)])
def test_a_dnn(version, kind, logits):
    case = f"{version}/dnn_{kind}"
    model = canned(dnn=Dnn(logits, column=CITY, rows=2, dim=5))
    expected, _ = check(case, model, old(case))
    torch.testing.assert_close(model["dnn"](CITIES), expected["@logits"])


@both_versions
def test_selected_variables_of_a_dnn(version):
    case = f"{version}/dnn_selective"
    model = canned(dnn=Dnn(4, column=CITY, rows=2, dim=5))
    expected, chosen = check(case, model, tws.WarmStartSettings(old(case), ".*(city).*"), "city")
    assert chosen == {f"{INPUT_LAYER}.{CITY}.weight"}
    left = [name for name, _ in model.named_parameters() if name not in chosen]
    was_trained(case, model, left)
    assert not any(expected[tf_name(model, name)].any() for name in left if "bias" in name)


def occupation_info(case, **more):
    return tws.VocabInfo(
        FIXTURES / case / "new_occupations.txt",
        3,
        0,
        FIXTURES / case / "old_occupations.txt",
        3,
        partial(nn.init.constant_, val=0.39),
        **more,
    )


@both_versions
def test_a_new_vocabulary_of_a_dnn(version):
    """TensorFlow's first version has the variable in two partitions, old and new."""
    case = f"{version}/dnn_vocab"
    name = f"{INPUT_LAYER}.{OCCUPATION}.weight"
    model = canned(dnn=Dnn(4, column=OCCUPATION, rows=3, dim=2))
    settings = tws.WarmStartSettings(old(case), None, {name: occupation_info(case)})
    expected, chosen = check(case, model, settings, "occupation")
    assert chosen == {name}
    before = tws.load_variable(old(case), tf_name(model, name))
    after = model.get_parameter(name)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[2])
    assert torch.equal(after[2], torch.tensor([0.39, 0.39]))
    left = [n for n, _ in model.named_parameters() if n not in chosen]
    was_trained(case, model, left)
    assert not any(expected[tf_name(model, n)].any() for n in left if "bias" in n)


@both_versions
def test_a_renamed_column_of_a_dnn(version):
    case = f"{version}/dnn_renamed"
    model = canned(dnn=Dnn(4, column=CITY, rows=2, dim=5))
    name = f"{INPUT_LAYER}.{CITY}.weight"
    before = tf_name(model, name).replace("city", "locality")
    settings = tws.WarmStartSettings(old(case), var_name_to_prev_var_name={name: before})
    check(case, model, settings)
    assert torch.equal(model.get_parameter(name), tws.load_variable(old(case), before))


# -- linear estimators -----------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize(("kind", "logits"), [("classifier", 4), ("regressor", 1)])
def test_a_linear_model(version, kind, logits):
    case = f"{version}/linear_{kind}"
    model = canned(linear=LinearModel("age", 1, logits))
    expected, _ = check(case, model, old(case))
    torch.testing.assert_close(model["linear"](AGES), expected["@logits"])


@both_versions
def test_selected_variables_of_a_linear_model(version):
    case = f"{version}/linear_selective"
    model = canned(linear=LinearModel("age", 1, 4))
    expected, chosen = check(case, model, tws.WarmStartSettings(old(case), ".*(age).*"), "age")
    assert chosen == {"linear.linear_model.age.weights"}
    assert expected["linear/linear_model/bias_weights"].tolist() == [0, 0, 0, 0]


@both_versions
def test_a_new_vocabulary_of_a_linear_model(version):
    case = f"{version}/linear_vocab"
    name = "linear.linear_model.occupation.weights"
    model = canned(linear=LinearModel("occupation", 3, 4))
    settings = tws.WarmStartSettings(old(case), None, {name: occupation_info(case)})
    expected, chosen = check(case, model, settings, "occupation")
    assert chosen == {name}
    before = tws.load_variable(old(case), tf_name(model, name))
    after = model.get_parameter(name)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[2])
    assert torch.equal(after[2], torch.tensor([0.39] * 4))
    assert expected["linear/linear_model/bias_weights"].tolist() == [0, 0, 0, 0]


@both_versions
def test_a_renamed_column_of_a_linear_model(version):
    case = f"{version}/linear_renamed"
    model = canned(linear=LinearModel("age", 1, 4))
    names = {"linear/linear_model/age/weights": "linear/linear_model/age_in_years/weights"}
    check(case, model, tws.WarmStartSettings(old(case), var_name_to_prev_var_name=names))


# -- both in one -----------------------------------------------------------------------------------


def combined(logits):
    return canned(dnn=Dnn(logits, column=CITY, rows=2, dim=5), linear=LinearModel("age", 1, logits))


@both_versions
@pytest.mark.parametrize(("kind", "logits"), [("classifier", 4), ("regressor", 1)])
def test_a_linear_model_and_a_dnn(version, kind, logits):
    case = f"{version}/combined_{kind}"
    model = combined(logits)
    expected, _ = check(case, model, old(case))
    scores = model["dnn"](CITIES) + model["linear"](AGES)
    torch.testing.assert_close(scores, expected["@logits"])


@both_versions
def test_only_the_dnn_of_both(version):
    case = f"{version}/combined_selective"
    model = combined(4)
    expected, chosen = check(case, model, tws.WarmStartSettings(old(case), ".*(dnn).*"), "dnn")
    assert len(chosen) == 7
    assert expected["linear/linear_model/age/weights"].tolist() == [[0, 0, 0, 0]]
    assert expected["linear/linear_model/bias_weights"].tolist() == [0, 0, 0, 0]


# -- trained under a distribution strategy ---------------------------------------------------------


def strategy_model(kind):
    return {
        "LinearRegressor": lambda: canned(linear=LinearModel("x", 2, 1)),
        "DNNRegressor": lambda: canned(dnn=Dnn(1, dim=2)),
        "DNNLinearCombinedRegressor": lambda: canned(
            dnn=Dnn(1, dim=2), linear=LinearModel("x", 2, 1)
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["LinearRegressor", "DNNRegressor", "DNNLinearCombinedRegressor"])
def test_what_was_trained_under_a_strategy(kind):
    """TensorFlow's were warm-started with and without a strategy; scores agree to five places."""
    case = f"strategy/{kind}"
    model = strategy_model(kind)
    expected, _ = check(case, model, old(case))
    with torch.no_grad():
        scores = sum(part(expected["@inputs"]) for part in model.values())
    loss = nn.functional.mse_loss(scores, expected["@targets"])
    for strategy in ("with", "without"):
        close = partial(torch.testing.assert_close, rtol=0, atol=5e-6)
        close(scores, expected[f"@predicted_{strategy}_strategy"])
        close(loss, expected[f"@loss_{strategy}_strategy"])


# -- the fixtures themselves -----------------------------------------------------------------------


def test_the_fixtures_are_small_and_without_graphs():
    files = [file for file in FIXTURES.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    assert not [
        f.name for f in files if ".meta" in f.name or f.name.startswith(("events", "graph"))
    ]
