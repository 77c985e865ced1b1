"""What classes are called behind a change of a head's rows: no two alike."""

from __future__ import annotations

import pytest
import torch

import torch_warmstart as tws
from torch_warmstart.planning.live.classes import called_anew
from torch_warmstart.planning.live.tables import TableChange
from torch_warmstart.vocabularies import read_vocabularies, remapping_between


def _called(new: list[str | None], old: list[str], names: list[str]) -> list[str]:
    info = tws.VocabInfo(new, old_vocab=old)
    remapping = remapping_between(info, read_vocabularies(info))
    change = TableChange(info, 0, len(old), remapping)
    called = called_anew(change, dict(enumerate(names)))
    assert list(called) == list(range(len(new)))
    return list(called.values())


@pytest.mark.parametrize(
    ("new", "old", "names", "called"),
    [
        (["b", "c"], ["a", "b"], ["NEG", "POS"], ["POS", "c"]),
        (["b", None], ["a", "b"], ["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_1_1"]),
        (["b", "NEG"], ["b", "a"], ["NEG", "POS"], ["NEG", "NEG_1"]),
        (["x", "b", "x_0"], ["b", "c"], ["x", "y"], ["x_0", "x", "x_0_2"]),
    ],
    ids=["by-entry", "by-number", "spelt-as-another", "twice"],
)
def test_no_two_have_one_name(
    new: list[str | None], old: list[str], names: list[str], called: list[str]
) -> None:
    assert _called(new, old, names) == called


def test_rows_by_position_keep_theirs() -> None:
    from torch_warmstart.vocabularies import remapping_by_position

    remapping = remapping_by_position(3, 2, torch.device("cpu"))
    change = TableChange(tws.ClipOrPad(), 0, 2, remapping)
    called = called_anew(change, {0: "no", 1: "LABEL_2"})
    assert called == {0: "no", 1: "LABEL_2", 2: "LABEL_2_2"}
