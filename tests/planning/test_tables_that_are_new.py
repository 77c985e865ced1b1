"""A table with a vocabulary that one of the checkpoints does not have: yesterday's, or an older."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD, NEW, OLDER = ["a", "b"], ["b", "n", "z"], ["z", "a"]
KEEP = {"on_missing": "keep"}


def _model(names, rows):
    return nn.ModuleDict({name: nn.Embedding(rows, 2) for name in names})


def _state(names, rows, value):
    model = _model(names, rows)
    for table in model.values():
        nn.init.constant_(table.weight, value)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=value)
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def _start(yesterday, *, settings=None, **options):
    model = _model(("city", "shop"), 3)
    nn.init.constant_(model["shop"].weight, 5.0)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.5)
    info = tws.VocabInfo(NEW, old_vocab=OLD, **options)
    each = {re.compile(r"(\w+)\.weight"): info}
    chosen = tws.WarmStartSettings(yesterday, ".*", each, **(settings or {}))
    return model, optimizer, tws.warm_start(model, chosen, optimizer=optimizer)


def test_a_table_that_yesterday_had_not_is_kept_if_that_is_said():
    """The error proposes it, so it is enough to do it."""
    yesterday = _state(("city",), 2, 1.0)
    with pytest.raises(tws.PlanError, match=r"shop.weight is not in .*\n.*on_missing='keep'"):
        _start(yesterday)
    model, optimizer, report = _start(yesterday, settings=KEEP)
    assert report["shop.weight"].state == "kept"
    assert "shop.weight" in report.missing_keys
    assert model["shop"].weight.eq(5).all()
    assert optimizer.state[model["shop"].weight]["sum"].eq(0.5).all()
    assert model["city"].weight.tolist() == [[1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    "wrap",
    [lambda info: info, lambda info: tws.SegmentInfo({"x": info}, {"x": 2}, axis=0)],
    ids=["alone", "in-a-segment"],
)
def test_a_part_of_its_entries_must_be_found_where_that_is_said(wrap):
    model = _model(("city", "shop"), 3)
    infos = {
        "city.weight": tws.VocabInfo(NEW, old_vocab=OLD),
        "shop.weight": wrap(tws.VocabInfo(NEW, old_vocab=OLD, min_found=0.1)),
    }
    settings = tws.WarmStartSettings(_state(("city",), 2, 1.0), ".*", infos, **KEEP)
    with pytest.raises(tws.PlanError, match="by min_found"):
        tws.warm_start(model, settings)


@pytest.mark.parametrize("own", [False, True])
def test_a_table_that_an_older_checkpoint_has_not_begins_anew_if_that_is_said(own):
    yesterday, older = _state(("city", "shop"), 2, 1.0), _state(("city",), 2, 7.0)
    source = tws.WarmStartSettings(older, **KEEP) if own else older
    with pytest.raises(tws.PlanError, match=r"The fallback .*\n.*shop.weight is not in"):
        _start(yesterday, fallback=[(older, OLDER)])
    settings = {} if own else KEEP
    model, optimizer, report = _start(yesterday, settings=settings, fallback=[(source, OLDER)])
    assert model["city"].weight.tolist() == [[1, 1], [0, 0], [7, 7]]
    assert model["shop"].weight.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert (report["city.weight"].rows.returned, report["shop.weight"].rows.returned) == (1, 0)
    sums = [optimizer.state[table.weight]["sum"][:, 0].tolist() for table in model.values()]
    assert sums == [[1, 0.5, 7], [1, 0.5, 0.5]]
