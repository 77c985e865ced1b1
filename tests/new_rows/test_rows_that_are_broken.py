"""Old rows and vectors that are not finite: left out where that can be, told where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pandas as pd
import pytest
import torch
from rows_helpers import letters, start, table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.new_rows import Mixtures, composing, make

OLD = letters(40)
NEW = [*OLD, "x", "y"]
BROKEN = [3, 17]


def broken_table(width: int = 6) -> torch.Tensor:
    values = table(40, width)
    values[BROKEN[0], 0], values[BROKEN[1]] = float("nan"), float("inf")
    return values


def vectors(broken: int | None = None) -> tuple[list[str], torch.Tensor]:
    found = table(42, 5, seed=1)
    if broken is not None:
        found[broken, 2] = float("nan")
    return NEW, found


INITIALISERS = {
    "mean": init.mean(),
    "noise": init.mean() + init.noise(0.1),
    "normal": init.normal(),
    "diagonal": init.normal("diagonal"),
    "similar": init.similar(vectors(), k=40),
    "proportional": init.similar(vectors(), k=None, weights="proportional"),
    "omp": init.omp(vectors(), k=8),
    "ridge": init.vectors(vectors()),
    "procrustes": init.vectors(vectors(), "procrustes"),
}


@pytest.mark.parametrize("name", INITIALISERS)
def test_rows_that_are_not_finite_are_not_trained(name: str) -> None:
    made = INITIALISERS[name]
    weight, _ = start(broken_table(), OLD, NEW, made, generator=torch.Generator().manual_seed(0))
    kept = [row for row in range(40) if row not in BROKEN]
    names = [OLD[row] for row in kept]
    seed = torch.Generator().manual_seed(0)
    without, _ = start(broken_table()[kept], names, [*names, "x", "y"], made, generator=seed)
    torch.testing.assert_close(weight[40:], without[38:])


@pytest.mark.parametrize("name", ["similar", "proportional", "omp", "ridge"])
def test_an_old_entry_s_vector_that_is_not_finite_counts_for_nothing(name: str) -> None:
    made = {
        "similar": lambda v: init.similar(v, k=40),
        "proportional": lambda v: init.similar(v, k=None, weights="proportional"),
        "omp": lambda v: init.omp(v, k=8),
        "ridge": init.vectors,
    }[name]
    values = table(40, 6)
    weight, _ = start(values, OLD, NEW, made(vectors(broken=5)))
    names, given = vectors()
    kept = [row for row in range(42) if row != 5]
    without = ([names[row] for row in kept], given[kept])
    wanted, _ = start(values, OLD, NEW, made(without))
    torch.testing.assert_close(weight[40:], wanted[40:])


@pytest.mark.parametrize("name", ["similar", "omp", "vectors"])
def test_a_new_entry_s_vector_that_is_not_finite_is_none(name: str) -> None:
    made = getattr(init, name)(vectors(broken=40)) | init.mean()
    values = table(40, 6)
    weight, account = start(values, OLD, NEW, made)
    assert account.new_rows.answered == ((name, 1), ("mean", 1))
    torch.testing.assert_close(weight[40], values.mean(0))


def test_vectors_as_they_are_leave_out_what_is_not_finite() -> None:
    made = init.vectors(vectors(broken=41), None) | init.mean()
    weight, account = start(table(40, 5), OLD, NEW, made)
    assert account.new_rows.answered == (("vectors", 1), ("mean", 1))
    torch.testing.assert_close(weight[40:], torch.stack([vectors()[1][40], table(40, 5).mean(0)]))


@pytest.mark.parametrize("is_needed", [[True, False], [False, True], [False, False]])
def test_a_part_of_the_rows_has_the_same_account(
    is_needed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a rank that has some of the rows."""
    monkeypatch.setattr(composing, "TOGETHER", 1)
    monkeypatch.setattr("torch_warmstart.new_rows.initializers.vectors.TOGETHER", 1)
    model, made = nn.Embedding(42, 5), init.vectors(vectors(broken=41)) | init.mean()
    info = tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=made)
    settings = tws.WarmStartSettings({"weight": table(40, 5)}, ".*", {"weight": info})
    mixed = tws.plan_warm_start(model, settings).items[0].fill
    needed = torch.tensor([*[True] * 40, *is_needed])
    answers = mixed.answers.for_rows(needed)
    found = make(answers, _Values(table(40, 5)), 0, Mixtures(), lambda _, run: run())
    assert [(one.label, len(one)) for one in found] == [("vectors", 1), ("mean", 1)]


