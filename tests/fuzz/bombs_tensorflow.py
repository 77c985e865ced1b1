"""Hostile files of TensorFlow's formats, too large to keep."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import bundle_writer as bw
from bundle_writer import BundleEntry, DType

from fuzz.bomb import BIG, KIB, bomb, case_of
from fuzz.cases import Case

# ---- TensorFlow ------------------------------------------------------------------------------


def _index(records: Iterable[tuple[bytes, bytes]], data: bytes = b"", **options: int) -> Case:
    return _from_index(bw.write_table(records, **options), data)


def _from_index(index: bytes, data: bytes = b"") -> Case:
    files = {"m.index": index, "m.data-00000-of-00001": data}
    return case_of("tf-v2", "m", files)


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


@bomb
def equal_slices() -> Case:
    """A tensor lists one slice 60,000 times, whose own entry lists as many."""
    entry = _entry([], [b""] * 60_000)
    return _index([_HEADER, (bw.encode_tensor_name_slice(b"a", []), entry), (b"a", entry)])


@bomb
def empty_slices() -> Case:
    """60,000 empty slices, each with the same entry."""
    slices = [bw.slice_proto([(0, 0)])] * 60_000
    key = bw.encode_tensor_name_slice(b"a", [(0, 0)])
    return _index([_HEADER, (key, _entry([0])), (b"a", _entry([0], slices))])


@bomb
def scattered_slices() -> Case:
    """Slices listed so that each is in another block than the one before."""
    count = 10_000
    order = (half * count // 2 + at for at in range(count // 2) for half in (0, 1))
    parts = [bw.slice_proto([(at, 1)]) for at in order]
    keys = (bw.encode_tensor_name_slice(b"a", [(at, 1)]) for at in range(count))
    piece = _entry([1], place=bw.Place(0, 0, 4, 0))
    records = [_HEADER, *((key, piece) for key in keys), (b"a", _entry([count], parts))]
    return _index(records, bytes(4 * count), block_size=100 * KIB)


@bomb
def long_name_of_slices() -> Case:
    """A name of 100 KB, repeated in the key of each of 20,000 slices that are not there."""
    parts = [bw.slice_proto([(at, 1)]) for at in range(20_000)]
    name = b"\0" + b"n" * 100 * KIB
    return _index([_HEADER, (name, _entry([20_000], parts))])


@bomb
def block_over_and_over() -> Case:
    """An index that names one block of half a megabyte 60,000 times."""
    hollow = bytes(512 * KIB) + ((128 * KIB).to_bytes(4, "little"))
    first = bw.encode_block([_HEADER])
    return _from_index(_table_of_blocks([first, hollow], [0] + [1] * 60_000, packed=False))


@bomb
def packed_block_over_and_over() -> Case:
    """As before, of a block that also has to be unfolded."""
    hollow = bytes(8 << 20) + (2 << 20).to_bytes(4, "little")
    first = bw.encode_block([_HEADER])
    return _from_index(_table_of_blocks([first, hollow], [0] + [1] * 20_000, packed=True))


@bomb
def hollow_entries() -> Case:
    """A block of three-byte entries: no key, no value."""
    block = bytes(3 * 350_000) + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=False))


@bomb
def packed_entries() -> Case:
    """As before, packed twenty times smaller."""
    block = bytes(3 * 5_000_000) + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=True))


@bomb
def packed_keys() -> Case:
    """Keys of 60 bytes that each add one, in a block that packs well."""
    entries = b"\0\x3c\0" + b"k" * 60 + b"\x3b\1\0k" * 2_000_000
    block = entries + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=True))


@bomb
def growing_keys() -> Case:
    """Every key is the one before and a byte."""
    contents = b"".join(bw.varint(size) + b"\1\0k" for size in range(60_000))
    block = contents + bytes(4) + (1).to_bytes(4, "little")
    return _from_index(_table_of_blocks([block], [0], packed=False))


@bomb
def many_dimensions() -> Case:
    """A shape of 100,000 sizes, whose product has six million bits."""
    return _index([_HEADER, (b"a", _entry([BIG] * 100_000))])


@bomb
def many_strings() -> Case:
    """A million strings of no bytes."""
    entry = BundleEntry("words", DType.STRING, (1_000_000,), [b""] * 1_000_000)
    return _bundle([entry])


@bomb
def more_strings_than_bytes() -> Case:
    """2**62 strings in four bytes."""
    entry = BundleEntry("words", DType.STRING, (1,), [b""], shape_dims=[1 << 62])
    return _bundle([entry])


@bomb
def many_bad_consumers() -> Case:
    """A header that excludes 300,000 readers."""
    return _index([(b"", bw.header_proto(bad_consumers=range(2, 300_002)))])


@bomb
def many_tensors() -> Case:
    """30,000 tensors, and a name that none of them has."""
    place = bw.Place(0, 0, 4, 0)
    entry = _entry([1], place=place)
    return _index([_HEADER, *((b"t/%06d/x" % at, entry) for at in range(30_000))], bytes(4))


@bomb
def many_name_parts() -> Case:
    """Names made of nothing but separators and single letters."""
    entry = _entry([1], place=bw.Place(0, 0, 4, 0))
    name = b"/".join(b"%c.%c" % (97 + at % 26, 65 + at // 26 % 26) for at in range(30_000))
    return _index([_HEADER, *((b"%d/" % at + name, entry) for at in range(5))], bytes(4))


@bomb
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


@bomb
def deep_graph() -> Case:
    """Objects that hold each other, 30,000 deep."""
    nodes = (_child(at + 1, b"child") + _variable(b"v%d" % at, b"k%d" % at) for at in range(30_000))
    return _graph([*nodes, b""])


@bomb
def graph_of_diamonds() -> Case:
    """Each of 60 objects holds the next one twice: 2**60 paths."""
    nodes = (_child(at + 1, b"a") + _child(at + 1, b"b") for at in range(60))
    return _graph([*nodes, _variable(b"v", b"k")])


@bomb
def graph_of_one_name() -> Case:
    """40,000 variables of one name."""
    return _graph(_variable(b"v", b"k%d" % at) for at in range(40_000))


@bomb
def graph_of_slots() -> Case:
    """Slot variables that name objects that are not there."""
    slots = b"".join(
        bw.field_bytes(3, bw.field_varint(1, BIG) + bw.field_bytes(2, b"m") + bw.field_varint(3, 7))
        for _ in range(20_000)
    )
    return _graph([slots, b""])


@bomb
def state_of_backslashes() -> Case:
    """A state file with one string that never ends."""
    return _state(b'model_checkpoint_path: "' + b"\\" * 1_000_001 + b'"')


@bomb
def state_of_strings() -> Case:
    """A state file of 300,000 adjacent strings."""
    return _state(b"model_checkpoint_path: " + b'""' * 300_000)


@bomb
def state_of_space() -> Case:
    """A state file of comments and separators."""
    return _state(b"#\n;, " * 200_000)


def _state(text: bytes) -> Case:
    return case_of("tf-state", "", {"checkpoint": text})


@bomb
def v1_splat() -> Case:
    """One value that stands for a slice of 2**40."""
    return _v1([1 << 40], bw.field_bytes(5, struct.pack("<f", 1.0)))


@bomb
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
    return case_of("tf-v1", "model.ckpt", {"model.ckpt": bw.write_table(records)})
