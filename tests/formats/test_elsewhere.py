"""A relative path is seen from where the process was when the checkpoint was opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from every_format import WRITERS, tensors
from safetensors.torch import save_file

import torch_warmstart as tw


@pytest.mark.parametrize("name", WRITERS)
def test_the_process_may_go_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here" / "m").mkdir(parents=True)
    file = WRITERS[name](tmp_path / "here" / "m")
    monkeypatch.chdir(tmp_path / "here")
    alone = tw.load_checkpoint(f"m/{file}")
    values = {key: alone.get_tensor(key) for key in alone}
    checkpoint = tw.load_checkpoint(f"m/{file}")
    monkeypatch.chdir(tmp_path)
    assert all(torch.equal(checkpoint.get_tensor(key), values[key]) for key in values)


@pytest.mark.parametrize("name", ["tf-v2", "hf", "dcp", "safetensors"])
def test_between_plan_and_apply_other_files_of_the_same_names_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "m").mkdir(parents=True)
        file = WRITERS[name](tmp_path / folder / "m")
    other = {key: tensor + 1 for key, tensor in tensors().items()}
    for path in (tmp_path / "two" / "m").glob("*.safetensors"):
        save_file(other, path)
    for path in (tmp_path / "two" / "m").glob("*.d*"):
        path.write_bytes(bytes(path.stat().st_size))
    model = torch.nn.Module()
    model.part1 = torch.nn.Module()  # of no layer whose kernels TensorFlow lays out otherwise
    model.part1.weight = torch.nn.Parameter(torch.zeros(60, 8))
    monkeypatch.chdir(tmp_path / "one")
    plan = tw.plan_warm_start(model, f"m/{file}")
    monkeypatch.chdir(tmp_path / "two")
    tw.apply_plan(plan)
    assert torch.equal(model.part1.weight.detach(), tensors()["part1.weight"])


def test_a_file_in_a_directory_that_is_gone_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(tw.CheckpointNotFoundError):
        tw.load_checkpoint("m.safetensors")
    os.chdir(tmp_path)
