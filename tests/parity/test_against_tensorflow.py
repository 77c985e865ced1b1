"""Warm starts compared with TensorFlow's own, on the same checkpoints and starting values.

The ten examples are those of the documentation of `tf.estimator.WarmStartSettings`, in its order.
Every comparison is exact, down to the bits of the values.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_oracle
import torch
from against_tensorflow_helpers import assert_same, differ, write_lines
from torch import nn

import torch_warmstart as tws
from torch_warmstart.model.patterns import matches

pytestmark = pytest.mark.tensorflow


ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GUIDE = ROOT / "docs" / "getting_started.md"

# -- a model shaped like the canned DNN estimators -------------------------------------------------

WIDTH, HIDDEN, CLASSES = 8, 6, 3
OLD_ENTRIES, NEW_ENTRIES, NEW_OOV = 120, 110, 2
FILE_EMBEDDING = "input_layer.sc_vocab_file_embedding.weight"
LIST_EMBEDDING = "input_layer.sc_vocab_list_embedding.weight"
TF_FILE_EMBEDDING = "input_layer/sc_vocab_file_embedding/embedding_weights"
TF_LIST_EMBEDDING = "input_layer/sc_vocab_list_embedding/embedding_weights"

# The other side of the names, spelled out here so that the library's rules are not tested by
# themselves.
TF_NAMES = {
    FILE_EMBEDDING: TF_FILE_EMBEDDING,
    LIST_EMBEDDING: TF_LIST_EMBEDDING,
    "dnn.hiddenlayer_0.weight": "dnn/hiddenlayer_0/kernel",
    "dnn.hiddenlayer_0.bias": "dnn/hiddenlayer_0/bias",
    "dnn.hiddenlayer_0.batchnorm_0.weight": "dnn/hiddenlayer_0/batchnorm_0/gamma",
    "dnn.hiddenlayer_0.batchnorm_0.bias": "dnn/hiddenlayer_0/batchnorm_0/beta",
    "dnn.hiddenlayer_0.batchnorm_0.running_mean": "dnn/hiddenlayer_0/batchnorm_0/moving_mean",
    "dnn.hiddenlayer_0.batchnorm_0.running_var": "dnn/hiddenlayer_0/batchnorm_0/moving_variance",
    "dnn.logits.weight": "dnn/logits/kernel",
    "dnn.logits.bias": "dnn/logits/bias",
}
KERNELS = {"dnn.hiddenlayer_0.weight", "dnn.logits.weight"}
STATISTICS = {
    "dnn.hiddenlayer_0.batchnorm_0.running_mean",
    "dnn.hiddenlayer_0.batchnorm_0.running_var",
}
EMBEDDINGS = {FILE_EMBEDDING, LIST_EMBEDDING}
EVERYTHING = set(TF_NAMES)
TRAINABLE = EVERYTHING - STATISTICS
NOT_TRAINABLE_IN_TF = {TF_NAMES[name] for name in STATISTICS}


class HiddenLayer(nn.Linear):
    """Dense, then batch norm, under one name, as the canned estimators scope them."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units)
        self.batchnorm_0 = nn.BatchNorm1d(units)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.batchnorm_0(super().forward(inputs).relu())


class Classifier(nn.Module):
    def __init__(self, file_rows: int, seed: int) -> None:
        super().__init__()
        self.input_layer = nn.ModuleDict(
            {
                "sc_vocab_file_embedding": nn.Embedding(file_rows, WIDTH),
                "sc_vocab_list_embedding": nn.Embedding(2, WIDTH),
            }
        )
        self.dnn = nn.ModuleDict(
            {
                "hiddenlayer_0": HiddenLayer(2 * WIDTH, HIDDEN),
                "logits": nn.Linear(HIDDEN, CLASSES),
            }
        )
        randomize(self, seed)


