"""A value that cannot be is our error, from the line that says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


def info(**said: object) -> tws.VocabInfo:
    return tws.VocabInfo(["a"], old_vocab=["b"], **said)  # type: ignore[arg-type]


def settings(**said: object) -> tws.WarmStartSettings:
    return tws.WarmStartSettings("x", **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: info(forms=3),
        lambda: info(forms={"new": 3}),
        lambda: info(forms=[["casefold"]]),
        lambda: info(forms={"new": "upper"}),
        lambda: info(backup_initializer=np.ones(2)),
        lambda: info(backup_initializer=torch.ones(2)),
        lambda: info(backup_initializer=nn.init.normal_, generator=3),
        lambda: tws.ClipOrPad(backup_initializer=nn.init.normal_, generator="seed"),
        lambda: info(num_oov_buckets=10**20),
        lambda: tws.SegmentInfo({"a": 2**63}, {"a": 1}),
        lambda: settings(format=3),
        lambda: settings(verify="no"),
        lambda: settings(storage_options="token"),
        lambda: tws.NameRules({}, layouts=3),  # type: ignore[arg-type]
    ],
)
def test_it_is_our_error(make: Callable[[], object]) -> None:
    with pytest.raises(tws.SettingsError):
        make()


@pytest.mark.parametrize("forms", [None, "casefold", (), ["casefold", "wordpiece"], {"new": None}])
def test_forms_may_be_one_several_or_none(forms: object) -> None:
    assert len(info(forms=forms).forms_of("new")) <= 2


@pytest.mark.parametrize("value", [3, [], "x", [3]])
def test_what_are_no_settings_is_not_saved(value: object, tmp_path: Path) -> None:
    with pytest.raises(tws.SettingsError):
        tws.save_settings(tmp_path / "s.toml", value)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_arguments_of_functions_too(tmp_path: Path) -> None:
    import re

    model, source = nn.Linear(2, 2), {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    with pytest.raises(tws.SettingsError, match="process_group"):
        tws.warm_start(model, source, process_group="x")
    with pytest.raises(tws.SettingsError, match="by its name"):
        tws.change_vocabulary(model, {re.compile("w.*"): info()})  # type: ignore[dict-item]
    with pytest.raises(tws.SettingsError, match="Vocabulary.save: path must be a path"):
        tws.Vocabulary.load(["a"]).save(3)  # type: ignore[arg-type]
    with pytest.raises(tws.SettingsError, match="^ClipOrPad: axis"):
        tws.ClipOrPad("0")  # type: ignore[arg-type]
    with pytest.raises(tws.SettingsError, match="WarmStartSettings"):
        tws.convert(source, tmp_path / "m.pt", model=model, settings="x")


@pytest.mark.parametrize("url", ["zip://a::/nowhere.zip", "a\0b"])
def test_a_name_that_no_file_has(url: str) -> None:
    with pytest.raises(tws.VocabularyError):
        tws.Vocabulary.load(url)
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.load_checkpoint(url)
    assert tws.latest_checkpoint(url) is None


def test_numbers_of_numpy_are_taken_as_python_s() -> None:
    info = tws.VocabInfo(["a"], np.int64(1), np.int32(0), ["a"], min_found=np.float32(0.5))
    assert info == tws.VocabInfo(["a"], 1, 0, ["a"], min_found=0.5)
    assert type(info.new_vocab_size) is int
    segments = tws.SegmentInfo({"a": np.int64(2)}, {"a": np.int64(2)}, axis=np.int64(1))
    assert segments == tws.SegmentInfo({"a": 2}, {"a": 2})
    assert tws.ClipOrPad(axis=np.int64(1)) == tws.ClipOrPad(axis=1)
    with pytest.raises(tws.SettingsError, match="must be an int, not True"):
        tws.SegmentInfo({"a": np.bool_(True)}, {"a": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda many: tws.VocabInfo(["a"], backup_initializer=many),
        lambda many: tws.VocabInfo(["a"], min_found=many),
        lambda many: tws.ClipOrPad(axis=many),
        lambda many: tws.WarmStartSettings("x", var_name_to_vocab_info={"w": many}),
        lambda many: tws.WarmStartSettings("x", storage_options=[*many.items()]),
    ],
    ids=["initializer", "min_found", "axis", "info", "storage_options"],
)
def test_what_a_message_shows_of_a_value_is_short(make):
    with pytest.raises(tws.SettingsError) as refused:
        make({f"secret {number}": torch.ones(9) for number in range(300)})
    assert len(str(refused.value)) < 400