class _Values:
    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        return self._tensor[rows]

    def blocks(self, rows: int = 65536) -> Iterator[tuple[int, torch.Tensor]]:
        yield from ((at, self._tensor[at : at + rows]) for at in range(0, 40, rows))


@pytest.mark.parametrize("align", ["ridge", "procrustes"])
@pytest.mark.parametrize("number", [1.0, 0.1, 1e30])
def test_vectors_that_are_all_alike_tell_nothing_but_the_mean(align: str, number: float) -> None:
    alike = (NEW, torch.full((42, 3), number))
    weight, _ = start(table(40, 5), OLD, NEW, init.vectors(alike, align))
    torch.testing.assert_close(weight[40:], table(40, 5).mean(0).expand(2, -1))


@pytest.mark.parametrize("width", [1, 6])
def test_what_cannot_be_left_out_is_told_before_anything_is_written(width: int) -> None:
    old = broken_table(width)
    model = nn.Embedding(42, width)
    before = model.weight.detach().clone()
    pieces = init.subword({"x": [OLD[BROKEN[0]], "t0"], "y": ["t1"]})
    info = tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=pieces)
    settings = tws.WarmStartSettings({"weight": old}, var_name_to_vocab_info={"weight": info})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(tws.WarmStartWarning, match="1 new row with NaN or infinity"):
            tws.warm_start(model, settings)
    assert torch.equal(model.weight.detach(), before)
    with pytest.warns(tws.WarmStartWarning, match="1 new row with NaN"):
        report = tws.warm_start(model, settings)
    assert [note.code for note in report.notes] == ["new-rows-not-finite"]


def test_all_rows_that_are_asked_for_may_be_none_to_fit_on() -> None:
    with pytest.warns(tws.WarmStartWarning, match="2 new rows with NaN"):
        start(broken_table(), OLD, NEW, init.mean("all"))
    with pytest.raises(tws.SettingsError, match='weight: init.normal: .*of="all" takes too'):
        start(broken_table(), OLD, NEW, init.normal(of="all"))


@pytest.mark.parametrize(
    "made", [init.similar(vectors()), init.omp(vectors()), init.vectors(vectors())]
)
def test_what_has_entries_but_is_not_trained_is_told_as_that(made: object) -> None:
    with pytest.raises(tws.SettingsError, match="40 of the old entries .* none of their rows look"):
        start(torch.zeros(40, 6), OLD, NEW, made)
    others = letters(40, "other")
    with pytest.raises(tws.SettingsError, match="none of the old entries .* write their entries"):
        start(table(40, 6), others, [*others, "x"], made)


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, pd.NaT])
def test_what_a_table_has_for_nothing_is_no_group(nothing: object) -> None:
    groups = {"a": "g", "b": nothing, "x": nothing, "y": "g"}
    old = table(2, 3)
    weight, account = start(old, ["a", "b"], ["x", "y"], init.group_mean(groups))
    assert account.new_rows.answered == (("group_mean", 1), ("zeros", 1))
    torch.testing.assert_close(weight, torch.stack([torch.zeros(3), old[0]]))
    _, account = start(old, ["a", "b"], ["x"], init.group_mean({"b": nothing, "x": nothing}))
    assert account.new_rows.answered == (("zeros", 1),)


@pytest.mark.parametrize(
    "made",
    [init.mean("all"), init.alias({"x": OLD[0]}), init.group_mean({OLD[0]: 1, "x": 1})],
    ids=["mean", "alias", "group_mean"],
)
def test_rows_without_a_number_are_made_too(made: object) -> None:
    weight, account = start(torch.zeros(40, 0), OLD, NEW, made)
    assert weight.shape[1] == 0
    assert account.rows.initialised == 2


def test_groups_that_a_tensor_gives_are_its_numbers() -> None:
    """Tensors themselves are each another key, so that no two entries would share a group."""
    old, entries = table(2, 3), ["a", "b", "x", "y"]
    groups = dict(zip(entries, torch.tensor([4.0, 5.0, 5.0, float("nan")]), strict=True))
    weight, account = start(old, ["a", "b"], ["x", "y"], init.group_mean(groups))
    assert account.new_rows.answered == (("group_mean", 1), ("zeros", 1))
    torch.testing.assert_close(weight, torch.stack([old[1], torch.zeros(3)]))
    with pytest.raises(tws.SettingsError, match=r"a group is one value .*of shape \[1\] is none"):
        start(old, ["a", "b"], ["x"], init.group_mean({"x": torch.tensor([1]), "a": 1}))
