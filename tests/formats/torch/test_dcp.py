"""Directories of torch.distributed.checkpoint: what is read of torch's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from dcp_helpers import FULL, ROWS, STATE, Writer, save
from remote_files import Requests, remote, requests, upload

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


__all__ = ["remote", "requests"]  # fixtures


GRID = [((0, 0), (2, 5)), ((2, 0), (4, 5)), ((0, 5), (2, 3)), ((2, 5), (4, 3))]


# ---- What is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [False, True], ids=["directory", "metadata"])
def test_what_torch_saved_is_read(folder: Path, as_file: bool) -> None:
    save(STATE, folder)
    with tw.load_checkpoint(folder / ".metadata" if as_file else folder) as checkpoint:
        assert sorted(checkpoint) == sorted(STATE)
        assert (checkpoint.family, checkpoint.format) == ("torch", "torch.distributed checkpoint")
        for key, value in STATE.items():
            assert torch.equal(checkpoint.get_tensor(key), value)
            assert checkpoint.spec(key).shape == tuple(value.shape)
            assert checkpoint.spec(key).dtype == value.dtype
        assert checkpoint.get_tensor("layer.weight", torch.tensor([3, 0])).tolist() == [
            [9, 10, 11],
            [0, 1, 2],
        ]
        assert checkpoint.location("bytes") == checkpoint.location("scalar")
        assert checkpoint.location("bytes").files == ("__0_0.distcp",)
        with pytest.raises(MissingTensorError, match="Did you mean 'layer.weight'"):
            checkpoint.get_tensor("layer.weigth")


def test_a_model_is_warm_started(folder: Path) -> None:
    source, model = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    save({"model": source.state_dict()}, folder)
    tw.warm_start(model, folder)

    assert torch.equal(model.weight, source.weight)


def test_the_only_entry_with_tensors_is_taken(folder: Path) -> None:
    optimizer = {"state": {"layer.weight": {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}
    save({"model": STATE, "optimizer": optimizer, "epoch": 3}, folder)
    checkpoint = tw.load_checkpoint(folder)

    assert sorted(checkpoint) == sorted(STATE)
    assert checkpoint.format == "torch.distributed checkpoint, entry 'model'"
    assert torch.equal(checkpoint.get_tensor("bytes"), STATE["bytes"])


def test_several_entries_are_listed_and_one_can_be_asked_for(folder: Path) -> None:
    save({"model": STATE, "ema": {"a.b": torch.ones(2), "n": {"c": torch.zeros(1)}}}, folder)

    message = (
        r"several entries: 'model' \(5 tensors: .*\), 'ema' \(1 tensor: 'a.b'\).*entry='model'"
    )
    with pytest.raises(SettingsError, match=message):
        tw.load_checkpoint(folder)
    checkpoint = tw.load_checkpoint(folder, entry="ema")
    assert sorted(checkpoint) == ["a.b", "n.c"]
    assert checkpoint.get_tensor("a.b").tolist() == [1, 1]
    with pytest.raises(SettingsError, match="Did you mean 'model'"):
        tw.load_checkpoint(folder, entry="modle")


@pytest.mark.parametrize("boxes", [GRID, ROWS], ids=["grid", "rows"])
def test_a_tensor_in_parts_is_put_together_as_torch_does(folder: Path, boxes: Any) -> None:
    writer = Writer(folder)
    writer.add("w", FULL, *boxes)
    writer.add("half", FULL.to(torch.float8_e5m2), *boxes)
    writer.finish()
    checkpoint = tw.load_checkpoint(folder)
    theirs = {"w": torch.zeros(6, 8)}
    dcp.load(theirs, storage_reader=dcp.FileSystemReader(folder), no_dist=True)

    assert torch.equal(theirs["w"], FULL)
    assert torch.equal(checkpoint.get_tensor("w"), FULL)
    rows = torch.tensor([5, 0, 5, 2])
    assert torch.equal(checkpoint.get_tensor("w", rows), FULL[rows])
    half = checkpoint.get_tensor("half", rows)
    assert torch.equal(half.float(), FULL.to(torch.float8_e5m2).float()[rows])
    assert checkpoint.location("w").num_slices == len(boxes)
    assert checkpoint.location("w").files[0] == "__1_0.distcp"


def test_rows_need_only_the_files_that_hold_them(folder: Path) -> None:
    writer = Writer(folder)
    writer.add("w", FULL, *ROWS)
    writer.finish()
    whole = folder / "__2_0.distcp"
    whole.write_bytes(bytes(whole.stat().st_size))  # nobody can read it any more
    checkpoint = tw.load_checkpoint(folder)

    assert torch.equal(checkpoint.get_tensor("w", torch.tensor([5, 1])), FULL[[5, 1]])
    with pytest.raises(CorruptCheckpointError, match=r"__2_0\.distcp\[w\] cannot be read as a"):
        checkpoint.get_tensor("w", torch.tensor([2]))


def test_a_directory_behind_a_url_is_read(folder: Path, remote: str, requests: Requests) -> None:
    state = {"big": torch.rand(50_000, 4), "small": torch.rand(5)}
    checkpoint = tw.load_checkpoint(upload(save(state, folder), remote))
    assert requests.files == {".metadata"}

    assert torch.equal(checkpoint.get_tensor("small"), state["small"])
    assert requests.nbytes < 100_000
    checkpoint.prefetch(["big"])
    assert torch.equal(checkpoint.get_tensor("big", torch.tensor([9])), state["big"][[9]])


def test_a_tensor_without_elements_needs_no_part(folder: Path) -> None:
    writer = Writer(folder)
    writer.add("e", torch.empty(0, 3))
    writer.finish()

    assert tw.load_checkpoint(folder).get_tensor("e").shape == (0, 3)


def test_what_older_versions_wrote_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed._shard.sharded_tensor import metadata as before

    def reduce_as_some_pythons_do(self: Any, protocol: Any) -> Any:
        return getattr, (type(self), self.name)

    monkeypatch.setattr(before.MEM_FORMAT_ENCODING, "__reduce_ex__", reduce_as_some_pythons_do)
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    old = before.TensorProperties(dtype=torch.float32)
    writer.metadata.state_dict_metadata["w"].properties = old
    del writer.metadata.storage_meta, writer.metadata.version
    writer.finish(planner_data=None)
    assert b"getattr" in (folder / ".metadata").read_bytes()

    assert tw.load_checkpoint(folder).get_tensor("w").tolist() == [1, 1]


_TWO_PROCESSES = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, Replicate, distribute_tensor
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + folder + ".init", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
full = torch.arange(35.0).reshape(7, 5)
dcp.save({"model": {
    "rows": distribute_tensor(full, mesh, [Shard(0)]),
    "columns": distribute_tensor(full, mesh, [Shard(1)]),
    "copies": distribute_tensor(full, mesh, [Replicate()]),
    "plain": full,
}}, checkpoint_id=folder)
for _ in range(2):  # gloo's threads let go of tensors, for which they need Python
    dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo")
def test_what_two_processes_saved_is_read(folder: Path) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", _TWO_PROCESSES]
    processes = [subprocess.Popen([*arguments, str(rank), str(folder)]) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    checkpoint = tw.load_checkpoint(folder)
    full = torch.arange(35.0).reshape(7, 5)

    assert sorted(checkpoint) == ["columns", "copies", "plain", "rows"]
    for key in checkpoint:
        assert torch.equal(checkpoint.get_tensor(key), full)
        assert torch.equal(checkpoint.get_tensor(key, torch.tensor([6, 0])), full[[6, 0]])
    assert {key: checkpoint.location(key).num_slices for key in checkpoint} == {
        "columns": 2, "copies": 0, "plain": 0, "rows": 2}  # fmt: skip
