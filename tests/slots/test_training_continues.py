"""A model that TensorFlow trained goes on training in torch as if it had never left.

TensorFlow trains, saves, and goes on for a hundred steps. torch takes the checkpoint, weights and
slots, and goes on with the same batches: the losses are the same, up to rounding. Without the slots
they are not. A changed vocabulary changes nothing for the tokens that both have.

The lookup is a product with one-hot rows, so that TensorFlow's gradients are dense: its optimizers
treat the rows that a batch does not mention in other ways than a zero gradient's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import tf_oracle
import torch
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

tf1 = tf_oracle.tf1

OLD = [f"token {n}" for n in range(40)]
SURVIVORS = list(range(5, 37, 2))  # of the old entries; the batches after the save use these only
NEW = [f"new {n}" for n in range(7)] + [OLD[n] for n in reversed(SURVIVORS)]
WIDTH, HIDDEN, CLASSES, BATCH = 8, 16, 5, 32
STEPS_BEFORE, STEPS_AFTER = 150, 100

# How far the losses may be apart, as a part of the loss; double precision, so that only what the
# two libraries compute differently is left. TensorFlow's Adam adds its epsilon before it corrects
# the bias (tensorflow/python/training/adam.py), torch after; Adagrad has none there, 1e-10 here.
SGD, ADAM, ADAGRAD = "SGD with momentum", "Adam", "Adagrad"
TOLERANCE = {SGD: 1e-13, ADAM: 1e-6, ADAGRAD: 1e-9}
# Without its slots an optimizer goes another way; by at least so much somewhere.
DEPARTURE = {SGD: 1e-2, ADAM: 1e-2, ADAGRAD: 1e-2}

# TensorFlow keeps hyper-parameters in single precision, so these are numbers that it has exactly.
BETAS = (7 / 8, 511 / 512)
IN_TENSORFLOW: dict[str, Callable[[], Any]] = {
    SGD: lambda: tf1.train.MomentumOptimizer(1 / 16, 7 / 8),
    ADAM: lambda: tf1.train.AdamOptimizer(1 / 128, *BETAS),
    ADAGRAD: lambda: tf1.train.AdagradOptimizer(1 / 8, initial_accumulator_value=1 / 8),
}
IN_TORCH: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    SGD: lambda parameters: torch.optim.SGD(parameters, 1 / 16, momentum=7 / 8),
    ADAM: lambda parameters: torch.optim.Adam(parameters, 1 / 128, BETAS),
    ADAGRAD: lambda parameters: torch.optim.Adagrad(
        parameters, 1 / 8, initial_accumulator_value=1 / 8
    ),
}


@dataclass(frozen=True)
class Yesterday:
    """What TensorFlow saved, and how its own training went on."""

    prefix: str
    batches: tuple[tuple[np.ndarray, np.ndarray], ...]
    losses: np.ndarray


class Classifier(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, WIDTH, dtype=torch.float64)
        self.hidden = nn.Linear(WIDTH, HIDDEN, dtype=torch.float64)
        self.out = nn.Linear(HIDDEN, CLASSES, dtype=torch.float64)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(self.embed(tokens)).tanh())


def _batches(count: int, tokens: list[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and their classes, with some noise, so that there is always something to learn."""
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        chosen = random.choice(tokens, BATCH)
        labels = np.where(random.random(BATCH) < 0.2, random.integers(CLASSES, size=BATCH), chosen)
        batches.append((chosen, labels % CLASSES))
    return batches


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    @lru_cache
    def train(name: str) -> Yesterday:
        folder = tmp_path_factory.mktemp("yesterday")
        return _train_in_tensorflow(name, str(folder / "model"))

    return train


def _train_in_tensorflow(name: str, path: str) -> Yesterday:
    before = _batches(STEPS_BEFORE, list(range(len(OLD))), seed=1)
    after = _batches(STEPS_AFTER, SURVIVORS, seed=2)
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.set_random_seed(3)
        tokens = tf1.placeholder(tf1.int64, [None])
        labels = tf1.placeholder(tf1.int64, [None])
        loss = _loss_in_tensorflow(tokens, labels)
        train = IN_TENSORFLOW[name]().minimize(loss)
        session.run(tf1.global_variables_initializer())

        def step(batch: tuple[np.ndarray, np.ndarray]) -> float:
            return session.run([loss, train], dict(zip((tokens, labels), batch, strict=True)))[0]

        for batch in before:
            step(batch)
        prefix = tf1.train.Saver().save(session, path, write_meta_graph=False)
        return Yesterday(prefix, tuple(after), np.array([step(batch) for batch in after]))


def _loss_in_tensorflow(tokens: Any, labels: Any) -> Any:
    def weights(name: str, *shape: int) -> Any:
        start = tf1.random_normal_initializer(stddev=0.3, seed=len(name))
        return tf1.get_variable(name, shape, tf1.float64, start)

    embedded = tf1.one_hot(tokens, len(OLD), dtype=tf1.float64) @ weights(
        "embed/embeddings", len(OLD), WIDTH
    )
    hidden = embedded @ weights("hidden/kernel", WIDTH, HIDDEN) + weights("hidden/bias", HIDDEN)
    logits = tf1.tanh(hidden) @ weights("out/kernel", HIDDEN, CLASSES) + weights(
        "out/bias", CLASSES
    )
    losses = tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf1.reduce_mean(losses)


def _continue_in_torch(name: str, old: Yesterday, *, new_vocab: bool, slots: bool) -> np.ndarray:
    model = Classifier(len(NEW) if new_vocab else len(OLD))
    optimizer = IN_TORCH[name](model.parameters())
    info = tws.VocabInfo(NEW, -1, 0, OLD, backup_initializer=torch.nn.init.normal_)
    settings = tws.WarmStartSettings(
        old.prefix, [".*"], {"embed.weight": info} if new_vocab else None
    )
    report = tws.warm_start(model, settings, optimizer=optimizer if slots else None)
    assert slots == any(account.kind == "slot" for account in report.variables)
    row = {n: NEW.index(OLD[n]) if new_vocab else n for n in SURVIVORS}
    losses = []
    for tokens, labels in old.batches:
        rows = torch.tensor([row[token] for token in tokens.tolist()])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(rows), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def _apart(losses: np.ndarray, old: Yesterday) -> float:
    return float(np.max(np.abs(losses - old.losses) / old.losses))


@pytest.mark.parametrize("new_vocab", [False, True], ids=["same-vocabulary", "new-vocabulary"])
@pytest.mark.parametrize("name", IN_TORCH)
def test_training_goes_on_as_in_tensorflow(yesterday, name, new_vocab):
    old = yesterday(name)
    carried = _continue_in_torch(name, old, new_vocab=new_vocab, slots=True)
    fresh = _continue_in_torch(name, old, new_vocab=new_vocab, slots=False)
    assert _apart(carried, old) <= TOLERANCE[name]
    assert _apart(fresh, old) >= DEPARTURE[name]
