"""Hostile files too large to keep: each is built when it is needed, and each was meant to hurt.

A file of a megabyte that takes a gigabyte or a minute hides from random damage, which works on
small files. Every builder here returns a case that must be read or refused within the limits; where
it reaches for a file that is not its own, nothing at all may be read.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import bundle_writer as bw
import numpy as np
from bundle_writer import BundleEntry, DType

from fuzz.cases import Case
from fuzz.seeds import VOCABULARY

_BIG = (1 << 63) - 1
_KIB = 1024

BOMBS: dict[str, Callable[[], Case]] = {}


def _bomb(builder: Callable[[], Case]) -> Callable[[], Case]:
    BOMBS[builder.__name__] = builder
    return builder


def _case(format: str, target: str, files: dict[str, bytes], *, refuse: bool = False) -> Case:
    """A case; with `refuse`, any tensor that can be read is one too many."""
    return Case(format, "bomb", target, files, same=None if refuse else frozenset())


# ---- TensorFlow ------------------------------------------------------------------------------


def _index(records: Iterable[tuple[bytes, bytes]], data: bytes = b"", **options: int) -> Case:
    return _from_index(bw.write_table(records, **options), data)


def _from_index(index: bytes, data: bytes = b"") -> Case:
    files = {"m.index": index, "m.data-00000-of-00001": data}
    return _case("tf-v2", "m", files)


def _entry(
    dims: Sequence[int], slices: Iterable[bytes] = (), place: bw.Place = bw.NOWHERE
) -> bytes:
    return bw.entry_proto(DType.FLOAT, bw.shape_proto(dims), place, slices)


def _table_of_blocks(blocks: Sequence[bytes], handles: Sequence[int], packed: bool) -> bytes:
    """A table whose index names block `handles[0]`, then `handles[1]`, ..."""
    out, places = bytearray(), []
    for block in (*blocks, bw.encode_block([])):
        sealed = bw.sealed_block(block, compression="snappy" if packed else "none")
        places.append((len(out), len(sealed) - 5))
        out += sealed
    entries = ((b"\xff" * 20, b"".join(map(bw.varint, places[at]))) for at in handles)
    index = bw.sealed_block(bw.encode_block(entries))
    place = (len(out), len(index) - 5)
    return bytes(out + index) + bw.footer(places[-1], place)


_HEADER = (b"", bw.header_proto())


@_bomb
def equal_slices() -> Case:
    """A tensor lists one slice 60,000 times, whose own entry lists as many."""
    entry = _entry([], [b""] * 60_000)
    return _index([_HEADER, (bw.encode_tensor_name_slice(b"a", []), entry), (b"a", entry)])


@_bomb
def empty_slices() -> Case:
    """60,000 empty slices, each with the same entry."""
    slices = [bw.slice_proto([(0, 0)])] * 60_000
    key = bw.encode_tensor_name_slice(b"a", [(0, 0)])
    return _index([_HEADER, (key, _entry([0])), (b"a", _entry([0], slices))])


@_bomb
def scattered_slices() -> Case:
    """Slices listed so that each is in another block than the one before."""
    count = 10_000
    order = (half * count // 2 + at for at in range(count // 2) for half in (0, 1))
    parts = [bw.slice_proto([(at, 1)]) for at in order]
    keys = (bw.encode_tensor_name_slice(b"a", [(at, 1)]) for at in range(count))
    piece = _entry([1], place=bw.Place(0, 0, 4, 0))
    records = [_HEADER, *((key, piece) for key in keys), (b"a", _entry([count], parts))]
    return _index(records, bytes(4 * count), block_size=100 * _KIB)


@_bomb
def long_name_of_slices() -> Case:
    """A name of 100 KB, repeated in the key of each of 20,000 slices that are not there."""
    parts = [bw.slice_proto([(at, 1)]) for at in range(20_000)]
    name = b"\0" + b"n" * 100 * _KIB
    return _index([_HEADER, (name, _entry([20_000], parts))])


@_bomb
def block_over_and_over() -> Case:
    """An index that names one block of half a megabyte 60,000 times."""
    hollow = bytes(512 * _KIB) + ((128 * _KIB).to_bytes(4, "little"))
    first = bw.encode_block([_HEADER])
    return _from_index(_table_of_blocks([first, hollow], [0] + [1] * 60_000, packed=False))


@_bomb
def packed_block_over_and_over() -> Case:
    """As before, of a block that also has to be unfolded."""
    hollow = bytes(8 << 20) + (2 << 20).to_bytes(4, "little")
    first = bw.encode_block([_HEADER])
    return _from_index(_table_of_blocks([first, hollow], [0] + [1] * 20_000, packed=True))


@_bomb
def hollow_entries() -> Case:
    """A block of three-byte entries: no key, no value."""
    block = bytes(3 * 350_000) + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=False))


@_bomb
def packed_entries() -> Case:
    """As before, packed twenty times smaller."""
    block = bytes(3 * 5_000_000) + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=True))


@_bomb
def packed_keys() -> Case:
    """Keys of 60 bytes that each add one, in a block that packs well."""
    entries = b"\0\x3c\0" + b"k" * 60 + b"\x3b\1\0k" * 2_000_000
    block = entries + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=True))


@_bomb
def growing_keys() -> Case:
    """Every key is the one before and a byte."""
    contents = b"".join(bw.varint(size) + b"\1\0k" for size in range(60_000))
    block = contents + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=False))


@_bomb
def many_dimensions() -> Case:
    """A shape of 100,000 sizes, whose product has six million bits."""
    return _index([_HEADER, (b"a", _entry([_BIG] * 100_000))])


@_bomb
def many_strings() -> Case:
    """A million strings of no bytes."""
    entry = BundleEntry("words", DType.STRING, (1_000_000,), [b""] * 1_000_000)
    return _bundle([entry])


@_bomb
def more_strings_than_bytes() -> Case:
    """2**62 strings in four bytes."""
    entry = BundleEntry("words", DType.STRING, (1,), [b""], shape_dims=[1 << 62])
    return _bundle([entry])


@_bomb
def many_bad_consumers() -> Case:
    """A header that excludes 300,000 readers."""
    return _index([(b"", bw.header_proto(bad_consumers=range(2, 300_002)))])


@_bomb
def many_tensors() -> Case:
    """30,000 tensors, and a name that none of them has."""
    place = bw.Place(0, 0, 4, 0)
    entry = _entry([1], place=place)
    return _index([_HEADER, *((b"t/%06d/x" % at, entry) for at in range(30_000))], bytes(4))


@_bomb
def many_name_parts() -> Case:
    """Names made of nothing but separators and single letters."""
    entry = _entry([1], place=bw.Place(0, 0, 4, 0))
    name = b"/".join(b"%c.%c" % (97 + at % 26, 65 + at // 26 % 26) for at in range(30_000))
    return _index([_HEADER, *((b"%d/" % at + name, entry) for at in range(5))], bytes(4))


@_bomb
def shared_bytes() -> Case:
    """Slices that are all made of the same bytes."""
    count, size = 200, 4_000
    parts = [bw.slice_proto([(at, 1), bw.FULL]) for at in range(count)]
    keys = sorted(bw.encode_tensor_name_slice(b"a", [(at, 1), bw.FULL]) for at in range(count))
    piece = _entry([1, size], place=bw.Place(0, 0, 4 * size, 0))
    records = [_HEADER, *((key, piece) for key in keys), (b"a", _entry([count, size], parts))]
    return _index(records, bytes(4 * size))


def _bundle(entries: Sequence[BundleEntry]) -> Case:
    records, shards = bw.build_bundle(entries)
    return _index(sorted(records.items()), shards[0])


def _graph(nodes: Iterable[bytes]) -> Case:
    graph = b"".join(bw.field_bytes(1, node) for node in nodes)
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    return _bundle([BundleEntry(key, DType.STRING, (), [graph])])


def _child(node: int, name: bytes) -> bytes:
    return bw.field_bytes(1, bw.field_varint(1, node, keep_zero=True) + bw.field_bytes(2, name))


def _variable(name: bytes, key: bytes) -> bytes:
    fields = bw.field_bytes(1, b"VARIABLE_VALUE") + bw.field_bytes(2, name)
    return bw.field_bytes(2, fields + bw.field_bytes(3, key))


@_bomb
def deep_graph() -> Case:
    """Objects that hold each other, 30,000 deep."""
    nodes = (_child(at + 1, b"child") + _variable(b"v%d" % at, b"k%d" % at) for at in range(30_000))
    return _graph([*nodes, b""])


@_bomb
def graph_of_diamonds() -> Case:
    """Each of 60 objects holds the next one twice: 2**60 paths."""
    nodes = (_child(at + 1, b"a") + _child(at + 1, b"b") for at in range(60))
    return _graph([*nodes, _variable(b"v", b"k")])


@_bomb
def graph_of_one_name() -> Case:
    """40,000 variables of one name."""
    return _graph(_variable(b"v", b"k%d" % at) for at in range(40_000))


@_bomb
def graph_of_slots() -> Case:
    """Slot variables that name objects that are not there."""
    slots = b"".join(
        bw.field_bytes(
            3, bw.field_varint(1, _BIG) + bw.field_bytes(2, b"m") + bw.field_varint(3, 7)
        )
        for _ in range(20_000)
    )
    return _graph([slots, b""])


@_bomb
def state_of_backslashes() -> Case:
    """A state file with one string that never ends."""
    return _state(b'model_checkpoint_path: "' + b"\\" * 1_000_001 + b'"')


@_bomb
def state_of_strings() -> Case:
    """A state file of 300,000 adjacent strings."""
    return _state(b"model_checkpoint_path: " + b'""' * 300_000)


@_bomb
def state_of_space() -> Case:
    """A state file of comments and separators."""
    return _state(b"#\n;, " * 200_000)


def _state(text: bytes) -> Case:
    return _case("tf-state", "", {"checkpoint": text})


@_bomb
def v1_splat() -> Case:
    """One value that stands for a slice of 2**40."""
    return _v1([1 << 40], bw.field_bytes(5, struct.pack("<f", 1.0)))


@_bomb
def v1_nothing() -> Case:
    """No value at all for as many."""
    return _v1([1 << 20, 1 << 20], b"")


def _v1(dims: Sequence[int], values: bytes) -> Case:
    box = bw.slice_proto([bw.FULL] * len(dims))
    head = bw.field_bytes(1, b"a") + bw.field_bytes(2, bw.shape_proto(dims))
    meta = head + bw.field_varint(3, DType.FLOAT) + bw.field_bytes(4, box)
    tensor = bw.field_varint(1, DType.FLOAT) + bw.field_bytes(2, bw.shape_proto(dims)) + values
    data = bw.field_bytes(1, b"a") + bw.field_bytes(2, box) + bw.field_bytes(3, tensor)
    key = bw.encode_tensor_name_slice(b"a", [bw.FULL] * len(dims))
    records = [(b"", bw.field_bytes(1, bw.field_bytes(1, meta))), (key, bw.field_bytes(2, data))]
    return _case("tf-v1", "model.ckpt", {"model.ckpt": bw.write_table(records)})


# ---- safetensors and Hugging Face ------------------------------------------------------------


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _one_safetensors(header: bytes, data: bytes = b"") -> Case:
    return _case("safetensors", "m.safetensors", {"m.safetensors": _safetensors(header, data)})


@_bomb
def deep_header() -> Case:
    """A header of 200,000 opened lists."""
    return _one_safetensors(b'{"a":' + b"[" * 200_000)


@_bomb
def huge_shape() -> Case:
    """Nothing, in a shape that no integer holds."""
    header = {"a": {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}}
    return _one_safetensors(json.dumps(header).encode())


@_bomb
def many_empty_tensors() -> Case:
    """20,000 tensors of nothing."""
    row = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return _one_safetensors(json.dumps({f"t{at}": row for at in range(20_000)}).encode())


@_bomb
def overlapping_tensors() -> Case:
    """2,000 tensors that are the same 100 KB."""
    row = {"dtype": "U8", "shape": [100 * _KIB], "data_offsets": [0, 100 * _KIB]}
    header = json.dumps({f"t{at}": row for at in range(2_000)}).encode()
    return _one_safetensors(header, bytes(100 * _KIB))


_SECRET = _safetensors(
    json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode(), bytes(4)
)


def _hf(name: str) -> Case:
    index = json.dumps({"metadata": {}, "weight_map": {"a": name}}).encode()
    files = {"in/model.safetensors.index.json": index, "secret.safetensors": _SECRET}
    return _case("hf", "in", files, refuse=True)


@_bomb
def shard_above() -> Case:
    """An index that names a file above its folder."""
    return _hf("../secret.safetensors")


@_bomb
def shard_with_backslash() -> Case:
    """The same, as Windows writes it."""
    return _hf("..\\secret.safetensors")


@_bomb
def shard_by_url() -> Case:
    """An index that names a file by a URL."""
    return _hf("file:///etc/hostname")


# ---- torch -----------------------------------------------------------------------------------


def _zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _torch_file(pickle: bytes, packing: int = zipfile.ZIP_STORED, **more: bytes) -> Case:
    members = {"m/data.pkl": pickle, "m/version": b"3\n", "m/byteorder": b"little", **more}
    return _case("torch", "m.pt", {"m.pt": _zipped(members, packing)})


def _tensor_pickle(size: str, stride: str, numel: str) -> bytes:
    """A state dict of one tensor on storage "0", in opcodes that can be read."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{numel}\ntQ"
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n({size}t({stride}tI00\n"
    text = f"}}S'a'\n{tensor}ccollections\nOrderedDict\n)RtRs."
    return b"\x80\x02" + text.encode()


@_bomb
def strides_of_zero() -> Case:
    """A tensor of 2**36 elements that are all the same one."""
    pickle = _tensor_pickle(f"I{1 << 36}\n", "I0\n", "1")
    return _torch_file(pickle, **{"m/data/0": bytes(4)})


@_bomb
def storage_that_lies() -> Case:
    """A storage of a gigabyte in four bytes."""
    pickle = _tensor_pickle(f"I{1 << 28}\n", "I1\n", str(1 << 28))
    return _torch_file(pickle, **{"m/data/0": bytes(4)})


@_bomb
def storage_of_its_neighbour() -> Case:
    """A storage that claims the bytes of what follows it in the file."""
    pickle = _tensor_pickle("I64\n", "I1\n", "64")
    case = _torch_file(pickle, **{"m/data/0": bytes(4), "m/data/1": b"secret" * 100})
    return Case(case.format, case.seed, case.target, case.files, same=None)


@_bomb
def pickle_that_allocates() -> Case:
    """`bytearray(10**9)`."""
    return _torch_file(b"\x80\x02}S'a'\ncbuiltins\nbytearray\n(I1000000000\ntRs.")


@_bomb
def pickle_of_doubles() -> Case:
    """A list that holds the one before it twice, forty times over."""
    return _torch_file(b"\x80\x02](]" + b"\x85q\x00h\x00\x86" * 40 + b"0].")


@_bomb
def deep_pickle() -> Case:
    """Lists in lists, 200,000 deep."""
    return _torch_file(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")


@_bomb
def packed_pickle() -> Case:
    """A pickle of 80 MB in 80 KB."""
    return _torch_file(b"\x80\x02" + b"]0" * (40 << 20) + b"}.", zipfile.ZIP_DEFLATED)


@_bomb
def code_in_pickle() -> Case:
    """`os.system`, in the old format."""
    pickle = b"\x80\x02cos\nsystem\n(S'true'\ntR."
    return _case("torch-legacy", "m.pt", {"m.pt": pickle}, refuse=True)


# ---- numpy, Keras, text ----------------------------------------------------------------------


def _npy(header: str, data: bytes = b"") -> bytes:
    encoded = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(encoded).to_bytes(2, "little") + encoded + data


@_bomb
def npy_that_lies() -> Case:
    """A terabyte, it says."""
    array = _npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 38},), }}", bytes(64))
    return _case("npy", "a.npy", {"a.npy": array})


