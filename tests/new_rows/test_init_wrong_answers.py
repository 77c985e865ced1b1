"""What a user's function or mapping answers wrongly is our error, and changes nothing."""

from __future__ import annotations

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
