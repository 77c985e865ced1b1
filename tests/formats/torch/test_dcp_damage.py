"""Directories of torch.distributed.checkpoint that are cut up, damaged or malicious."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from dcp_helpers import FULL, ROWS, STATE, Writer, save
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
)

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    UnsupportedError,
    WarmStartError,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


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
