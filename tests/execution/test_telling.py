"""What is probably a mistake is heard: once, from the caller's line, before anything is written."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_warmstart as tws

SOURCE = {"bn.weight": torch.ones(2), "bn.bias": torch.ones(2), "bn.running_mean": torch.ones(2)}


def _model() -> nn.Module:
    return nn.ModuleDict({"bn": nn.BatchNorm1d(2, track_running_stats=True)})


def _heard(model: nn.Module, settings: object) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tws.warm_start(model, settings)
    return heard


def test_buffers_that_stay_behind_are_heard_from_the_callers_line():
    (warning,) = _heard(_model(), SOURCE)
    assert warning.category is tws.WarmStartWarning
    assert warning.filename == __file__
    assert "write a list: vars_to_warm_start=['.*']" in str(warning.message)
    assert str(warning.message).endswith("[buffers-left-behind]")


def test_a_file_beside_the_package_that_is_called_like_it_is_a_callers():
    """`torch_warmstart_job.py` in a copy of the repository."""
    job = f"{Path(tws.__file__).parent}_job.py"
    program = compile("def go(start, *what): return start(*what)", job, "exec")
    scope: dict = {}
    exec(program, scope)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        scope["go"](tws.warm_start, _model(), SOURCE)
    assert [warning.filename for warning in heard] == [job]


def test_a_plan_that_is_applied_is_heard_from_there_and_a_dry_run_is_silent():
    model = _model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = tws.plan_warm_start(model, SOURCE)
    assert [note.code for note in plan.notes] == ["buffers-left-behind"]
    with pytest.warns(tws.WarmStartWarning, match="buffers-left-behind") as heard:
        tws.apply_plan(plan)
    assert heard[0].filename == __file__


def test_where_warnings_are_errors_the_model_stays_as_it_was():
    model = _model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", tws.WarmStartWarning)
        with pytest.raises(tws.WarmStartWarning):
            tws.warm_start(model, {**SOURCE, "bn.weight": torch.full((2,), 5.0)})
    assert torch.equal(model["bn"].weight, torch.ones(2))


def test_a_start_that_takes_nothing_is_heard():
    settings = tws.WarmStartSettings({"x": torch.ones(2)}, on_missing="keep")
    (warning,) = _heard(nn.Linear(2, 2), settings)
    assert "Nothing is taken from the checkpoint: 2 variables" in str(warning.message)
    assert str(warning.message).endswith("[everything-kept]")


def test_what_is_as_it_should_be_is_not_heard():
    model = nn.Linear(2, 2)
    assert _heard(model, nn.Linear(2, 2).state_dict()) == []


def test_a_warm_start_is_one_line_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="torch_warmstart"):
        report = tws.warm_start(nn.Linear(2, 2), nn.Linear(2, 2).state_dict())
    (record,) = caplog.records
    assert record.name == "torch_warmstart"
    assert record.getMessage() == report.summary
    assert record.getMessage() == (
        "Warm-started from <state_dict>: 2 variables: 2 copied; 0 keys of the checkpoint were not "
        "used"
    )


def test_what_is_true_of_many_tables_is_one_warning():
    model = nn.ModuleDict({f"t{at}": nn.Embedding(20, 2) for at in range(26)})
    old = {f"t{at}.weight": torch.ones(20, 2) for at in range(26)}
    rest = [f"n{at}" for at in range(19)], [f"o{at}" for at in range(19)]
    info = tws.VocabInfo(["a", *rest[0]], -1, 0, ["a", *rest[1]])
    settings = tws.WarmStartSettings(old, var_name_to_vocab_info=dict.fromkeys(old, info))
    with pytest.warns(tws.WarmStartWarning) as caught:
        tws.warm_start(model, settings)
    (only,) = caught
    assert "t0.weight: 1 of 20 new entries" in str(only.message)
    assert "The same of 25 others: t{1...25}.weight. [few-entries-found]" in str(only.message)