@_bomb
def npy_of_objects() -> Case:
    """An array of objects, which is a pickle that runs code."""
    array = _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n.")
    return _case("npy", "a.npy", {"a.npy": array}, refuse=True)


@_bomb
def packed_npz() -> Case:
    """100 MB of zeros in 100 KB."""
    size = 25_000_000
    array = _npy(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}", bytes(4 * size)
    )
    return _case("npz", "a.npz", {"a.npz": _zipped({"a.npy": array}, zipfile.ZIP_DEFLATED)})


def _h5(fill: Callable[[object], None], *, refuse: bool = False) -> Case:
    import h5py

    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.weights.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return _case("keras", "m.weights.h5", {"m.weights.h5": path.read_bytes()}, refuse=refuse)


@_bomb
def h5_of_nothing() -> Case:
    """A terabyte of which no byte was ever written."""
    return _h5(lambda file: file.create_dataset("layers/a/vars/0", (1 << 38,), "<f4", chunks=True))


@_bomb
def h5_packed() -> Case:
    """100 MB of zeros, compressed."""
    zeros = np.zeros(25_000_000, "<f4")
    return _h5(
        lambda file: file.create_dataset(
            "layers/a/vars/0", data=zeros, chunks=(1 << 20,), compression="gzip"
        )
    )


