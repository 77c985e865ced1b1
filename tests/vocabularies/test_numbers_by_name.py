"""A column of integers that numbers the rows is no count, whatever it is called."""

from __future__ import annotations

import pytest

import torch_warmstart as tws
from torch_warmstart.vocabularies.numbering import may_be_numbers

NUMBERS = [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]


@pytest.mark.parametrize(
    "name", ["row", "rownum", "row_num", "line_num", "token_n", "seq-n", "Item_Num"]
)
def test_rows_of_another_order_are_refused(name, tmp_path):
    lines = [f"t{number},{at}" for number, at in enumerate(NUMBERS)]
    (tmp_path / "v.csv").write_text("\n".join([f"token,{name}", *lines, ""]))
    with pytest.raises(tws.VocabularyError, match="number"):
        tws.Vocabulary.load(tmp_path / "v.csv", column="token")


@pytest.mark.parametrize(
    "name", ["n", "num", "num_n", "item_count", "click_num", "score", "last_seen"]
)
def test_counts_are_none(name):
    assert not may_be_numbers(name)
