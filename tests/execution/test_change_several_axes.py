"""`change_vocabulary` along several axes of one tensor, against a dict of cells."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import SegmentInfo, VocabInfo

ROWS = VocabInfo(["d", "x", "b", "y", "a"], old_vocab=["a", "b", "c", "d"])
COLUMNS = VocabInfo(["q", "new", "p"], old_vocab=["p", "q"], axis=1)
SEGMENTS = SegmentInfo(
    {"city": 1, "age": 2, "colour": VocabInfo(["blue", "pink", "red"], old_vocab=["red", "blue"])},
    {"age": 2, "gone": 1, "colour": 2},
)


def names(info: VocabInfo | SegmentInfo) -> tuple[list[str], list[str]]:
    """What each new row stands for, and each old one."""
    if isinstance(info, VocabInfo):
        return info.new_vocab, info.old_vocab
    new = ["city", "age 0", "age 1", "blue", "pink", "red"]
    return new, ["age 0", "age 1", "gone", "red", "blue"]


def expected(
    old: torch.Tensor, infos: list[VocabInfo | SegmentInfo], begin: float = 0.0
) -> torch.Tensor:
    """Cell by cell."""
    (rows, old_rows), (columns, old_columns) = map(names, infos)
    cells = {
        (row, column): old[at, there]
        for at, row in enumerate(old_rows)
        for there, column in enumerate(old_columns)
    }
    fresh = torch.tensor(begin)
    return torch.stack(
        [torch.stack([cells.get((row, column), fresh) for column in columns]) for row in rows]
    )


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 4)


@pytest.mark.parametrize("columns", [COLUMNS, SEGMENTS], ids=["entries", "features"])
@pytest.mark.parametrize(
    ("make", "starts"),
    [
        (lambda p: torch.optim.AdamW(p, amsgrad=True), {"exp_avg": 0.0, "max_exp_avg_sq": 0.0}),
        (lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.25), {"sum": 0.25}),
    ],
    ids=["AdamW", "Adagrad"],
)
def test_rows_and_columns_follow_with_sizes_slots_and_averages(
    columns: VocabInfo | SegmentInfo, make: Any, starts: dict[str, float]
) -> None:
    infos = [ROWS, columns]
    width = len(names(columns)[1])
    model = Net(width)
    optimizer = make(model.parameters())
    for _ in range(2):
        model.head(torch.randn(3, width)).square().sum().backward()
        optimizer.step()
    ema = copy.deepcopy(model)
    with torch.no_grad():
        ema.head.weight.mul_(3)
    before, averages = model.head.weight.detach().clone(), ema.head.weight.detach().clone()
    bias = model.head.bias.detach().clone()
    slots = {name: optimizer.state[model.head.weight][name].clone() for name in starts}

    report = tws.change_vocabulary(model, {"head.weight": infos}, optimizer=optimizer, ema=ema)

    new_width = len(names(columns)[0])
    assert (model.head.out_features, model.head.in_features) == (5, new_width)
    assert (ema.head.out_features, ema.head.in_features) == (5, new_width)
    assert torch.equal(model.head.weight, expected(before, infos))
    assert torch.equal(ema.head.weight, expected(averages, infos))
    old_rows, zero = names(ROWS)[1], torch.tensor(0.0)
    entries = [bias[old_rows.index(e)] if e in old_rows else zero for e in names(ROWS)[0]]
    assert torch.equal(model.head.bias, torch.stack(entries))
    for name, begin in starts.items():
        found = optimizer.state[model.head.weight][name]
        assert torch.equal(found, expected(slots[name], infos, begin)), name
    assert report["head.weight"].state == "remapped"
    model.head(torch.randn(3, new_width)).square().sum().backward()
    optimizer.step()


def test_features_alone() -> None:
    model = Net(5)
    before = model.head.weight.detach().clone()
    tws.change_vocabulary(model, {"head.weight": SEGMENTS})
    assert (model.head.in_features, model.head.out_features) == (6, 4)
    same = VocabInfo(list("abcd"), old_vocab=list("abcd"))
    assert torch.equal(model.head.weight, expected(before, [same, SEGMENTS]))


def test_a_table_with_a_row_for_padding_and_other_columns() -> None:
    model = nn.Sequential(nn.Embedding(4, 2, padding_idx=1))
    before = model[0].weight.detach().clone()
    tws.change_vocabulary(model, {"0.weight": [COLUMNS, ROWS]})
    assert model[0].padding_idx == 2
    assert torch.equal(model[0].weight, expected(before, [ROWS, COLUMNS]))


@pytest.mark.parametrize(
    ("infos", "text"),
    [
        ([ROWS, tws.ClipOrPad(1)], "say how many rows the new tensor has, not a ClipOrPad"),
        ([ROWS, ROWS], "two of its list are for axis 0"),
        ([ROWS, COLUMNS, VocabInfo(["a"], old_vocab=["a"], axis=2)], "is for axis 2, but its"),
        ([], "a list of these; found"),
        (
            SegmentInfo({"a": VocabInfo(["x"], old_vocab=tws.FROM_CHECKPOINT["y"])}, {"a": 5}),
            "no checkpoint here that could hold the old vocabulary",
        ),
        (SegmentInfo({"a": 1}, {"a": 1}), "of together 1 columns, and the old variable has 5"),
    ],
)
def test_what_cannot_be_is_refused(infos: Any, text: str) -> None:
    model = Net(5)
    before = model.head.weight
    with pytest.raises(tws.WarmStartError) as raised:
        tws.change_vocabulary(model, {"head.weight": infos})
    assert text in str(raised.value)
    assert model.head.weight is before


def test_who_fills_what_is_new_along_both() -> None:
    mean = tws.init.mean()
    rows = VocabInfo(ROWS.new_vocab, old_vocab=ROWS.old_vocab, backup_initializer=mean)
    columns = VocabInfo(["q", "n"], old_vocab=["p", "q"], axis=1, backup_initializer=mean)
    model = Net(2)
    before = model.head.weight.detach().clone()
    with pytest.raises(tws.PlanError, match="has no old values"):
        tws.change_vocabulary(model, {"head.weight": [rows, columns]})
    ones = VocabInfo(["q", "n"], old_vocab=["p", "q"], axis=1, backup_initializer=nn.init.ones_)
    tws.change_vocabulary(model, {"head.weight": [rows, ones]})
    weight = model.head.weight.detach()
    assert weight[:, 1].eq(1).all()
    torch.testing.assert_close(weight[1, 0], before[:, 1].mean())
    assert torch.equal(weight[0, 0], before[3, 1])
