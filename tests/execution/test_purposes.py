"""Plans, reports, checks and the log say what they are of: a warm start or a vocabulary change."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

INFO = tws.VocabInfo(["a", "new", "b"], old_vocab=["a", "b"])


def test_a_vocabulary_change_is_called_one(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Embedding(2, 3))
    copy = {"0.weight": torch.zeros(2, 3)}
    with caplog.at_level(logging.INFO, "torch_warmstart"):
        report = tws.change_vocabulary(model, {"0.weight": INFO}, ema=copy)
    head = "Changed the vocabulary of <Sequential>"
    assert [one.message for one in caplog.records] == [report.summary]
    assert report.summary == (
        f"{head}: 1 variable: 1 remapped; 3 remapped rows: 2 copied, 1 initialised"
    )
    assert str(report).splitlines()[0].startswith(f"{head} in ")
    assert "arm start" not in f"{report}{report.summary}"
    assert report.to_dict()["purpose"] == "vocabulary change"
    with pytest.raises(tws.WarmStartError, match="^The vocabulary change of <Sequential> was"):
        report.check(min_found=1.0)


def test_nothing_is_logged_of_a_vocabulary_that_was_not_changed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_warmstart.execution.exchanging import exchange

    def refuse(self: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(exchange._Switch, "run", refuse)
    model = nn.Sequential(nn.Embedding(2, 3))
    with caplog.at_level(logging.INFO, "torch_warmstart"), pytest.raises(tws.WarmStartError):
        tws.change_vocabulary(model, {"0.weight": INFO})
    assert not caplog.records
    assert model[0].weight.shape == (2, 3)


def test_a_warm_start_is_called_one() -> None:
    model = nn.Sequential(nn.Embedding(3, 3))
    settings = tws.WarmStartSettings(
        {"0.weight": torch.zeros(2, 3)}, var_name_to_vocab_info={"0.weight": INFO}
    )
    plan = tws.plan_warm_start(model, settings)
    assert str(plan).startswith("Warm start from <state_dict> ")
    assert plan.to_dict()["purpose"] == "warm start"
    report = tws.apply_plan(plan)
    assert report.summary.endswith("; 0 keys of the checkpoint were not used")
    with pytest.raises(tws.WarmStartError, match="^The warm start from <state_dict> was"):
        report.check(min_found=1.0)


@pytest.mark.parametrize(
    "limit", ["0.5", [1], None, 2, -0.1, True, np.bool_(True), np.float64("nan")]
)
def test_what_is_no_part_is_no_min_found(limit: object) -> None:
    model = nn.Sequential(nn.Embedding(2, 3))
    report = tws.change_vocabulary(model, {"0.weight": INFO})
    with pytest.raises(tws.SettingsError, match="min_found is a part"):
        report.check(min_found=limit)
    with pytest.raises(tws.SettingsError, match="max_kept a count"):
        report.check(max_kept="3")
    with pytest.raises(tws.SettingsError, match="max_kept a count, not 0.0 and True"):
        report.check(max_kept=True)


def test_numbers_of_numpy_are_limits() -> None:
    model = nn.Sequential(nn.Embedding(2, 3))
    report = tws.change_vocabulary(model, {"0.weight": INFO})
    assert report.check(min_found=np.float32(0), max_kept=np.int64(3)) is report


def test_a_new_row_for_no_input_is_no_entry_that_should_have_been_found() -> None:
    model = nn.Embedding(4, 3)
    info = tws.VocabInfo(["", "[UNK]", "a", "b"], old_vocab=["a", "b"], min_found=1.0)
    settings = tws.WarmStartSettings({"weight": torch.ones(2, 3)}, ".*", {"weight": info})
    report = tws.warm_start(model, settings).check(min_found=1.0)
    rows = report["weight"].rows
    assert (rows.entries, rows.copied, rows.vacant, rows.oov_initialised) == (2, 2, 1, 1)
    assert model.weight.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    without = dataclasses.replace(info, new_vocab=["", "[UNK]", "a", "c"])
    settings = dataclasses.replace(settings, var_name_to_vocab_info={"weight": without})
    with pytest.raises(tws.PlanError, match=r"1 of 2 new entries \(50.0%\)"):
        tws.plan_warm_start(model, settings)


def test_a_row_for_no_input_counts_as_no_entry_where_it_is_copied_either() -> None:
    info = tws.VocabInfo(["", "[UNK]", "a", "b"], old_vocab=["", "[UNK]", "a", "c"], min_found=0.5)
    settings = tws.WarmStartSettings({"weight": torch.ones(4, 3)}, ".*", {"weight": info})
    report = tws.warm_start(nn.Embedding(4, 3), settings).check(min_found=0.5)
    rows = report["weight"].rows
    assert (rows.entries, rows.entries_found, rows.copied, rows.vacant) == (2, 1, 2, 0)
    assert (rows.oov_copied, rows.initialised, rows.dropped, rows.vacant_copied) == (1, 1, 1, 1)
    with pytest.raises(tws.WarmStartError, match=r"1 of 2 new entries \(50.0%\)"):
        report.check(min_found=0.6)


def test_what_keras_puts_in_front_hides_no_vocabulary_of_which_nothing_is_found() -> None:
    front, old = ["", "[UNK]"], {"weight": torch.ones(5, 3)}
    info = tws.VocabInfo([*front, "a", "b", "c"], old_vocab=[*front, "A", "B", "C"])
    settings = tws.WarmStartSettings(old, ".*", {"weight": info})
    with pytest.raises(tws.PlanError, match="None of the 3 entries .* if case were ignored"):
        tws.plan_warm_start(nn.Embedding(5, 3), settings)
    other = dataclasses.replace(info, old_vocab=[*front, "x", "y", "z"])
    settings = dataclasses.replace(settings, var_name_to_vocab_info={"weight": other})
    plan = tws.plan_warm_start(nn.Embedding(5, 3), settings)
    assert [note.code for note in plan.notes] == ["few-entries-found"]


def test_a_row_for_no_input_of_an_older_checkpoint_is_no_entry_that_is_back() -> None:
    older = {"weight": torch.full((4, 3), 2.0)}, ["", "[UNK]", "b", "q"]
    new = ["", "[UNK]", "a", "b", "c"]
    info = tws.VocabInfo(new, old_vocab=["a", "x"], fallback=[older])
    settings = tws.WarmStartSettings({"weight": torch.ones(2, 3)}, ".*", {"weight": info})
    model = nn.Embedding(5, 3)
    rows = tws.warm_start(model, settings)["weight"].rows
    assert model.weight[:, 0].tolist() == [2.0, 0.0, 1.0, 2.0, 0.0]
    assert (rows.copied, rows.returned, rows.initialised, rows.vacant) == (1, 2, 1, 0)
    assert (rows.entries, rows.entries_found) == (3, 2)


@pytest.mark.parametrize("other", ["bos_token", "eos_token", "unk_token"])
def test_a_row_that_is_for_padding_too_stays_the_other_tokens(other) -> None:
    """And the new token for padding begins as a new row, which a note says."""
    listed = tws.Vocabulary.load(["<x>", "a"])
    old = dataclasses.replace(listed, special={other: range(1), "pad_token": range(1)})
    listed = tws.Vocabulary.load(["a", "<y>", "<pad>"])
    new = dataclasses.replace(listed, special={other: range(1, 2), "pad_token": range(2, 3)})
    info = tws.VocabInfo(new, old_vocab=old)
    settings = tws.WarmStartSettings({"weight": torch.ones(2, 3)}, ".*", {"weight": info})
    model = nn.Embedding(3, 3)
    report = tws.warm_start(model, settings)
    assert model.weight[:, 0].tolist() == [1.0, 1.0, 0.0]
    (note,) = report.notes
    assert (note.code, note.severity) == ("purpose-shared", "note")
    assert "row 2 (pad_token) begins as a new one" in note.text
    shared = dataclasses.replace(new, special={other: range(1, 2), "pad_token": range(1, 2)})
    again = dataclasses.replace(info, new_vocab=shared)
    settings = dataclasses.replace(settings, var_name_to_vocab_info={"weight": again})
    assert tws.warm_start(model, settings).notes == ()


def test_of_no_entry_at_all_none_is_missing() -> None:
    front = ["", "[UNK]"]
    info = tws.VocabInfo(front, old_vocab=[*front, "a"], min_found=1.0)
    settings = tws.WarmStartSettings({"weight": torch.ones(3, 3)}, ".*", {"weight": info})
    report = tws.warm_start(nn.Embedding(2, 3), settings).check(min_found=1.0)
    assert report["weight"].rows.entries == 0