@_bomb
def h5_external_data() -> Case:
    """A dataset whose bytes are in another file."""
    return _h5(
        lambda file: file.create_dataset(
            "layers/a/vars/0", (16,), "u1", external=[("/proc/self/status", 0, 16)]
        ),
        refuse=True,
    )


@_bomb
def h5_virtual_data() -> Case:
    """A dataset put together from another file."""

    def fill(file: object) -> None:
        import h5py

        layout = h5py.VirtualLayout((4,), "<f4")
        layout[:] = h5py.VirtualSource("../secret.h5", "a", (4,))
        file.create_virtual_dataset("layers/a/vars/0", layout)  # type: ignore[attr-defined]

    return _h5(fill, refuse=True)


@_bomb
def h5_external_link() -> Case:
    """A group that is in another file."""

    def fill(file: object) -> None:
        import h5py

        file["layers"] = h5py.ExternalLink("../secret.h5", "layers")  # type: ignore[index]

    return _h5(fill, refuse=True)


@_bomb
def h5_loop() -> Case:
    """Groups that hold each other."""

    def fill(file: object) -> None:
        group = file.create_group("layers/a/vars")  # type: ignore[attr-defined]
        group["up"] = file["layers"]  # type: ignore[index]
        group["0"] = np.zeros(3, "<f4")

    return _h5(fill)


