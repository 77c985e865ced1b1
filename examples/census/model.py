"""The census classifier in plain PyTorch: tables, model and training; no warm start in sight.

The model computes what day one's `tf.estimator.DNNClassifier` computes, written as one writes it in
PyTorch, for vocabularies of any size.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

FEATURES = ("city", "occupation")
EMBEDDING_SIZE = 16
HIDDEN_UNITS = (32, 16)
NUM_CLASSES = 3
NUM_OOV_BUCKETS = 2
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's; with PyTorch's 1e-5 the logits would differ

BATCH_SIZE = 64
LEARNING_RATE = 5e-3  # at Adam's usual 1e-3 the cold model needs twice the steps and ends worse
EVALUATE_EVERY = 2  # steps

# -- the tables ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Rows of the census as columns; a token is the number of its row in the embedding."""

    city: torch.Tensor
    occupation: torch.Tensor
    age: torch.Tensor
    hours_per_week: torch.Tensor

    def __len__(self) -> int:
        return len(self.age)

    def __getitem__(self, rows: torch.Tensor) -> People:
        """Some of the people, by their indices or by a mask."""
        return People(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Labelled:
    """People and their income class."""

    people: People
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_vocabulary(path: Path) -> list[str]:
    """The tokens of a file with one a line; the line is the token's row."""
    return path.read_text(encoding="utf-8").splitlines()


def read_table(path: Path) -> dict[str, tuple[str, ...]]:
    """The columns of a CSV file, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def to_people(
    table: Mapping[str, Sequence[str]], vocabularies: Mapping[str, Sequence[str]]
) -> People:
    """Turns columns of text into what the model reads."""
    tokens = {name: _look_up(table[name], vocabularies[name]) for name in FEATURES}
    return People(
        **tokens,
        age=to_floats(table["age"]),
        hours_per_week=to_floats(table["hours_per_week"]),
    )


def read_labelled(path: Path, vocabularies: Mapping[str, Sequence[str]]) -> Labelled:
    """Reads people whose income class is known."""
    table = read_table(path)
    labels = torch.tensor([int(label) for label in table["income_class"]])
    return Labelled(to_people(table, vocabularies), labels)


def to_floats(column: Sequence[str]) -> torch.Tensor:
    """A column of numbers, as float32."""
    return torch.tensor([float(text) for text in column], dtype=torch.float32)


def _look_up(tokens: Sequence[str], vocabulary: Sequence[str]) -> torch.Tensor:
    """The tokens' rows; unlisted tokens share the out-of-vocabulary rows, which come last."""
    rows = {token: row for row, token in enumerate(vocabulary)}
    return torch.tensor([rows[t] if t in rows else len(rows) + _oov_bucket(t) for t in tokens])


def _oov_bucket(token: str) -> int:
    return zlib.crc32(token.encode("utf-8")) % NUM_OOV_BUCKETS


# -- the model -------------------------------------------------------------------------------------


class CensusClassifier(nn.Module):
    """Two embeddings and two numbers, then two hidden layers, then the logits of three classes."""

    def __init__(self, vocabulary_sizes: Mapping[str, int]) -> None:
        super().__init__()
        for name in FEATURES:
            embedding = nn.Embedding(vocabulary_sizes[name] + NUM_OOV_BUCKETS, EMBEDDING_SIZE)
            draw_embedding(embedding.weight)
            self.add_module(f"{name}_embedding", embedding)
        first, second = HIDDEN_UNITS
        # The dense layers bear TensorFlow's names, so that a warm start finds them by itself.
        self.dnn = nn.Sequential(
            OrderedDict(
                hiddenlayer_0=nn.Linear(2 + 2 * EMBEDDING_SIZE, first),
                relu_0=nn.ReLU(),
                batchnorm_0=nn.BatchNorm1d(first, eps=BATCH_NORM_EPSILON),
                hiddenlayer_1=nn.Linear(first, second),
                relu_1=nn.ReLU(),
                batchnorm_1=nn.BatchNorm1d(second, eps=BATCH_NORM_EPSILON),
                logits=nn.Linear(second, NUM_CLASSES),
            )
        )

    def forward(self, people: People) -> torch.Tensor:
        """The logits; TensorFlow concatenates its columns sorted by name, and so do we."""
        columns = (
            people.age[:, None],
            self.city_embedding(people.city),
            people.hours_per_week[:, None],
            self.occupation_embedding(people.occupation),
        )
        return self.dnn(torch.cat(columns, dim=1))


def draw_embedding(weight: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fills an embedding as TensorFlow does: a normal distribution cut off at two deviations."""
    std = 1 / math.sqrt(EMBEDDING_SIZE)
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)


# -- training --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How good a model is after some steps of training."""

    step: int
    loss: float
    accuracy: float


def train(
    model: nn.Module, training: Labelled, held_out: Labelled, *, steps: int, seed: int
) -> list[Score]:
    """Trains with Adam; scores the model before the first step, then every few and at the end."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    batches = _shuffled_batches(len(training), seed)
    scores = [evaluate(model, held_out, step=0)]
    for step in range(1, steps + 1):
        rows = next(batches)
        model.train()
        optimizer.zero_grad()
        functional.cross_entropy(model(training.people[rows]), training.labels[rows]).backward()
        optimizer.step()
        if step % EVALUATE_EVERY == 0 or step == steps:
            scores.append(evaluate(model, held_out, step))
    return scores


@torch.no_grad()
def evaluate(model: nn.Module, held_out: Labelled, step: int) -> Score:
    """The loss and the accuracy on people that training has not seen."""
    model.eval()
    logits = model(held_out.people)
    loss = functional.cross_entropy(logits, held_out.labels)
    accuracy = (logits.argmax(dim=1) == held_out.labels).float().mean()
    return Score(step, loss.item(), accuracy.item())


def _shuffled_batches(count: int, seed: int) -> Iterator[torch.Tensor]:
    """The rows of each batch, without end; every epoch is in another order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(BATCH_SIZE)
