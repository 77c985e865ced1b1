"""A canned wide-and-deep classifier, with every common kind of feature column, computes the same.

`make_wide_and_deep.py` trained it and recorded its logits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

HERE = Path(__file__).parent / "wide_and_deep"
MODEL = HERE / "model"

BOUNDARIES = [25.0, 35.0, 45.0, 55.0]
EDUCATIONS = ["school", "college", "bachelor", "master", "doctorate"]
NUM_OOV_BUCKETS = 1
OCCUPATION_BUCKETS, CROSS_BUCKETS = 40, 60
CLASSES = 3

Batch = dict[str, torch.Tensor]

RULES = r"""
[names]
"wide_bias" = "linear/linear_model/bias_weights"

[scopes]
"wide." = "linear/linear_model/"
"deep.0." = "dnn/hiddenlayer_0/"
"deep.2." = "dnn/hiddenlayer_0/batchnorm_0/"
"deep.3." = "dnn/hiddenlayer_1/"
"deep.5." = "dnn/hiddenlayer_1/batchnorm_1/"
"deep.6." = "dnn/logits/"

[patterns]
'embed\.(.+)\.weight' = 'dnn/input_from_feature_columns/input_layer/\1_embedding/embedding_weights'
"""


class Wide(nn.Module):
    """A row of logits for each bucket, entry and cross, and a bias."""

    def __init__(self, educations: int):
        super().__init__()
        self.linear_model = nn.ModuleDict(
            {
                "age_bucketized": nn.Embedding(len(BOUNDARIES) + 1, CLASSES),
                "education_indicator": nn.Embedding(educations, CLASSES),
                "occupation": nn.Embedding(OCCUPATION_BUCKETS, CLASSES),
                "age_bucketized_X_education": nn.Embedding(CROSS_BUCKETS, CLASSES),
            }
        )
        self.linear_model.register_parameter("bias_weights", nn.Parameter(torch.zeros(CLASSES)))

    def forward(self, batch: Batch) -> torch.Tensor:
        rows = {name.removesuffix("_indicator"): t for name, t in self.linear_model.items()}
        return sum(t(batch[name]) for name, t in rows.items()) + self.linear_model.bias_weights


class Hidden(nn.Linear):
    """A hidden layer of the estimator's: dense, ReLU, then batch norm, whose name is numbered."""

    def __init__(self, inputs: int, outputs: int, number: int, eps: float):
        super().__init__(inputs, outputs)
        norm = nn.BatchNorm1d(outputs, eps=eps, momentum=0.001)
        self.norm_name = f"batchnorm_{number}"
        self.add_module(self.norm_name, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.norm_name)(super().forward(x).relu())


class Deep(nn.Module):
    def __init__(self, educations: int, eps: float):
        super().__init__()
        embeddings = {
            "age_bucketized_X_education_embedding": nn.Embedding(CROSS_BUCKETS, 3),
            "education_embedding": nn.Embedding(educations, 4),
            "occupation_embedding": nn.Embedding(OCCUPATION_BUCKETS, 6),
        }
        scope = nn.Module()
        scope.input_layer = nn.ModuleDict(embeddings)
        self.input_from_feature_columns = scope
        self.hiddenlayer_0 = Hidden(20, 12, 0, eps)
        self.hiddenlayer_1 = Hidden(12, 8, 1, eps)
        self.logits = nn.Linear(8, CLASSES)

    def forward(self, batch: Batch) -> torch.Tensor:
        tables = self.input_from_feature_columns.input_layer
        x = concatenated(batch, {n.removesuffix("_embedding"): t for n, t in tables.items()})
        return self.logits(self.hiddenlayer_1(self.hiddenlayer_0(x)))


def concatenated(batch: Batch, tables: dict[str, nn.Module]) -> torch.Tensor:
    """The deep columns, in the order of their names."""
    buckets = nn.functional.one_hot(batch["age_bucketized"], len(BOUNDARIES) + 1)
    columns = {f"{name}_embedding": table(batch[name]) for name, table in tables.items()} | {
        "age": ((batch["age"] - 40.0) / 15.0)[:, None],
        "hours": batch["hours"][:, None],
        "age_bucketized_indicator": buckets.to(batch["age"].dtype),
    }
    return torch.cat([columns[name] for name in sorted(columns)], dim=1)


class WideAndDeep(nn.Module):
    """Named as the estimator names its variables."""

    def __init__(self, educations: int = len(EDUCATIONS) + NUM_OOV_BUCKETS, eps: float = 1e-3):
        super().__init__()
        self.linear = Wide(educations)
        self.dnn = Deep(educations, eps)

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        return self.linear(batch) + self.dnn(batch)


