"""Hugging Face directories: one file, or shards and their index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_files import Requests, remote, requests, upload
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
    UnsupportedError,
    WarmStartError,
)

__all__ = ["remote", "requests"]  # fixtures

STATE = {
    "embed.weight": torch.arange(20.0).reshape(10, 2),
    "layer.weight": torch.rand(3, 2),
    "layer.bias": torch.rand(3).half(),
}
SHARDS = [["embed.weight"], ["layer.weight", "layer.bias"]]


def write_index(folder: Path, ending: str, weight_map: Any, **more: Any) -> Path:
    stem = "pytorch_model" if ending == "bin" else "model"
    path = folder / f"{stem}.{ending}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map, **more}))
    return path


def write_shards(folder: Path, ending: str) -> Path:
    stem = "pytorch_model" if ending == "bin" else "model"
    weight_map = {}
    for number, keys in enumerate(SHARDS, 1):
        name = f"{stem}-{number:05d}-of-{len(SHARDS):05d}.{ending}"
        shard = {key: STATE[key] for key in keys}
        if ending == "bin":
            torch.save(shard, folder / name)
        else:
            save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(keys, name))
    return write_index(folder, ending, weight_map)


def holds_everything(checkpoint: tw.Checkpoint) -> bool:
    return sorted(checkpoint) == sorted(STATE) and all(
        torch.equal(checkpoint.get_tensor(key), value)
        and torch.equal(checkpoint.get_tensor(key, torch.tensor([2, 0])), value[[2, 0]])
        and checkpoint.spec(key).shape == tuple(value.shape)
        for key, value in STATE.items()
    )


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("as_file", [False, True], ids=["directory", "index"])
def test_shards_are_one_checkpoint(tmp_path: Path, ending: str, as_file: bool) -> None:
    index = write_shards(tmp_path, ending)
    with tw.load_checkpoint(index if as_file else tmp_path) as checkpoint:
        assert holds_everything(checkpoint)
        assert checkpoint.family == "torch"
        assert checkpoint.location("layer.bias").files[0].endswith(f"-00002-of-00002.{ending}")
        checkpoint.verify("layer.bias")
        checkpoint.prefetch(list(checkpoint))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "adapter_model.bin"])
def test_a_directory_with_one_file_is_that_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    save = torch.save if name.endswith(".bin") else save_file
    save(STATE, tmp_path / name)  # type: ignore[operator]

    assert holds_everything(tw.load_checkpoint(tmp_path))


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    write_shards(tmp_path, "safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    write_index(tmp_path, "bin", {"other": "pytorch_model.bin"})
    assert holds_everything(tw.load_checkpoint(tmp_path))

    save_file({"one": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(tw.load_checkpoint(tmp_path)) == ["one"]


def test_a_model_is_warm_started_from_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, "safetensors")
    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(10, 2), "layer": torch.nn.Linear(2, 3)}
    )
    tw.warm_start(model, tmp_path)

    assert torch.equal(model["embed"].weight, STATE["embed.weight"])


def test_tied_tensors_of_a_shard_are_still_tied(tmp_path: Path) -> None:
    weight = torch.rand(2)
    torch.save({"a": weight, "b": weight, "c": weight.clone()}, tmp_path / "s.bin")
    write_index(tmp_path, "bin", dict.fromkeys("abc", "s.bin"))
    storages = {key: spec.storage for key, spec in tw.load_checkpoint(tmp_path).items()}

    assert storages["a"] == storages["b"] != storages["c"]


def test_only_the_shards_that_are_needed_are_opened(
    tmp_path: Path, remote: str, requests: Requests
) -> None:
    write_shards(tmp_path, "safetensors")
    checkpoint = tw.load_checkpoint(upload(tmp_path, remote))
    assert sorted(checkpoint) == sorted(STATE)
    assert requests.files == {"model.safetensors.index.json"}

    assert torch.equal(checkpoint.get_tensor("embed.weight"), STATE["embed.weight"])
    assert "model-00002-of-00002.safetensors" not in requests.files


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_behind_a_url_are_read(tmp_path: Path, remote: str, ending: str) -> None:
    index = write_shards(tmp_path, ending)
    upload(tmp_path, remote)

    assert holds_everything(tw.load_checkpoint(remote))
    assert holds_everything(tw.load_checkpoint(f"{remote}/{index.name}"))


# ---- What is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../model.bin", "/etc/passwd", "a/../../b", "memory://x/y", "..\\x", "", "a//b"],
)
def test_a_shard_outside_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    write_index(tmp_path, "safetensors", {"w": name})

    with pytest.raises(CorruptCheckpointError, match="which is not in its directory"):
        tw.load_checkpoint(tmp_path)


def test_a_shard_below_the_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    save_file(STATE, tmp_path / "shards" / "one.safetensors")
    write_index(tmp_path, "safetensors", dict.fromkeys(STATE, "shards/one.safetensors"))

    assert holds_everything(tw.load_checkpoint(tmp_path))


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, "safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    checkpoint = tw.load_checkpoint(tmp_path)

    assert checkpoint.spec("embed.weight").shape == (10, 2)
    message = r"model-00002-of-00002\.safetensors, which does not exist\. Copy all files of a"
    with pytest.raises(CorruptCheckpointError, match=message):
        checkpoint.get_tensor("layer.bias")


def test_a_tensor_missing_from_its_shard_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "s.safetensors")
    write_index(tmp_path, "safetensors", dict.fromkeys("ab", "s.safetensors"))
    checkpoint = tw.load_checkpoint(tmp_path)

    with pytest.raises(CorruptCheckpointError, match=r"'b' is in s\.safetensors, which does not"):
        checkpoint.spec("b")
    with pytest.raises(MissingTensorError, match="has no tensor 'c'"):
        checkpoint.spec("c")


def test_a_shard_that_is_a_pointer_of_git_lfs_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid")

    with pytest.raises(CorruptCheckpointError, match="a Git LFS pointer.*`git lfs pull`"):
        tw.load_checkpoint(tmp_path)


def test_a_shard_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    write_index(tmp_path, "bin", {"w": "x"})

    with pytest.raises(CorruptCheckpointError, match="x is neither a safetensors file nor a torch"):
        tw.load_checkpoint(tmp_path).spec("w")


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": [1]}',
        '{"weight_map": {"w": 3}}',
        '{"weight_map": ',
        '{"weight_map": ' * 9999,
    ],
    ids=["list", "number", "cut", "deep"],
)
def test_a_damaged_index_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)

    with pytest.raises(CorruptCheckpointError, match="is not JSON: |has no weight_map of tensor"):
        tw.load_checkpoint(tmp_path)
    with pytest.raises(CorruptCheckpointError):
        tw.load_checkpoint(tmp_path / "model.safetensors.index.json")


def test_an_index_of_any_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors.index.json").open("wb") as file:
        file.write(b'{"weight_map": {}')
        file.truncate(65 << 20)

    with pytest.raises(CorruptCheckpointError, match="too many for an index of shards"):
        tw.load_checkpoint(tmp_path)


def test_several_indexes_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_text('{"weight_map": {}}')

    message = r"holds a\.safetensors\.index\.json, b\.safetensors\.index\.json: pass the file"
    with pytest.raises(SettingsError, match=message):
        tw.load_checkpoint(tmp_path)


def test_a_directory_without_weights_is_no_such_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(CheckpointNotFoundError):
        tw.load_checkpoint(tmp_path)
    with pytest.raises(SettingsError, match="holds no weights: pass the file that is meant"):
        tw.load_checkpoint(tmp_path, format="hf")


def test_a_pickle_in_a_shard_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(ran), "w"))

    torch.save({"w": Runs()}, tmp_path / "s.bin")
    write_index(tmp_path, "bin", {"w": "s.bin"})

    with pytest.raises(UnsupportedError, match="loading that could run code"):
        tw.load_checkpoint(tmp_path).spec("w")
    assert not ran.exists()


def test_a_flipped_byte_of_an_index_is_read_or_an_error_of_ours(tmp_path: Path) -> None:
    index = write_shards(tmp_path, "safetensors")
    data = index.read_bytes()
    for at in range(0, len(data), 3):
        index.write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
        try:
            checkpoint = tw.load_checkpoint(tmp_path)
            for key in checkpoint:
                value = checkpoint.get_tensor(key)
                assert key not in STATE or torch.equal(value, STATE[key])
        except WarmStartError:
            pass


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_without_their_index_are_told(tmp_path: Path, ending: str) -> None:
    index = write_shards(tmp_path, ending)
    index.unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"2 files of one .*: copy {index.name}, too"):
        tw.load_checkpoint(tmp_path)
