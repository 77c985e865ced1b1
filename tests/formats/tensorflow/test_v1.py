"""TensorFlow V1 checkpoints written by hand: what is read, and how they are opened."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import FULL, DType, write_bundle
from formats_helpers import float_entry, raw
from torch import nn
from v1_helpers import VALUES, in_rows
from v1_writer import V1Slice, V1Tensor, tensor_proto, whole, write_v1

import torch_warmstart as tw
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
)
from torch_warmstart.formats.base import TensorLocation

# ---- What is in a file -----------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "a field an element"])
@pytest.mark.parametrize(
    ("dtype", "stored", "expected"), VALUES, ids=lambda v: getattr(v, "name", "")
)
def test_every_type_is_read(
    tmp_path: Path, dtype: DType, stored: list[float], expected: torch.Tensor, packed: bool
) -> None:
    proto = tensor_proto(dtype, stored, packed=packed)
    tensor = V1Tensor("x", dtype, [len(expected)], [V1Slice([FULL], proto)])
    write_v1(tmp_path / "model", [tensor])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    value = checkpoint.get_tensor("x")
    assert value.dtype == expected.dtype == checkpoint.spec("x").dtype
    assert raw(value) == raw(expected)
    assert raw(checkpoint.get_tensor("x", torch.tensor([len(expected) - 1, 0]))) == raw(
        expected.view(torch.uint8).view(len(expected), -1)[[-1, 0]]
    )


def test_strings_are_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("s", DType.STRING, [2, 2], [b"a", b"", b"\xff", b"dd"])])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("s") == [b"a", b"", b"\xff", b"dd"]
    assert checkpoint.get_tensor("s", torch.tensor([1, 1])) == [b"\xff", b"dd"] * 2


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    tensors = [
        whole("scalar", DType.INT64, [], [7]),
        whole("empty", DType.FLOAT, [0, 3], []),
        whole("no ints", DType.INT32, [2, 0], []),
        whole("no strings", DType.STRING, [0], []),
    ]
    write_v1(tmp_path / "model", tensors)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("scalar").shape == ()
    assert checkpoint.get_tensor("scalar") == 7
    assert checkpoint.get_tensor("empty").shape == (0, 3)
    assert checkpoint.get_tensor("no ints", torch.tensor([1])).shape == (1, 0)
    assert checkpoint.get_tensor("no strings") == []


def test_varints_of_every_length_are_read_across_stretches(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 64, 150_000)
    numbers = (generator.integers(0, 2**63, 150_000) >> bits) * generator.choice([1, -1], 150_000)
    write_v1(tmp_path / "model", [whole("x", DType.INT64, [150_000], numbers.tolist())])

    value = tw.load_checkpoint(tmp_path / "model").get_tensor("x")

    assert np.array_equal(value.numpy(), numbers)


def test_a_file_says_what_it_is_and_what_is_in_it(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("b", DType.HALF, [2], [0, 0]), in_rows("a", 1, 2)])

    with tw.load_checkpoint(tmp_path / "model") as checkpoint:
        assert repr(checkpoint) == f"<TensorFlow V1 checkpoint '{tmp_path}/model', 2 tensors>"
        assert list(checkpoint) == ["a", "b"]
        assert checkpoint.family == "tensorflow"
        assert checkpoint.spec("b").stored_dtype == "half"
        assert checkpoint.location("a") == TensorLocation(("model",), 2)
        assert checkpoint.location("b") == TensorLocation(("model",))
        checkpoint.prefetch(["a", "b"])
        checkpoint.verify("a")


def test_a_file_without_version_record_is_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "export", [in_rows("x", 3)], versions=None)

    assert tw.load_checkpoint(tmp_path / "export").get_tensor("x").tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


def test_a_file_for_newer_readers_is_refused(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 3)], versions=b"\x08\x02\x10\x02")

    with pytest.raises(CorruptCheckpointError, match="asks for a reader of version 2"):
        tw.load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("block_size", [64, 262144])
def test_blocks_may_be_small_and_compressed(
    tmp_path: Path, compression: str, block_size: int
) -> None:
    tensors = [in_rows(f"layer/{n}", 1, 2) for n in range(40)]
    write_v1(tmp_path / "model", tensors, compression=compression, block_size=block_size)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert len(checkpoint) == 40
    assert all(
        checkpoint.get_tensor(key).tolist() == [[0, 1], [2, 3], [4, 5]] for key in checkpoint
    )


def test_a_tensor_outlives_its_checkpoint_and_can_be_written_to(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("x", DType.FLOAT, [400_000], [1.0] * 400_000)])
    before = (tmp_path / "model").read_bytes()

    with tw.load_checkpoint(tmp_path / "model") as checkpoint:
        value = checkpoint.get_tensor("x")
    value += 1

    assert value.sum() == 800_000
    assert (tmp_path / "model").read_bytes() == before


def test_a_large_float_tensor_is_not_copied_many_times(tmp_path: Path) -> None:
    size = 1_000_000
    write_v1(tmp_path / "model", [whole("x", DType.FLOAT, [size], [0.5] * size)])
    checkpoint = tw.load_checkpoint(tmp_path / "model")

    tracemalloc.start()
    checkpoint.get_tensor("x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1.5 * 4 * size


# ---- Slices and files ------------------------------------------------------------------------


def test_slices_are_joined(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 2, 1, 3)])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("x").flatten().tolist() == list(range(12))
    assert checkpoint.get_tensor("x", torch.tensor([5, 0, 2])).tolist() == [
        [10, 11],
        [0, 1],
        [4, 5],
    ]


@pytest.mark.parametrize(
    "dtype", [DType.HALF, DType.COMPLEX64, DType.STRING, DType.BOOL, DType.UINT16]
)
def test_slices_of_types_that_tensorflow_does_not_join_are_joined(
    tmp_path: Path, dtype: DType
) -> None:
    pieces: dict[int, tuple[list[Any], list[Any]]] = {
        DType.HALF: ([0x3C00, 0x4000], [0x4200, 0x4400]),
        DType.COMPLEX64: ([1, 0, 2, 0], [3, 0, 4, 0]),
        DType.STRING: ([b"1", b"2"], [b"3", b"4"]),
        DType.BOOL: ([1, 0], [0, 1]),
        DType.UINT16: ([1, 2], [3, 4]),
    }
    left, right = pieces[dtype]
    parts = [
        V1Slice([FULL, (1, 1)], tensor_proto(dtype, right)),
        V1Slice([FULL, (0, 1)], tensor_proto(dtype, left)),
    ]
    write_v1(tmp_path / "model", [V1Tensor("x", dtype, [2, 2], parts)])

    checkpoint = tw.load_checkpoint(tmp_path / "model")
    value, row = checkpoint.get_tensor("x"), checkpoint.get_tensor("x", torch.tensor([1]))

    if dtype == DType.STRING:
        assert value == [b"1", b"3", b"2", b"4"]
        assert row == [b"2", b"4"]
    elif dtype == DType.BOOL:
        assert value.tolist() == [[True, False], [False, True]]
        assert row.tolist() == [[False, True]]
    else:
        assert value.tolist() == [[1, 3], [2, 4]]
        assert row.tolist() == [[2, 4]]


@pytest.mark.parametrize(
    "spelling",
    [
        lambda p: p,
        lambda p: f"{p}-?????-of-00003",
        lambda p: f"{p}-00000-of-00003",
        lambda p: f"{p}-00002-of-00003",
        lambda p: p.parent,
        lambda p: p.parent / "checkpoint",
    ],
    ids=["prefix", "pattern", "first file", "last file", "directory", "state file"],
)
def test_every_way_to_name_a_sharded_checkpoint_finds_it(
    sharded: Path, spelling: Callable[[Path], str | Path]
) -> None:
    checkpoint = tw.load_checkpoint(spelling(sharded))

    assert checkpoint.url == f"{sharded}-?????-of-00003"
    assert checkpoint.get_tensor("x").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert checkpoint.get_tensor("y") == -5
    assert checkpoint.location("x") == TensorLocation(
        ("model-00000-of-00003", "model-00001-of-00003", "model-00002-of-00003"), 3
    )
    assert checkpoint.location("y") == TensorLocation(("model-00001-of-00003",))


def test_the_latest_sharded_checkpoint_is_its_pattern_as_in_tensorflow(sharded: Path) -> None:
    assert tw.latest_checkpoint(sharded.parent) == f"{sharded}-?????-of-00003"


def test_a_missing_file_of_a_sharded_checkpoint_is_told(sharded: Path) -> None:
    Path(f"{sharded}-00001-of-00003").unlink()

    for path in (sharded, f"{sharded}-00002-of-00003", sharded.parent):
        with pytest.raises(CorruptCheckpointError, match="model-00001-of-00003 does not exist"):
            tw.load_checkpoint(path)


def test_of_two_saves_in_different_numbers_of_files_the_complete_one_is_read(sharded: Path) -> None:
    write_v1(sharded, [in_rows("x", 4)], num_files=2)
    Path(f"{sharded}-00001-of-00002").unlink()

    assert tw.load_checkpoint(sharded).url == f"{sharded}-?????-of-00003"


def test_two_complete_saves_of_one_prefix_are_ambiguous(sharded: Path) -> None:
    write_v1(sharded, [in_rows("x", 4)], num_files=1)

    message = r"several checkpoints; pass one: '.*model-\?\?\?\?\?-of-00001', '.*-of-00003'\.$"
    with pytest.raises(CheckpointNotFoundError, match=message):
        tw.load_checkpoint(sharded)


def test_a_file_called_like_the_only_shard_is_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "export", [in_rows("x", 1)], num_files=1)

    assert tw.load_checkpoint(tmp_path / "export-00000-of-00001").get_tensor("x").tolist() == [
        [0, 1]
    ]


@pytest.mark.parametrize("name", ["", "/model", "/model-?????-of-00003", "/model-00001-of-00003"])
def test_a_sharded_checkpoint_is_read_from_a_remote_store(sharded: Path, name: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in sharded.parent.iterdir():
        memory.pipe(f"/v1/{file.name}", file.read_bytes())

    checkpoint = tw.load_checkpoint(f"memory://v1{name}")
    checkpoint.prefetch(["x", "y"])

    assert checkpoint.get_tensor("x").tolist() == [[0, 1], [2, 3], [4, 5]]


# ---- Paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.ckpt-5", "export", "checkpoint", "we[i]rd*?", "a.data"])
def test_any_file_name_is_read(tmp_path: Path, name: str) -> None:
    write_v1(tmp_path / name, [in_rows("x", 1)])

    assert tw.load_checkpoint(tmp_path / name).get_tensor("x").tolist() == [[0, 1]]


def test_a_state_file_may_name_a_v1_checkpoint(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 1)])
    (tmp_path / "model.meta").write_bytes(b"graph")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model"')

    for path in (tmp_path, tmp_path / "checkpoint", tmp_path / "model.meta"):
        assert tw.load_checkpoint(path).url == f"{tmp_path}/model"
    assert tw.latest_checkpoint(tmp_path) == f"{tmp_path}/model"


def test_v2_wins_over_v1_of_the_same_name(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 1)])
    write_v1(tmp_path / "model", [in_rows("x", 1)], num_files=1)
    write_bundle(tmp_path / "model", [float_entry("x", 5)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model"')

    for path in (tmp_path / "model", tmp_path, tmp_path / "checkpoint"):
        assert tw.load_checkpoint(path).spec("x").shape == (5,)


def test_v1_and_v2_may_share_a_directory(tmp_path: Path) -> None:
    write_v1(tmp_path / "model-1", [in_rows("x", 1)])
    write_bundle(tmp_path / "model-2", [float_entry("x", 5)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-2"')

    assert tw.load_checkpoint(tmp_path / "model-1").format == "TensorFlow V1 checkpoint"
    assert tw.load_checkpoint(tmp_path).format == "TensorFlow V2 checkpoint"


def test_a_state_file_that_names_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"no table")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model"')

    with pytest.raises(CheckpointNotFoundError, match="names 'model' as the latest checkpoint"):
        tw.load_checkpoint(tmp_path)


def test_the_index_of_a_v2_checkpoint_under_another_name_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model", [float_entry("x", 5)])
    (tmp_path / "model.index").rename(tmp_path / "export")

    message = (
        r"export is an SSTable, but .*: field 1 has wire type 0 instead of 2\. \(The index of a V2"
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        tw.load_checkpoint(tmp_path / "export")


# ---- Warm start ------------------------------------------------------------------------------


def test_a_model_warm_starts_from_v1_through_a_vocabulary_change(tmp_path: Path) -> None:
    tensors = [
        in_rows("words/embeddings", 2, 1),
        whole("out/kernel", DType.FLOAT, [2, 1], [10, 20]),
        whole("out/bias", DType.FLOAT, [1], [30]),
    ]
    write_v1(tmp_path / "model", tensors)
    (tmp_path / "old").write_text("cat\ndog\nowl\n")
    (tmp_path / "new").write_text("owl\ncat\n")
    model = nn.ModuleDict({"words": nn.Embedding(2, 2), "out": nn.Linear(2, 1)})

    settings = tw.WarmStartSettings(
        tmp_path / "model",
        var_name_to_vocab_info={
            "words.weight": tw.VocabInfo(str(tmp_path / "new"), -1, 0, str(tmp_path / "old"))
        },
    )
    tw.warm_start(model, settings)

    assert model["words"].weight.tolist() == [[4, 5], [0, 1]]
    assert model["out"].weight.tolist() == [[10, 20]]
    assert model["out"].bias.tolist() == [30]