@_bomb
def h5_diamonds() -> Case:
    """Each of 40 groups holds the next one twice."""

    def fill(file: object) -> None:
        group = file["/"]  # type: ignore[index]
        for _ in range(40):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["0"] = np.zeros(3, "<f4")

    return _h5(fill)


@_bomb
def word2vec_that_lies() -> Case:
    """A header of 2**40 words of 2**20 numbers."""
    return _text("v.bin", b"%d %d\nthe " % (1 << 40, 1 << 20) + bytes(4000))


@_bomb
def text_header_that_lies() -> Case:
    """The same, in text."""
    return _text("v.vec", b"%d %d\nthe 1 2 3\n" % (1 << 40, 1 << 20))


@_bomb
def one_long_line() -> Case:
    """A line of 300,000 numbers."""
    return _text("v.txt", b"the" + b" 1" * 300_000 + b"\nof 1\n")


@_bomb
def many_short_lines() -> Case:
    """Half a million words of one number."""
    return _text("v.txt", b"a 1\n" * 250_000)


def _text(name: str, data: bytes) -> Case:
    return _case("text", name, {name: data})


# ---- Vocabularies ----------------------------------------------------------------------------


@_bomb
def vocabulary_of_one_line() -> Case:
    """An entry of a megabyte."""
    return _case(VOCABULARY, "v.txt", {"v.txt": b"a" * (1 << 20)})


@_bomb
def vocabulary_of_newlines() -> Case:
    """A million blank lines."""
    return _case(VOCABULARY, "v.txt", {"v.txt": b"\n" * (1 << 20)})


@_bomb
def vocabulary_of_returns() -> Case:
    """A million carriage returns."""
    return _case(VOCABULARY, "v.txt", {"v.txt": b"a\r\n\r" * (1 << 18)})