def randomize(model: nn.Module, seed: int) -> None:
    """Fills every variable, biases and statistics too, so that each change shows."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)


def as_tensorflow(model: nn.Module) -> dict[str, np.ndarray]:
    """The values of a Classifier as TensorFlow names them and lays them out."""
    state = model.state_dict()
    return {
        tf_name: (state[name].T if name in KERNELS else state[name]).contiguous().numpy().copy()
        for name, tf_name in TF_NAMES.items()
    }


# -- the ten examples ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Yesterday:
    """A checkpoint and the vocabularies before and after."""

    directory: str
    prefix: str
    old_vocab: str
    new_vocab: str

    def vocab_info(self, make: Callable[..., Any] = tws.VocabInfo, **more: Any) -> Any:
        """Either side's VocabInfo: the fields are the same."""
        return make(
            new_vocab=self.new_vocab,
            new_vocab_size=NEW_ENTRIES,
            num_oov_buckets=NEW_OOV,
            old_vocab=self.old_vocab,
            **more,
        )

    def tf_vocab_info(self, **more: Any) -> Any:
        return self.vocab_info(tf_oracle.vocab_info, **more)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Yesterday:
    folder = tmp_path_factory.mktemp("yesterday")
    values = as_tensorflow(Classifier(OLD_ENTRIES, seed=1))
    values["old_tensor_name"] = values[TF_LIST_EMBEDDING] + 1
    values["global_step"] = np.array(1000)
    return Yesterday(
        directory=str(folder),
        prefix=tf_oracle.save(folder, values),
        old_vocab=write_lines(folder / "old_vocab.txt", range(OLD_ENTRIES)),
        # Dropped, moved and new entries; the old ones among them lie on both sides of line 100.
        new_vocab=write_lines(folder / "new_vocab.txt", range(130, 10, -1)),
    )


def check_example(
    ours: tws.WarmStartSettings, *tf_settings: Any, changed: set[str], file_rows: int, **more: Any
) -> Classifier:
    """Both warm starts from the same values end in the same values; only `changed` differ."""
    model = Classifier(file_rows, seed=2)
    start = as_tensorflow(model)
    expected = tf_oracle.warm_start(start, *tf_settings, not_trainable=NOT_TRAINABLE_IN_TF, **more)
    tws.warm_start(model, ours)
    assert_same(as_tensorflow(model), expected)
    assert {name for name, key in TF_NAMES.items() if differ(start[key], expected[key])} == changed
    return model


SAME_VOCAB: dict[str, Any] = {"file_rows": OLD_ENTRIES}
NEW_VOCAB: dict[str, Any] = {"file_rows": NEW_ENTRIES + NEW_OOV}


def test_example_1_all_weights_from_a_directory(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(ckpt_to_initialize_from=yesterday.directory),
        yesterday.directory,
        changed=TRAINABLE,
        **SAME_VOCAB,
    )


def test_example_2_all_weights_from_a_prefix(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(ckpt_to_initialize_from=yesterday.prefix),
        yesterday.prefix,
        changed=TRAINABLE,
        **SAME_VOCAB,
    )


def test_example_3_only_the_input_layer(yesterday: Yesterday) -> None:
    pattern = ".*input_layer.*"
    check_example(
        tws.WarmStartSettings(yesterday.directory, vars_to_warm_start=pattern),
        yesterday.directory,
        pattern,
        changed=EMBEDDINGS,
        **SAME_VOCAB,
    )


def test_example_4_all_weights_and_one_vocabulary_has_changed(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(
            yesterday.directory, var_name_to_vocab_info={FILE_EMBEDDING: yesterday.vocab_info()}
        ),
        yesterday.directory,
        var_name_to_vocab_info={TF_FILE_EMBEDDING: yesterday.tf_vocab_info()},
        changed=TRAINABLE,
        **NEW_VOCAB,
    )


def test_example_5_only_the_embedding_whose_vocabulary_has_changed(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(
            yesterday.directory,
            vars_to_warm_start=None,
            var_name_to_vocab_info={FILE_EMBEDDING: yesterday.vocab_info()},
        ),
        yesterday.directory,
        None,
        var_name_to_vocab_info={TF_FILE_EMBEDDING: yesterday.tf_vocab_info()},
        changed={FILE_EMBEDDING},
        **NEW_VOCAB,
    )


