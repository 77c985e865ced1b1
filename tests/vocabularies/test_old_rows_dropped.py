"""How many old entries are dropped, where one side's special row is an entry of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch_warmstart as tws

KERAS = ["", "[UNK]", "a", "b"]  # a row for no input, and one for what is not listed


@pytest.mark.parametrize(
    ("new", "old", "dropped"),
    [
        (["a", "b", "[UNK]"], KERAS, 0),
        (np.array(KERAS), KERAS, 0),
        (np.array(["", "b"]), KERAS, 1),
        (KERAS, ["a", "b", "[UNK]", ""], 0),
        (["[UNK]", "b"], ["a", "b", "[UNK]"], 1),
        (KERAS, ["[UNK]", "b", "c"], 1),
    ],
)
def test_each_old_entry_is_taken_or_dropped(new: Any, old: list[str], dropped: int) -> None:
    model = torch.nn.Embedding(len(new), 2)
    info = tws.VocabInfo(new, old_vocab=old)
    settings = tws.WarmStartSettings({"weight": torch.ones(len(old), 2)}, ".*", {"weight": info})
    rows = tws.warm_start(model, settings)["weight"].rows
    assert rows.dropped == dropped
