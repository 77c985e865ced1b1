"""What a user's function or mapping answers wrongly is our error, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init


def started(initializer: Any) -> None:
    model = nn.Embedding(2, 3)
    before = model.weight.detach().clone()
    info = tws.VocabInfo(["a", "ab"], old_vocab=["a", "b"], backup_initializer=initializer)
    settings = tws.WarmStartSettings({"weight": torch.ones(2, 3)}, ".*", {"weight": info})
    try:
        tws.warm_start(model, settings)
    finally:
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("initializer", "said"),
    [
        (init.subword(lambda _: 1 / 0), "cannot: ZeroDivisionError"),
        (init.subword(lambda _: iter([1 / 0 for _ in "x"])), "cannot: ZeroDivisionError"),
        (init.subword(lambda _: 3), "are a list of old entries.* not int"),
        (init.subword(lambda _: None), "are a list of old entries.* not NoneType"),
        (init.subword({"ab": 3}), "are a list of old entries.* not int"),
        (
            init.group_mean({"ab": ["jazz"], "a": ["jazz"]}),
            "a group is one value that can be a key",
        ),
        (init.alias({None: "a", "ab": "b"}), "holds None"),
        (init.alias({"ab": None, "c": "b"}), "holds None"),
        (init.group_mean({None: "jazz", "ab": "rock", "a": "rock"}), "holds None"),
        (init.subword({None: ["a"], "ab": ["b"]}), "holds None"),
    ],
)
def test_it_is_our_error(initializer: Any, said: str) -> None:
    with pytest.raises(tws.WarmStartError, match=said):
        started(initializer)


def test_what_is_no_mapping_is_told_by_its_kind() -> None:
    with pytest.raises(tws.SettingsError, match="not a ndarray"):
        init.alias(np.array(["a"]))  # type: ignore[arg-type]
    with pytest.raises(tws.SettingsError, match="weights is .* not a ndarray"):
        init.subword({"a": ["b"]}, weights=np.array([1, 2]))  # type: ignore[arg-type]


def test_a_function_may_answer_with_an_iterator() -> None:
    model = nn.Embedding(2, 3)
    rows = init.subword(iter)
    info = tws.VocabInfo(["a", "ab"], old_vocab=["a", "b"], backup_initializer=rows)
    old = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    tws.warm_start(model, tws.WarmStartSettings({"weight": old}, ".*", {"weight": info}))
    assert model.weight[1].tolist() == [0.5, 0.5, 0.0]


ROW, ONE, YES = torch.tensor([0]), torch.ones(1), torch.tensor([True])


def minus_one(new: tws.NewRows) -> torch.Tensor:
    return new.old.read(new.old.find(new.entries()))  # what is not found is -1


def behind(new: tws.NewRows) -> torch.Tensor:
    return new.old.read(new.rows + 1)


def by_mask(new: tws.NewRows) -> torch.Tensor:
    return new.old.read(new.rows >= 0)


def of_lists(_: tws.NewRows) -> tws.Mixture:
    return tws.Mixture(torch.tensor([0, 1]), [0], ONE, YES)  # type: ignore[arg-type]


def elsewhere(_: tws.NewRows) -> tws.Mixture:
    return tws.Mixture(torch.tensor([0, 1]), ROW, ONE.to("meta"), YES)


def unannotated(_: Any) -> tws.Mixture:
    return tws.Mixture(torch.tensor([0, 1]), ROW, ONE, YES)


@pytest.mark.parametrize(
    ("initializer", "said"),
    [
        (minus_one, "weight: old.read takes rows from 0 to 1,.* not there has -1"),
        (behind, "weight: old.read takes rows from 0 to 1,"),
        (by_mask, "a tensor of int64 with one axis"),
        (of_lists, "a Mixture whose indices is no tensor on the CPU"),
        (elsewhere, "a Mixture whose weights is no tensor on the CPU"),
        (unannotated, "annotate its first parameter, `new: tws.NewRows`"),
        (lambda _: [1.0] * 9, "it returned list"),
        (init.mean, r"init.mean makes an initialiser: write init.mean\(...\)"),
        ("mean", r"one of tws.init such as init.mean\(\)"),
    ],
)
def test_a_function_of_ones_own_is_held_to_what_is_there(initializer: Any, said: str) -> None:
    with pytest.raises(tws.SettingsError, match=said):
        started(initializer)


def test_a_row_that_nobody_made_is_not_said_to_be_no_new_one() -> None:
    info = tws.VocabInfo(["a", "ab"], old_vocab=["a"], backup_initializer=init.group_mean({"a": 1}))
    settings = tws.WarmStartSettings({"weight": torch.ones(1, 3)}, ".*", {"weight": info})
    with pytest.warns(tws.WarmStartWarning, match="new-rows-unanswered"):
        report = tws.warm_start(nn.Embedding(2, 3), settings)
    with pytest.raises(KeyError, match="or zeros where none answers"):
        report["weight"].new_rows.show("ab")


def test_vectors_may_be_an_array_and_a_mapping_is_told_what_to_write() -> None:
    model, vectors = nn.Embedding(2, 3), {"a": np.ones(3), "ab": np.arange(3.0)}
    rows = init.vectors((list(vectors), np.stack(list(vectors.values()))), align=None)
    info = tws.VocabInfo(["a", "ab"], old_vocab=["a"], backup_initializer=rows)
    settings = tws.WarmStartSettings({"weight": torch.ones(1, 3)}, ".*", {"weight": info})
    tws.warm_start(model, settings)
    assert model.weight[1].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(tws.WarmStartError, match="Write .list.vectors., numpy.stack"):
        started(init.vectors(vectors))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "why"),
    [("a\t1\t2\t3\n", "known format"), ("", "is empty"), (None, "no such file")],
    ids=["tabs", "empty", "missing"],
)
def test_what_is_no_file_of_vectors_is_told_what_one_is(
    tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "words.vec"
    if text is not None:
        path.write_text(text)
    told = f"words.vec is no file of vectors that can be read .lines of a token.*{why}"
    with pytest.raises(tws.PlanError, match=told):
        started(init.similar(str(path)))


@pytest.mark.parametrize("dtype", ["int64", object, "float128"], ids=str)
def test_an_array_of_other_numbers_is_told(dtype: Any) -> None:
    vectors = np.ones((2, 3)).astype(dtype)
    with pytest.raises(tws.PlanError, match="is a matrix of floating numbers, float16 to float64"):
        started(init.similar((["a", "ab"], vectors)))


def test_an_array_may_be_in_the_other_order_of_bytes() -> None:
    vectors = np.arange(6.0).reshape(2, 3).astype(">f4")
    info = tws.VocabInfo(
        ["ab"], old_vocab=["a"], backup_initializer=init.vectors((["a", "ab"], vectors), align=None)
    )
    model = nn.Embedding(1, 3)
    tws.warm_start(
        model, tws.WarmStartSettings({"weight": torch.ones(1, 3)}, ".*", {"weight": info})
    )
    assert model.weight[0].tolist() == [3.0, 4.0, 5.0]


def test_what_a_mask_leaves_out_is_no_vector() -> None:
    """What lies under it is any number."""
    vectors = np.ma.array(np.ones((2, 3), np.float32), mask=[[0, 0, 0], [1, 1, 1]])
    with pytest.raises(tws.PlanError, match="masked, and 3 of 6 numbers are missing: leave their"):
        started(init.vectors((["a", "b"], vectors), align=None))