def test_example_6_only_the_first_100_old_entries_were_used(yesterday: Yesterday) -> None:
    size = {"old_vocab_size": 100}
    model = check_example(
        tws.WarmStartSettings(
            yesterday.directory,
            var_name_to_vocab_info={FILE_EMBEDDING: yesterday.vocab_info(**size)},
        ),
        yesterday.directory,
        var_name_to_vocab_info={TF_FILE_EMBEDDING: yesterday.tf_vocab_info(**size)},
        changed=TRAINABLE,
        **NEW_VOCAB,
    )
    # The new file counts down from 130, so its lines 0 to 30 are the entries 130 to 100.
    weight = model.get_parameter(FILE_EMBEDDING)
    assert not weight[:31].any()
    assert weight[31:NEW_ENTRIES].all()


def test_example_7_another_embedding_had_another_name(yesterday: Yesterday) -> None:
    size = {"old_vocab_size": 100}
    check_example(
        tws.WarmStartSettings(
            yesterday.directory,
            var_name_to_vocab_info={FILE_EMBEDDING: yesterday.vocab_info(**size)},
            var_name_to_prev_var_name={LIST_EMBEDDING: "old_tensor_name"},
        ),
        yesterday.directory,
        var_name_to_vocab_info={TF_FILE_EMBEDDING: yesterday.tf_vocab_info(**size)},
        var_name_to_prev_var_name={TF_LIST_EMBEDDING: "old_tensor_name"},
        changed=TRAINABLE,
        **NEW_VOCAB,
    )


def test_example_8_all_trainable_variables_and_no_others(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(yesterday.directory, vars_to_warm_start=".*"),
        yesterday.directory,
        ".*",
        changed=TRAINABLE,
        **SAME_VOCAB,
    )


def test_example_9_all_variables_with_those_not_trainable(yesterday: Yesterday) -> None:
    check_example(
        tws.WarmStartSettings(yesterday.directory, vars_to_warm_start=[".*"]),
        yesterday.directory,
        [".*"],
        changed=EVERYTHING,
        **SAME_VOCAB,
    )


class Slots(nn.Module):
    """Two variables, and what an optimizer keeps of them as buffers of TensorFlow's names."""

    NAMES = ("v1", "v1/Momentum", "v2", "v2/Momentum")

    def __init__(self) -> None:
        super().__init__()
        for variable in ("v1", "v2"):
            self.register_parameter(variable, nn.Parameter(torch.zeros(10, 1)))
            self.register_buffer(f"{variable}/Momentum", torch.zeros(10, 1))


def test_example_10_all_but_one_slot(tmp_path: Path) -> None:
    patterns = ["v1", "v2[^/]"]
    values = {
        name: np.full((10, 1), number, np.float32) for number, name in enumerate(Slots.NAMES, 1)
    }
    prefix = tf_oracle.save(tmp_path, values)
    model = Slots()
    start = {name: np.zeros((10, 1), np.float32) for name in Slots.NAMES}
    not_trainable = {name for name in Slots.NAMES if "/" in name}
    expected = tf_oracle.warm_start(start, prefix, patterns, not_trainable=not_trainable)
    tws.warm_start(model, tws.WarmStartSettings(prefix, vars_to_warm_start=patterns))
    assert_same({name: value.numpy() for name, value in model.state_dict().items()}, expected)
    assert {name for name in Slots.NAMES if expected[name].any()} == {"v1", "v1/Momentum", "v2"}


def test_a_list_of_tensors_takes_what_a_list_of_variables_takes(yesterday: Yesterday) -> None:
    """The fourth kind of selection; the documentation describes it without an example."""
    chosen = [FILE_EMBEDDING, next(iter(STATISTICS))]
    model = Classifier(OLD_ENTRIES, seed=2)
    start = as_tensorflow(model)
    by_name = [f"{TF_NAMES[name]}:0" for name in chosen]  # spelled out to the end: exactly these
    expected = tf_oracle.warm_start(start, yesterday.directory, by_name)
    tensors = [model.state_dict(keep_vars=True)[name] for name in chosen]
    tws.warm_start(model, tws.WarmStartSettings(yesterday.directory, vars_to_warm_start=tensors))
    assert_same(as_tensorflow(model), expected)