class PlainWideAndDeep(nn.Module):
    """The same, as one writes it in PyTorch."""

    def __init__(self):
        super().__init__()
        educations = len(EDUCATIONS) + NUM_OOV_BUCKETS
        self.wide = Wide(educations).linear_model
        self.wide_bias = nn.Parameter(torch.zeros(CLASSES))
        del self.wide.bias_weights
        self.embed = nn.ModuleDict(
            {
                "education": nn.Embedding(educations, 4),
                "occupation": nn.Embedding(OCCUPATION_BUCKETS, 6),
                "age_bucketized_X_education": nn.Embedding(CROSS_BUCKETS, 3),
            }
        )
        self.deep = nn.Sequential(
            *(nn.Linear(20, 12), nn.ReLU(), nn.BatchNorm1d(12, eps=1e-3)),
            *(nn.Linear(12, 8), nn.ReLU(), nn.BatchNorm1d(8, eps=1e-3)),
            nn.Linear(8, CLASSES),
        )

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        wide = sum(t(batch[name.removesuffix("_indicator")]) for name, t in self.wide.items())
        return wide + self.wide_bias + self.deep(concatenated(batch, dict(self.embed.items())))


@pytest.fixture(scope="module")
def record() -> dict[str, np.ndarray]:
    with np.load(HERE / "recorded.npz") as arrays:
        return dict(arrays)


def make_batch(record: dict[str, np.ndarray], educations: list[str] = EDUCATIONS) -> Batch:
    """What TensorFlow's columns made of the features."""
    rows = {name: at for at, name in enumerate(educations)}
    known = [rows.get(name, len(rows)) for name in record["inputs/education"]]
    age = record["inputs/age"]
    ids = {name.partition("/")[2]: ids for name, ids in record.items() if name.startswith("ids/")}
    batch = {
        "age": age,
        "hours": record["inputs/hours"],
        "age_bucketized": np.digitize(age, BOUNDARIES),
        "education": np.array(known),
        **ids,
    }
    return {name: torch.as_tensor(values) for name, values in batch.items()}


def test_all_of_it_is_found_without_a_rename(record):
    model = WideAndDeep()
    report = tws.warm_start(model, tws.WarmStartSettings(MODEL, [".*"]))
    assert not [name for name in report.missing_keys if not name.endswith("num_batches_tracked")]
    check = tws.verify_port(model, make_batch(record), record["outputs"])
    assert check, check
    assert check.outputs[0].max_rel_error < 1e-6


def test_unseen_entries_are_among_the_record(record):
    assert {"unheard-of", *EDUCATIONS} == set(record["inputs/education"])


def test_nothing_of_the_estimator_is_left_but_its_optimizers():
    plan = tws.plan_warm_start(WideAndDeep(), tws.WarmStartSettings(MODEL, [".*"]))
    assert plan.audits == ()
    assert {key.split("/")[0] for key in plan.unused_keys} == {"training", "global_step"}


def test_with_torchs_epsilon_it_is_another_model_and_the_plan_says_where(record):
    model = WideAndDeep(eps=1e-5)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(MODEL, [".*"]))
    [audit] = plan.audits
    assert audit.modules == ("dnn.hiddenlayer_0.batchnorm_0", "dnn.hiddenlayer_1.batchnorm_1")
    assert "epsilon=0.001" in audit.problem
    tws.apply_plan(plan)
    assert not tws.verify_port(model, make_batch(record), record["outputs"])


def test_people_whose_education_is_still_listed_get_the_same_logits(record):
    educations = ["doctorate", "apprenticeship", "school", "master"]
    info = tws.VocabInfo(educations, -1, NUM_OOV_BUCKETS, EDUCATIONS, old_num_oov_buckets=1)
    tables = (
        "dnn.input_from_feature_columns.input_layer.education_embedding.weight",
        "linear.linear_model.education_indicator.weight",
    )
    model = WideAndDeep(len(educations) + NUM_OOV_BUCKETS)
    tws.warm_start(model, tws.WarmStartSettings(MODEL, [".*"], dict.fromkeys(tables, info)))
    listed = {*educations, "unheard-of"}  # the unknown have the same bucket on both days
    same = np.isin(record["inputs/education"], list(listed))
    assert 10 < same.sum() < 60
    batch = {name: values[same] for name, values in make_batch(record, educations).items()}
    assert tws.verify_port(model, batch, record["outputs"][same])


def test_a_model_with_its_own_names_takes_eight_rules(record, tmp_path):
    (tmp_path / "rules.toml").write_text(RULES, encoding="utf-8")
    rules = tws.load_rules(tmp_path / "rules.toml")
    assert len(rules) == 8
    model = PlainWideAndDeep()
    tws.warm_start(model, tws.WarmStartSettings(MODEL, [".*"], None, rules))
    assert tws.verify_port(model, make_batch(record), record["outputs"])
