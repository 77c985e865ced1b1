"""Small valid files of every format, which the fuzzer then breaks.

To add a format, write a maker (it fills a folder and returns the name to open) and give it a row in
`SEEDS`. A maker may raise `ImportError` where its writer is not installed.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import bundle_writer as bw
import monolith_writer
import numpy as np
import torch
from bundle_writer import BundleEntry, DType
from safetensors.torch import save_file

from fuzz.cases import Case, read_files

Maker = Callable[[Path], str]

_FIXTURES = Path(__file__).parents[1] / "fixtures"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


# ---- TensorFlow V2 ---------------------------------------------------------------------------


def _floats(*shape: int) -> bytes:
    return np.arange(np.prod(shape), dtype="<f4").tobytes()


def _entry(key: str, *shape: int, shard: int = 0) -> BundleEntry:
    return BundleEntry(key, DType.FLOAT, shape, _floats(*shape), shard=shard)


def _basic_entries() -> list[BundleEntry]:
    return [
        _entry("dense/kernel", 3, 4),
        _entry("dense/bias", 4),
        BundleEntry("global_step", DType.INT64, (), struct.pack("<q", 7)),
        BundleEntry("flags", DType.BOOL, (3,), b"\1\0\1"),
        BundleEntry("half", DType.BFLOAT16, (2, 2), bytes(range(8))),
        BundleEntry("small", DType.INT4, (5,), bytes(range(5))),
        BundleEntry("empty", DType.FLOAT, (0, 4), b""),
    ]


def _sliced_entry(key: str, shards: int) -> BundleEntry:
    """A table of 6 x 2 in three pieces of rows."""
    pieces = [
        bw.BundleSlice([(start, 2), bw.FULL], _floats(2, 2), shard=number % shards)
        for number, start in enumerate((0, 2, 4))
    ]
    return BundleEntry(key, DType.FLOAT, (6, 2), slices=pieces)


def _quartered_entry() -> BundleEntry:
    """A matrix cut in both dimensions."""
    extents = [[(row, 2), (column, 1)] for row in (0, 2) for column in (0, 1)]
    return BundleEntry(
        "quarters", DType.INT16, (4, 2), slices=[(box, b"\1\0\2\0") for box in extents]
    )


def _tf_plain(folder: Path) -> str:
    bw.write_bundle(folder / "model.ckpt", _basic_entries())
    return "model.ckpt"


def _tf_sliced(folder: Path) -> str:
    entries = [_sliced_entry("table", 1), _quartered_entry(), _entry("dense/bias", 4)]
    bw.write_bundle(folder / "model.ckpt", entries)
    return "model.ckpt"


def _tf_shards(folder: Path) -> str:
    entries = [_sliced_entry("table", 3), _entry("a", 2, 2, shard=1), _entry("b", 3, shard=2)]
    bw.write_bundle(folder / "model.ckpt", entries, num_shards=3)
    return "model.ckpt"


def _tf_big_endian(folder: Path) -> str:
    bw.write_bundle(folder / "model.ckpt", _basic_entries(), endianness="big")
    return "model.ckpt"


def _tf_snappy(folder: Path) -> str:
    entries = [_entry(f"layer_{number:02d}/kernel", 2, 2) for number in range(20)]
    bw.write_bundle(folder / "model.ckpt", entries, compression="snappy")
    return "model.ckpt"


def _tf_blocks(folder: Path) -> str:
    entries = [_entry(f"layer_{number:02d}/kernel", 2, 2) for number in range(20)]
    bw.write_bundle(folder / "model.ckpt", entries, block_size=120, restart_interval=2)
    return "model.ckpt"


def _tf_strings(folder: Path) -> str:
    entries = [
        BundleEntry("words", DType.STRING, (2, 2), [b"a", b"", b"long " * 40, b"\xff"]),
        BundleEntry("none", DType.STRING, (0, 3), []),
        _entry("dense/bias", 4),
    ]
    bw.write_bundle(folder / "model.ckpt", entries)
    return "model.ckpt"


def _object_graph(keys: Iterable[str]) -> bytes:
    """TrackableObjectGraph: a root with one child a variable, and a cycle back to the root."""
    attributes, children = [], b""
    for number, key in enumerate(keys, 1):
        child = bw.field_varint(1, number) + bw.field_bytes(2, key.encode())
        children += bw.field_bytes(1, child)
        attribute = (
            bw.field_bytes(1, b"VARIABLE_VALUE")
            + bw.field_bytes(2, f"full/{key}".encode())
            + bw.field_bytes(3, (key + _SUFFIX).encode())
        )
        back = bw.field_bytes(1, bw.field_varint(1, 0, keep_zero=True) + bw.field_bytes(2, b"up"))
        attributes.append(back + bw.field_bytes(2, attribute))
    return b"".join(bw.field_bytes(1, node) for node in (children, *attributes))


def _tf_graph(folder: Path) -> str:
    keys = ["kernel", "bias"]
    entries = [_entry(key + _SUFFIX, 2, 2) for key in keys]
    entries.append(BundleEntry(_GRAPH_KEY, DType.STRING, (), [_object_graph(keys)]))
    bw.write_bundle(folder / "ckpt-1", entries)
    return "ckpt-1"


def _tf_fixture(name: str, target: str) -> Maker:
    """A checkpoint that TensorFlow itself wrote."""

    def make(folder: Path) -> str:
        for path, data in read_files(_FIXTURES / name).items():
            if path.endswith(".json"):
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return target

    return make


def _tf_state(folder: Path) -> str:
    bw.write_bundle(folder / "model.ckpt-7", _basic_entries())
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-7"\n'
        'all_model_checkpoint_paths: "model.ckpt-3"\n'
        "all_model_checkpoint_paths: 'model.ckpt\\055\\x37'  # the same\n"
        "all_model_checkpoint_timestamps: 1.5e9\n"
    )
    return ""


# ---- TensorFlow V1 ---------------------------------------------------------------------------


def _v1_entries() -> dict[bytes, bytes]:
    """A table of 4 x 2 in two slices and a scalar, as SavedTensorSlices."""
    tensors = [("table", (4, 2), [(0, 2), (2, 2)]), ("step", (), [None])]
    metas, records = b"", {}
    for name, shape, cuts in tensors:
        boxes = [[] if cut is None else [cut, bw.FULL] for cut in cuts]
        slices = b"".join(bw.field_bytes(4, bw.slice_proto(box)) for box in boxes)
        head = bw.field_bytes(1, name.encode()) + bw.field_bytes(2, bw.shape_proto(shape))
        metas += bw.field_bytes(1, head + bw.field_varint(3, DType.FLOAT) + slices)
        for box in boxes:
            values = bw.field_bytes(5, _floats(*[extent[1] for extent in box[:1]], 2 if box else 1))
            tensor = bw.field_varint(1, DType.FLOAT) + values
            data = (
                bw.field_bytes(1, name.encode())
                + bw.field_bytes(2, bw.slice_proto(box))
                + bw.field_bytes(3, tensor)
            )
            records[bw.encode_tensor_name_slice(name, box)] = bw.field_bytes(2, data)
    versions = bw.field_bytes(2, bw.field_varint(1, 1))
    return {b"": bw.field_bytes(1, metas + versions), **records}


def _v1(folder: Path) -> str:
    (folder / "model.ckpt").write_bytes(bw.write_table(sorted(_v1_entries().items())))
    return "model.ckpt"


# ---- torch and what is made of it ------------------------------------------------------------


def _state() -> dict[str, torch.Tensor]:
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {
        "layer.weight": weight,
        "layer.transposed": weight.t(),
        "layer.bias": torch.arange(4, dtype=torch.bfloat16),
        "steps": torch.tensor(3),
        "empty": torch.empty(0, 4),
    }


def _torch_zip(folder: Path) -> str:
    torch.save(_state(), folder / "model.pt")
    return "model.pt"


def _torch_nested(folder: Path) -> str:
    torch.save({"state_dict": _state(), "epoch": 3, "optimizer": {"lr": 0.1}}, folder / "model.pt")
    return "model.pt"


def _torch_legacy(folder: Path) -> str:
    torch.save(_state(), folder / "model.pt", _use_new_zipfile_serialization=False)
    return "model.pt"


def _safetensors(folder: Path) -> str:
    state = {key: tensor.contiguous().clone() for key, tensor in _state().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return "model.safetensors"


def _hf_sharded(folder: Path) -> str:
    weight_map = {}
    state = [(key, tensor.contiguous().clone()) for key, tensor in _state().items()]
    for number, part in enumerate((state[:3], state[3:]), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        weight_map |= dict.fromkeys(dict(part), name)
    index = {"metadata": {"total_size": 200}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return ""


def _dcp(folder: Path) -> str:
    from torch.distributed import checkpoint

    checkpoint.save(_state(), checkpoint_id=folder / "step-1", no_dist=True)
    return "step-1"


# ---- Keras, numpy, text ----------------------------------------------------------------------


def _keras_h5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "model.weights.h5", "w") as file:
        for layer in ("dense", "out"):
            group = file.create_group(f"layers/{layer}/vars")
            group["0"] = np.arange(6, dtype="<f4").reshape(2, 3)
            group["1"] = np.zeros(3, dtype="<f4")
    return "model.weights.h5"


def _keras_v1_h5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.15.0"
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        group["dense/kernel:0"] = np.arange(6, dtype="<f4").reshape(2, 3)
        group["dense/bias:0"] = np.zeros(3, dtype="<f4")
    return "weights.h5"


def _keras_archive(folder: Path) -> str:
    import zipfile

    _keras_h5(folder)
    weights = folder / "model.weights.h5"
    config = {"class_name": "Sequential", "config": {"layers": []}}
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return "model.keras"


def _arrays() -> dict[str, np.ndarray]:
    matrix = np.arange(6, dtype="<f4").reshape(2, 3)
    return {"matrix": matrix, "fortran": np.asfortranarray(matrix), "big": matrix.astype(">f8")}


def _npz(folder: Path) -> str:
    np.savez(folder / "model.npz", **_arrays())
    return "model.npz"


def _npz_packed(folder: Path) -> str:
    np.savez_compressed(folder / "model.npz", **_arrays())
    return "model.npz"


def _npy(folder: Path) -> str:
    np.save(folder / "table.npy", _arrays()["matrix"])
    return "table.npy"


def _text_vectors(folder: Path) -> str:
    (folder / "vectors.txt").write_text("the 0.5 -1 2e-3\nof 1 2 3\n. 0.25 0 -0\n")
    return "vectors.txt"


def _word2vec_text(folder: Path) -> str:
    (folder / "vectors.vec").write_text("3 2\nthe 0.5 -1\nof 1 2\nand 3 4\n")
    return "vectors.vec"


def _word2vec_binary(folder: Path) -> str:
    out = io.BytesIO(b"2 3\n")
    out.seek(0, io.SEEK_END)
    for word in (b"the", b"of"):
        out.write(word + b" " + np.arange(3, dtype="<f4").tobytes() + b"\n")
    (folder / "vectors.bin").write_bytes(out.getvalue())
    return "vectors.bin"


# ---- Tables that keep their ids --------------------------------------------------------------

_IDS = (4, 7, 9, -3)


def _hugectr(folder: Path) -> str:
    (folder / "t").mkdir()
    (folder / "t" / "key").write_bytes(np.asarray(_IDS, "<i8").tobytes())
    (folder / "t" / "emb_vector").write_bytes(_floats(len(_IDS), 2))
    return "t"


def _dynamicemb(folder: Path) -> str:
    for rank in range(2):
        end, ids = (
            f"rank_{rank}.world_size_2",
            np.asarray([i for i in _IDS if i % 2 == rank], "<i8"),
        )
        (folder / f"t_emb_keys.{end}").write_bytes(ids.tobytes())
        (folder / f"t_emb_values.{end}").write_bytes(_floats(len(ids), 2))
        (folder / f"t_emb_opt_values.{end}").write_bytes(_floats(len(ids), 2))
        (folder / f"t_emb_scores.{end}").write_bytes(abs(ids).tobytes())
    return ""


def _entry_dumps() -> list[bytes]:
    dumps = [("adagrad", {1: [0.5, 0.25]})]
    return [monolith_writer.entry_dump(i, [i, -i], dumps, abs(i)) for i in _IDS]


def _monolith(folder: Path) -> str:
    monolith_writer.table(folder / "model.ckpt-3.assets", "t", _entry_dumps(), shards=2)
    return "model.ckpt-3.assets"


def _monolith_tables(folder: Path) -> str:
    both = {"one": _entry_dumps(), "other": _entry_dumps()[:2]}
    monolith_writer.tables(folder / "model.ckpt-3.assets", "multi", both)
    return "model.ckpt-3.assets"


# ---- Vocabularies ----------------------------------------------------------------------------


def _vocabulary(text: bytes) -> Maker:
    def make(folder: Path) -> str:
        (folder / "vocab.txt").write_bytes(text)
        return "vocab.txt"

    return make


# ---- The table -------------------------------------------------------------------------------

VOCABULARY = "vocabulary"  # the one format that is read with read_vocabulary()

SEEDS: dict[str, dict[str, Maker]] = {
    "tf-v2": {
        "plain": _tf_plain,
        "sliced": _tf_sliced,
        "shards": _tf_shards,
        "big-endian": _tf_big_endian,
        "snappy": _tf_snappy,
        "blocks": _tf_blocks,
        "strings": _tf_strings,
        "graph": _tf_graph,
        "real-dtypes": _tf_fixture("dtypes", "model.ckpt"),
        "real-slices": _tf_fixture("slices", "model.ckpt"),
        "real-graph": _tf_fixture("object_based", ""),
        "real-saved-model": _tf_fixture("saved_model", ""),
    },
    "tf-state": {"state": _tf_state},
    "tf-v1": {"sliced": _v1},
    "safetensors": {"plain": _safetensors},
    "torch": {"flat": _torch_zip, "nested": _torch_nested},
    "torch-legacy": {"flat": _torch_legacy},
    "hf": {"sharded": _hf_sharded},
    "dcp": {"folder": _dcp},
    "keras": {"h5": _keras_h5, "h5-old": _keras_v1_h5, "archive": _keras_archive},
    "npz": {"plain": _npz, "packed": _npz_packed},
    "npy": {"plain": _npy},
    "text": {"glove": _text_vectors, "word2vec": _word2vec_text, "binary": _word2vec_binary},
    "keyed": {
        "hugectr": _hugectr,
        "dynamicemb": _dynamicemb,
        "monolith": _monolith,
        "monolith-tables": _monolith_tables,
    },
    VOCABULARY: {
        "plain": _vocabulary(b"the\nof\nand\n"),
        "windows": _vocabulary(b"the\r\nof\r\n\xff\r\r\nlast"),
        "long": _vocabulary(b"".join(b"entry %d\n" % number for number in range(300))),
    },
}

# Which rows of the registry read a row above, where its name is not the registry's. A row whose
# reader is not there is left out.
_READERS = {
    "tf-state": ("tf-v2",),
    "hf": ("hf",),
    "dcp": ("torch-distributed",),
    "keras": ("keras",),
    "text": ("text-vectors",),
    "keyed": ("hugectr", "dynamicemb", "monolith"),
}


def available() -> list[str]:
    """The formats that can be fuzzed: those that the library reads."""
    from torch_warmstart.formats.registry import FORMATS

    known = {row.name for row in FORMATS}
    return [
        name for name in SEEDS if name == VOCABULARY or known & set(_READERS.get(name, (name,)))
    ]


@functools.cache
def make_seeds(format: str) -> tuple[Case, ...]:
    """The seeds of a format whose writers are installed."""
    seeds = []
    for name, maker in SEEDS[format].items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                target = maker(Path(folder))
            except ImportError:
                continue
            files = read_files(Path(folder))
        seeds.append(Case(format, name, target, files, same=None))
    return tuple(seeds)