# -- patterns --------------------------------------------------------------------------------------

# A name is torch's; TensorFlow's variable has slashes for its dots.
PATTERN_CASES = (
    (".*", "v1"),
    (".*", "dnn.logits.weight"),
    ("", "v1"),
    ("v1", "v1"),
    ("v1", "v10"),
    ("v1", "v1/Momentum"),
    ("v1", "v2"),
    ("1", "v1"),  # from the start: match, not search
    (".*1", "v1"),
    ("v2[^/]", "v2"),
    ("v2[^/]", "v2/Momentum"),
    ("v2[^/]", "v20"),
    ("v2[^0-9]", "v2"),
    ("v2[^0-9]", "v20"),
    ("^v1", "v1"),
    ("^v1", "av1"),
    ("^.*Momentum", "v1/Momentum"),
    (r"\Av1", "v1"),
    ("v1:0", "v1"),
    ("v1:0", "v10"),
    ("v1:0$", "v1"),
    ("v1:0$", "v1/Momentum"),
    (".*weight:0$", "dnn.logits.weight"),
    (".*(weight|bias):0", "dnn.logits.bias"),
    ("v[12]", "v1"),
    ("v[12]", "v3"),
    (r"v\d", "v1"),
    (r"v\d\b", "v1"),
    (r"v\d\b", "v10"),
    (r"v\d+/", "v1/Momentum"),
    (r"\w+/\w+", "v1/Momentum"),
    (r"[\w/]+Momentum", "dnn.v1/Momentum"),
    ("(?!v1)", "v1"),
    ("(?!v1)", "v2"),
    ("(?!.*Momentum)", "v1"),
    ("(?!.*Momentum)", "v1/Momentum"),
    ("^(?!.*(Adam|bias))", "dnn.logits.bias"),
    ("^(?!.*(Adam|bias))", "dnn.logits.weight"),
    ("^((?!Momentum).)*$", "v1"),
    ("^((?!Momentum).)*$", "v1/Momentum"),
    ("(?=.*logits)dnn", "dnn.logits.bias"),
    ("(?=.*logits)dnn", "dnn.hiddenlayer_0.bias"),
    (".*(?<=layer_0)", "dnn.hiddenlayer_0.bias"),
    (".*input_layer.*", "dnn.input_layer.city.weight"),
    (".*input_layer.*", "dnn.logits.weight"),
    ("dnn/logits/", "dnn.logits.weight"),
    ("dnn/hiddenlayer_[01]/bias", "dnn.hiddenlayer_1.bias"),
    ("dnn.logits.weight", "dnn.logits.weight"),
    ("(?i)DNN", "dnn.logits.weight"),
    ("v1|v2", "v2"),
    ("v{2}", "vv"),
    (".{3}", "v1"),  # v1 and one more character, which the suffix gives
    (r"v1\S", "v10"),
)

# (pattern, name, ours): TensorFlow says the opposite, because of its `:0` or its slashes.
DEVIATIONS = (
    ("v1$", "v1", True),  # torch users expect $ to be the end of the name
    (".*weight$", "dnn.logits.weight", True),
    (r"(?!.*weight$)", "dnn.logits.weight", False),
    (r"(?!.*\.weight$)", "dnn.logits.weight", False),
    (r"dnn\.logits\.weight", "dnn.logits.weight", True),  # the name as torch writes it
    (r".+\d", "b", False),  # the 0 of ":0" is no part of a name
    (r"v1\W\d", "v1", False),
    (".{4}", "v1", False),
    (r"v1\S", "v1", False),
    (r"v1\s", "v1", True),  # the newline that is our suffix
    ("[^:]+$", "v1", True),
)

# Patterns that spell a slash to say what must *not* follow.
SLASH_EXCLUSIONS = (
    ("^(?!dnn/logits)", "dnn.logits.weight"),
    ("(?!.*input_layer/)", "input_layer.city.weight"),
    ("v2[^/]", "v2.Momentum"),
)


def tensorflow_matches(pattern: str, name: str) -> bool:
    return bool(tf_oracle.selected([name.replace(".", "/")], pattern))


