"""Many names at once: alike as each pair is alone, and some work is done once for all of them."""

from __future__ import annotations

import fnmatch
import random

import numpy as np
import torch
from cpu_time import cpu_seconds_below
from torch import nn

import torch_warmstart as tws
from torch_warmstart.suggesting import matching
from torch_warmstart.suggesting.similarity import alikeness, features_of, tokens_of

WORDS = ("attn", "dense", "a", "ab", "kernel", "block", "q", "emb", "layer", "out", "moving")


def _names(drawn: random.Random, count: int) -> list[tuple[str, ...]]:
    def part() -> str:
        return drawn.choice(WORDS) + drawn.choice(["", f"_{drawn.randrange(9)}"])

    return [tokens_of("/".join(part() for _ in range(drawn.randrange(5)))) for _ in range(count)]


def _plainly(ours: list[tuple[str, ...]], theirs: list[tuple[str, ...]]) -> np.ndarray:
    """Dice's coefficient, pair by pair; a feature weighs what it weighs in the last name."""
    weights = {f: w for side in (ours, theirs) for n in side for f, w in features_of(n).items()}

    def weigh(features: set[str]) -> float:
        return sum(weights[feature] for feature in features)

    return np.array(
        [
            [
                2
                * weigh({*features_of(a)} & {*features_of(b)})
                / max(weigh({*features_of(a)}) + weigh({*features_of(b)}), 1e-6)
                for b in theirs
            ]
            for a in ours
        ]
    )


def test_names_are_as_alike_together_as_each_pair_is_alone():
    drawn = random.Random(0)
    for _ in range(30):
        ours, theirs = (_names(drawn, drawn.randrange(1, 30)) for _ in range(2))
        np.testing.assert_allclose(alikeness(ours, theirs), _plainly(ours, theirs), atol=1e-6)


def test_the_best_rival_is_of_the_same_layer_or_the_same_candidate():
    drawn = np.random.default_rng(0)
    for shape in ((1, 1), (1, 4), (5, 1), (6, 7)):
        scores = drawn.integers(5, size=shape).astype(np.float32)
        rivals = matching._Rivals(scores)
        for row, column in np.ndindex(shape):
            others = [*np.delete(scores[row], column), *np.delete(scores[:, column], row), -1]
            assert rivals.best(row, column) == max(others)


def test_the_best_of_a_vector_are_those_of_a_stable_sort():
    drawn = np.random.default_rng(1)
    for size in (1, 5, 40):
        scores = drawn.integers(4, size=size).astype(np.float32)
        for count in (1, 3, 24):
            expected = np.argsort(-scores, kind="stable")[:count]
            assert matching._best_columns(scores, count).tolist() == expected.tolist()


def test_names_that_are_there_several_times_are_compared_once_and_score_the_same():
    drawn = random.Random(2)
    for _ in range(30):
        ours, theirs = (_names(drawn, drawn.randrange(1, 12)) for _ in range(2))
        ours, theirs = (side + drawn.choices(side, k=5) for side in (ours, theirs))
        scores, alike = alikeness(ours, theirs), matching._Alike(ours, theirs)
        rivals = matching._Rivals(scores)
        for row, column in np.ndindex(scores.shape):
            assert alike.score(row, column) == scores[row, column]
            assert alike.best_rival(row, column) == rivals.best(row, column)


def _model_and_state(count: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = nn.ModuleDict({f"block{n}": nn.Linear(4, 4, bias=False) for n in range(count)})
    return model, {f"stage/unit_{n}/fc/weights": torch.zeros(4, 4) for n in range(count)}


def test_numbers_of_names_are_read_once_for_all_layers_of_a_kind(monkeypatch):
    read = []
    monkeypatch.setattr(matching, "numbers_in", lambda name: read.append(name) or (len(read),))
    tws.suggest_names(*_model_and_state(40))
    assert len(read) <= 4 * 40


def test_patterns_of_forms_are_compiled_once_for_all_weights(monkeypatch):
    translate, calls = fnmatch.translate, []
    monkeypatch.setattr(fnmatch, "translate", lambda name: calls.append(name) or translate(name))
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    tws.plan_warm_start(model, model.state_dict())
    assert len(calls) < 100


def test_a_name_of_many_parts_takes_no_square_of_its_length() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(2))
    with cpu_seconds_below(5):  # each of two steps took above ten
        assert "w" in str(tws.suggest_names(model, {"/".join(["a"] * 20_000): torch.ones(2)}))
