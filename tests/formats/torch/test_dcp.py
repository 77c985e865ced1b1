"""Directories of torch.distributed.checkpoint: torch's own, cut up, damaged, malicious."""

from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from remote_files import Requests, remote, requests, upload
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
    UnsupportedError,
    WarmStartError,
)

__all__ = ["remote", "requests"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")

STATE = {
    "layer.weight": torch.arange(12.0).reshape(4, 3),
    "layer.bias": torch.rand(3).to(torch.bfloat16),
    "bytes": torch.arange(5).to(torch.uint8),
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 3),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "step-7"


def save(contents: dict[str, Any], folder: Path) -> Path:
    dcp.save(contents, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


class Writer:
    """Writes tensors in parts, as several processes do."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.metadata = Metadata({}, planner_data={}, storage_data={})

    def add(self, key: str, tensor: torch.Tensor, *boxes: tuple[Any, Any], **lies: Any) -> None:
        """Adds a tensor, cut into boxes of offsets and sizes, each in a file of its own."""
        chunks = []
        for offsets, sizes in boxes:
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            index = tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))
            info = self._append(f"__{len(chunks)}_0.distcp", tensor[index].clone())
            self.metadata.storage_data[MetadataIndex(key, offsets)] = info
        properties = TensorProperties(dtype=lies.get("dtype", tensor.dtype))
        size = torch.Size(lies.get("size", tensor.shape))
        self.metadata.state_dict_metadata[key] = TensorStorageMetadata(properties, size, chunks)
        self.metadata.planner_data[key] = (key,)

    def _append(self, name: str, tensor: torch.Tensor) -> _StorageInfo:
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        with (self.folder / name).open("ab") as file:
            offset = file.tell()
            file.write(buffer.getvalue())
        return _StorageInfo(name, offset, len(buffer.getvalue()))

    def finish(self, **changes: Any) -> Path:
        for name, value in changes.items():
            setattr(self.metadata, name, value)
        (self.folder / ".metadata").write_bytes(pickle.dumps(self.metadata))
        return self.folder


GRID = [((0, 0), (2, 5)), ((2, 0), (4, 5)), ((0, 5), (2, 3)), ((2, 5), (4, 3))]
ROWS = [((0, 0), (2, 8)), ((2, 0), (3, 8)), ((5, 0), (1, 8))]
FULL = torch.arange(48.0).reshape(6, 8)


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

    message = r"several entries: 'model' \(5 tensors\), 'ema' \(1 tensor\).*entry='model'"
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


# ---- What would run code -----------------------------------------------------------------------


class Runs:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


@pytest.mark.parametrize("where", ["planner_data", "storage_meta", "version", "whole"])
def test_metadata_that_would_run_code_does_not(folder: Path, tmp_path: Path, where: str) -> None:
    ran = tmp_path / "ran"
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    if where == "whole":
        (folder / ".metadata").write_bytes(pickle.dumps(Runs(ran)))
    else:
        writer.finish(**{where: {"w": Runs(ran)}})

    message = r"/\.metadata: it asks for _?io\.open, which torch\.distributed\.checkpoint does not"
    with pytest.raises(UnsupportedError, match=message):
        tw.load_checkpoint(folder)
    assert not ran.exists()
    with (folder / ".metadata").open("rb") as file:
        pickle.load(file).__class__  # noqa: B018 - torch's way
    assert ran.exists()  # so the pickle was no dud


@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'touch RAN'\ntR.",
        b'cbuiltins\neval\n(S\'open("RAN", "w")\'\ntR.',
        b"(S'touch RAN'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch RAN'\no.",  # OBJ
        b"ctorch\nload\n(S'RAN'\ntR.",
        b"ctorch.serialization\nload\n(S'RAN'\ntR.",
        b"ctorch\nSize.__class__\n.",
        b"ctorch\nfloat32.__class__\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch RAN\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x8c\x06system\x86R.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pname\n.",
    ],
)
def test_no_way_of_a_pickle_leads_to_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    folder.mkdir()
    (folder / ".metadata").write_bytes(text)
    monkeypatch.chdir(folder)

    with pytest.raises((UnsupportedError, CorruptCheckpointError)):
        tw.load_checkpoint(folder)
    assert not (folder / "RAN").exists()


@pytest.mark.parametrize("end", [b"K\x01u.", b"K\x01s.", b"."], ids=["many", "one", "alone"])
def test_a_pickle_that_would_crash_python_does_not(folder: Path, end: bytes) -> None:
    folder.mkdir()
    deep = b")" + b"\x85" * 1_000_000  # a tuple of a tuple of a tuple
    mark = b"(" if end.endswith(b"u.") else b""
    (folder / ".metadata").write_bytes(b"\x80\x02}" + mark + deep + end)

    with pytest.raises(CorruptCheckpointError):
        tw.load_checkpoint(folder)


def test_a_pickle_cannot_change_what_the_next_one_finds(folder: Path) -> None:
    good = save(STATE, folder.with_name("good"))
    folder.mkdir()
    name = b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
    # BUILD on the class itself, with slots: setattr(Metadata, "__setstate__", Metadata)
    (folder / ".metadata").write_bytes(name + b"(N(S'__setstate__'\n" + name + b"dtb.")
    with pytest.raises(CorruptCheckpointError):
        tw.load_checkpoint(folder)

    assert torch.equal(tw.load_checkpoint(good).get_tensor("bytes"), STATE["bytes"])


def test_a_tensor_that_would_run_code_does_not(folder: Path, tmp_path: Path) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    buffer = io.BytesIO()
    torch.save({"w": Runs(tmp_path / "ran")}, buffer)
    (folder / "__1_0.distcp").write_bytes(buffer.getvalue())
    info = _StorageInfo("__1_0.distcp", 0, len(buffer.getvalue()))
    checkpoint = tw.load_checkpoint(writer.finish(storage_data={MetadataIndex("w", (0,)): info}))

    with pytest.raises(UnsupportedError, match=r"__1_0\.distcp\[w\] holds more than tensors"):
        checkpoint.get_tensor("w")
    assert not (tmp_path / "ran").exists()


def test_objects_are_never_unpickled(folder: Path, tmp_path: Path) -> None:
    save({"w": torch.ones(2), "x": Runs(tmp_path / "ran")}, folder)

    assert tw.load_checkpoint(folder).get_tensor("w").tolist() == [1, 1]
    assert list(tw.load_checkpoint(folder)) == ["w"]
    assert not (tmp_path / "ran").exists()


# ---- What is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "file:///etc/passwd", ""])
def test_a_file_outside_of_the_directory_is_refused(folder: Path, name: str) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    writer.finish(storage_data={MetadataIndex("w", (0,)): _StorageInfo(name, 0, 10)})

    with pytest.raises(CorruptCheckpointError, match="which is not in its directory"):
        tw.load_checkpoint(folder)


def test_a_missing_file_is_told(folder: Path) -> None:
    save(STATE, folder)
    (folder / "__0_0.distcp").unlink()

    message = r"__0_0\.distcp, which does not exist\. Copy all files of a checkpoint together"
    with pytest.raises(CorruptCheckpointError, match=message):
        tw.load_checkpoint(folder).get_tensor("bytes")


def test_a_file_cut_off_is_told(folder: Path) -> None:
    save(STATE, folder)
    path = folder / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-1000])
    checkpoint = tw.load_checkpoint(folder)

    checkpoint.prefetch(list(checkpoint))
    with pytest.raises(CorruptCheckpointError, match="ends before it does"):
        _ = [checkpoint.get_tensor(key) for key in checkpoint]


@pytest.mark.parametrize(
    ("boxes", "lies", "message"),
    [
        (ROWS[:2], {}, "its slices hold 40 elements of 48"),
        ([*ROWS[:2], ROWS[0]], {}, "its slices hold 56 elements of 48"),
        ([((0, 0), (3, 8)), ((2, 0), (3, 8))], {}, "its slices overlap in dimension 0 at 2"),
        ([((0, 0), (6, 8))], {"dtype": torch.float64}, "holds torch.float32 of shape"),
        ([((0, 0), (6, 8))], {"size": (6, 9)}, "its slices hold 48 elements of 54"),
    ],
)
def test_parts_that_do_not_fit_are_told(
    folder: Path, boxes: Any, lies: dict[str, Any], message: str
) -> None:
    writer = Writer(folder)
    writer.add("w", FULL, *boxes, **lies)
    checkpoint = tw.load_checkpoint(writer.finish())

    with pytest.raises(CorruptCheckpointError, match=f"tensor 'w' is damaged: .*{message}"):
        checkpoint.get_tensor("w")


def test_a_tensor_larger_than_its_files_takes_no_memory(folder: Path) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    huge = torch.Size([1 << 40])
    about = writer.metadata.state_dict_metadata["w"]
    about.size, about.chunks = huge, [ChunkStorageMetadata(torch.Size([0]), huge)]

    with pytest.raises(CorruptCheckpointError, match="its parts claim 4,398,046,511,104 bytes"):
        tw.load_checkpoint(writer.finish()).get_tensor("w")


def test_a_part_that_is_no_tensor_is_told(folder: Path) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    (folder / "__1_0.distcp").write_bytes(buffer.getvalue())
    info = _StorageInfo("__1_0.distcp", 0, len(buffer.getvalue()))
    writer.finish(storage_data={MetadataIndex("w", (0,)): info})

    with pytest.raises(CorruptCheckpointError, match=r"__1_0\.distcp holds a dict in its place"):
        tw.load_checkpoint(folder).get_tensor("w")


def test_transformed_tensors_are_not_read(folder: Path) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    info = next(iter(writer.metadata.storage_data.values()))
    info.transform_descriptors = ["stream.zstd"]

    with pytest.raises(UnsupportedError, match=r"'w' is stored transformed \(\['stream.zstd'\]\)"):
        tw.load_checkpoint(writer.finish())


def _chunk(offsets: Any, sizes: Any) -> list[ChunkStorageMetadata]:
    return [ChunkStorageMetadata(offsets, sizes)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_dict_metadata": None}, "it has no state_dict_metadata"),
        ({"state_dict_metadata": {3: BytesStorageMetadata()}}, "it has no state_dict_metadata"),
        ({"state_dict_metadata": {"w": 3}}, "'w' is neither a tensor nor an object"),
        ({"storage_data": None}, "it has no storage_data"),
        ({"storage_data": {3: 4}}, "a int stands where a MetadataIndex should"),
        ({"storage_data": {MetadataIndex("w", (0,)): 4}}, "a int stands where a _StorageInfo"),
        ({"storage_data": {MetadataIndex(3, (0,)): 4}}, "its storage_data has the key 3"),
        (
            {"storage_data": {MetadataIndex("w", (0,)): _StorageInfo("x", -1, 2)}},
            r"tensor 'w' is at \(-1, 2\) of a file",
        ),
        ({"storage_data": {}}, r"tensor 'w' has a chunk at \(0,\) that is in no file"),
        ({"planner_data": {"w": ("a", 1.5)}}, r"'w' has the path \('a', 1.5\)"),
        ({"planner_data": {"w": ("a",) * 99}}, "'w' has the path"),
    ],
)
def test_metadata_that_contradicts_itself_is_told(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    writer.finish(**changes)

    with pytest.raises(CorruptCheckpointError, match=rf"/\.metadata is damaged: {message}"):
        tw.load_checkpoint(folder)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"size": 3}, "3 is no shape"),
        ({"size": torch.Size([1 << 62, 4])}, "a tensor would have the shape"),
        ({"properties": None}, "tensor 'w' has no dtype"),
        ({"chunks": None}, "tensor 'w' has no chunks"),
        ({"chunks": _chunk(torch.Size([0]), torch.Size([1, 2]))}, r"a chunk of \(1, 2\) at \(0,\)"),
        ({"chunks": _chunk(torch.Size([0]), torch.Size([3]))}, "slice 0,3 lies outside a dimen"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_told(
    folder: Path, about: dict[str, Any], message: str
) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    for name, value in about.items():
        setattr(writer.metadata.state_dict_metadata["w"], name, value)
    writer.finish()

    with pytest.raises(CorruptCheckpointError, match=f"is damaged: .*{message}"):
        tw.load_checkpoint(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [(("a", "b"), "lies in what is no mapping"), (("a",), "is where something")],
)
def test_keys_that_collide_are_told(folder: Path, path: Any, message: str) -> None:
    writer = Writer(folder)
    writer.add("w", torch.ones(2), ((0,), (2,)))
    writer.add("v", torch.ones(2), ((0,), (2,)))
    writer.finish(planner_data={"w": ("a",), "v": path})

    with pytest.raises(CorruptCheckpointError, match=f"'v' {message}"):
        tw.load_checkpoint(folder)


@pytest.mark.parametrize("mask", [0x04, 0x81])
def test_a_flipped_byte_of_the_metadata_is_read_or_an_error_of_ours(
    folder: Path, mask: int
) -> None:
    state = {"w": STATE["layer.weight"], "s": STATE["scalar"]}
    save(state, folder)
    data = (folder / ".metadata").read_bytes()
    for at in range(mask % 2, len(data), 2):
        (folder / ".metadata").write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        try:
            checkpoint = tw.load_checkpoint(folder)
            for key in checkpoint:
                assert checkpoint.get_tensor(key).nbytes <= 48
        except WarmStartError:
            pass


def test_metadata_cut_off_anywhere_is_an_error_of_ours(folder: Path) -> None:
    save({"w": STATE["layer.weight"]}, folder)
    data = (folder / ".metadata").read_bytes()
    for length in range(0, len(data), 2):
        (folder / ".metadata").write_bytes(data[:length])
        with pytest.raises(CorruptCheckpointError, match="is not the metadata of torch.distrib"):
            tw.load_checkpoint(folder)


def test_metadata_that_is_gone_is_no_such_checkpoint(folder: Path) -> None:
    save(STATE, folder)
    shutil.move(folder / ".metadata", folder / "metadata")

    with pytest.raises(tw.CheckpointNotFoundError):
        tw.load_checkpoint(folder)
    with pytest.raises(tw.CheckpointNotFoundError):
        tw.load_checkpoint(folder, format="torch-distributed")