@pytest.mark.parametrize(("pattern", "name"), PATTERN_CASES)
def test_a_pattern_takes_what_tensorflow_takes(pattern: str, name: str) -> None:
    assert matches(pattern, name) == tensorflow_matches(pattern, name)


@pytest.mark.parametrize(("pattern", "name"), SLASH_EXCLUSIONS)
def test_a_pattern_with_a_slash_excludes_what_tensorflow_excludes(pattern: str, name: str) -> None:
    assert not tensorflow_matches(pattern, name)
    assert not matches(pattern, name)


@pytest.mark.parametrize(("pattern", "name", "ours"), DEVIATIONS)
def test_a_pattern_deviates_only_as_documented(pattern: str, name: str, ours: bool) -> None:
    assert matches(pattern, name) is ours
    assert tensorflow_matches(pattern, name) is not ours


def test_tensorflow_s_rule_is_a_match_from_the_start_on_the_name_with_its_output_number() -> None:
    for pattern, name in PATTERN_CASES:
        tf_name = name.replace(".", "/")
        assert tensorflow_matches(pattern, name) == bool(re.match(pattern, f"{tf_name}:0"))


# -- a kernel whose transpose no check of shapes can miss ------------------------------------------


class Square(nn.Module):
    def __init__(self, epsilon: dict[str, float]) -> None:
        super().__init__()
        self.square = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4, eps=epsilon["norm"])
        self.bn = nn.BatchNorm1d(4, eps=epsilon["bn"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.bn(self.norm(self.square(inputs).tanh()))


def outputs_after_warm_start(expected: dict[str, Any], **more: Any) -> torch.Tensor:
    prefix = FIXTURES / "square_dense" / expected["prefix"]
    model = Square(expected["epsilon"])
    tws.warm_start(model, tws.WarmStartSettings(prefix, vars_to_warm_start=[".*"], **more))
    with torch.no_grad():
        return model.eval()(torch.tensor(expected["inputs"]))


@pytest.fixture(scope="module")
def square_dense() -> dict[str, Any]:
    return json.loads((FIXTURES / "square_dense" / "expected.json").read_text())


def test_a_square_kernel_computes_what_tensorflow_computed(square_dense: dict[str, Any]) -> None:
    outputs = outputs_after_warm_start(square_dense)
    expected = torch.tensor(square_dense["outputs"])
    torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=0)


def test_a_square_kernel_computes_something_else_without_the_transpose(
    square_dense: dict[str, Any],
) -> None:
    layout = {"square.weight": "identity"}
    outputs = outputs_after_warm_start(square_dense, var_name_to_layout=layout)
    assert (outputs - torch.tensor(square_dense["outputs"])).abs().max() > 0.1


# -- the guide for newcomers -----------------------------------------------------------------------

GUIDE_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def make_what_the_guide_reads(folder: Path) -> None:
    """The checkpoints and vocabularies of docs/getting_started.md, written by TensorFlow."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "empty_dir").mkdir()
    write_lines(folder / "old_vocab.txt", range(120))
    write_lines(folder / "new_vocab.txt", range(122, 10, -1))
    values = as_tensorflow(Classifier(120, seed=1))
    values = {
        name.replace("hiddenlayer_0/batchnorm_0", "batchnorm_0"): value
        for name, value in values.items()
    }
    values["old_tensor_name"] = values[TF_LIST_EMBEDDING] + 1
    tf_oracle.save(folder / "model_dir", values)
    slots = {name: np.ones((10, 1), np.float32) for name in Slots.NAMES}
    tf_oracle.save(folder / "slots_dir", slots)


def run_block(code: str, namespace: dict[str, Any]) -> str:
    """What a block of the guide prints, or the error that it ends in."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
    except tws.WarmStartError as error:
        print(f"{type(error).__name__}: {error}", file=printed)
    return re.sub(r"in \d+\.\d\d s", "in 0.01 s", printed.getvalue())


def test_the_guide_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_what_the_guide_reads(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    namespace: dict[str, Any] = {}
    for code, shown in GUIDE_BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        assert run_block(code, namespace) == shown
