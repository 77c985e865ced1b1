"""A SegmentInfo that is wrong is told as one, whatever it shares with a VocabInfo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_warmstart as tws


@pytest.mark.parametrize("kind", ["SegmentInfo", "ClipOrPad", "VocabInfo"])
@pytest.mark.parametrize(
    "more",
    [
        {"backup_initializer": 3},
        {"generator": torch.Generator()},
        {"generator": torch.Generator(), "backup_initializer": torch.nn.init.ones_},
    ],
)
def test_it_is_called_what_it_is(kind: str, more: dict[str, Any]) -> None:
    first = {"SegmentInfo": ({"a": 1}, {"a": 1}), "ClipOrPad": (), "VocabInfo": (["a"],)}[kind]
    with pytest.raises(tws.SettingsError, match=f"^{kind}: "):
        getattr(tws, kind)(*first, **more)


def test_a_feature_that_differs_by_case_is_no_new_one() -> None:
    def start(new: dict[str, int]) -> torch.Tensor:
        model = torch.nn.Linear(sum(new.values()), 1, bias=False)
        info = tws.SegmentInfo(new, {"age": 1, "zip": 2})
        old = {"weight": torch.tensor([[1.0, 2.0, 3.0]])}
        tws.warm_start(model, tws.WarmStartSettings(old, var_name_to_vocab_info={"weight": info}))
        return model.weight.detach()

    with pytest.raises(tws.PlanError, match="'Age' of new_segments.*would be 'age' if case"):
        start({"Age": 1, "zip": 2})
    assert start({"Age": 1, "zip": 2, "age": 1}).tolist() == [[0, 2, 3, 1]]  # both are there
