"""The `.metadata` file of torch.distributed.checkpoint, a pickle, read without running anything.

torch reads it with plain `pickle.load`, which runs whatever the file says. Here a pickle can name
only the classes that torch writes, and none of them is the real one: each name stands for a record
that does nothing but remember what it was given. So neither a class of torch, nor a function, nor a
distributed build of torch is involved. What a record was given is checked when it is looked at.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeGuard

import torch

from torch_warmstart.computing import Box
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError, WarmStartError
from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.slices import resolve_box
from torch_warmstart.values import frozen

_DCP = "torch.distributed.checkpoint"
_BEFORE_2_3 = "torch.distributed._shard.sharded_tensor.metadata"
_MAX_DEPTH = 64  # of shapes, as in torch, and of nested dicts
_ALLOWED = {
    *((f"{_DCP}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta")),
    *((f"{_DCP}.metadata", name) for name in ("TensorStorageMetadata", "ChunkStorageMetadata")),
    *((f"{_DCP}.metadata", name) for name in ("TensorProperties", "BytesStorageMetadata")),
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"),
    (f"{_DCP}.filesystem", "_StorageInfo"),
    *((_BEFORE_2_3, name) for name in ("TensorProperties", "MEM_FORMAT_ENCODING")),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("builtins", "getattr"),  # how Python 3.11 writes the member of an enum; here a mere record
    *(("pathlib", name) for name in ("PosixPath", "WindowsPath", "PurePosixPath", "Path")),
    *(("pathlib._local", name) for name in ("PosixPath", "WindowsPath")),  # Python 3.13's
}
# What torch's metadata has no use for, and could make Python reserve memory or look elsewhere.
_UNUSED_OPCODES = (
    pickle.BYTEARRAY8,
    pickle.DICT,
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
    pickle.FROZENSET,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
    pickle.INST,
    pickle.OBJ,
    pickle.PERSID,
    pickle.BINPERSID,
)


@frozen
class Chunk:
    """A piece of a tensor: which part, and where its bytes are."""

    box: Box
    file: str
    offset: int
    length: int


@frozen
class StoredTensor:
    """A tensor of the checkpoint."""

    key: str
    path: tuple[str, ...]  # of keys in the nested state_dict that was saved
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: tuple[Chunk, ...]


@frozen
class StoredObject:
    """Anything else: what `torch.save` makes of it, read where an optimizer's state needs it."""

    key: str
    path: tuple[str, ...]
    place: tuple[str, int, int] | None = None  # file, offset, length


def decode_metadata(data: bytes, url: str) -> list[StoredTensor | StoredObject]:
    """Everything a checkpoint holds.

    Raises:
        UnsupportedError: the pickle names something that torch does not write, or a tensor is
            stored in a way that is not read.
        CorruptCheckpointError: it is no such pickle, or contradicts itself.
    """
    try:
        metadata = _Unpickler(io.BytesIO(data)).load()
    except WarmStartError as error:
        raise type(error)(f"{url}: {error}") from error
    except Exception as error:  # damaged bytes make a pickle fail in any way
        raise CorruptCheckpointError(
            f"{url} is not the metadata of torch.distributed.checkpoint: "
            f"{type(error).__name__}: {error}."
        ) from error
    try:
        return _decode(metadata)
    except MalformedError as error:
        raise CorruptCheckpointError(f"{url} is damaged: {error}.") from error
    except UnsupportedError as error:
        raise UnsupportedError(f"{url}: {error}") from error


class _Record:
    """Stands for an object of the pickle and remembers what it was made of."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args, record.state = args, None  # a pickle calls __new__ alone
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Items(dict[Any, Any]):
    """Stands for an OrderedDict."""


class _Unpickler(pickle._Unpickler):
    """A pickle that can make records and plain containers, and call nothing.

    Python's own, because that in C sets memory aside for what a damaged pickle claims to hold.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        opcode: function
        for opcode, function in pickle._Unpickler.dispatch.items()
        if opcode not in {unused[0] for unused in _UNUSED_OPCODES}
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(torch.__dict__.get(name), torch.dtype):
            return torch.__dict__[name]
        if (module, name) not in _ALLOWED:
            raise UnsupportedError(
                f"it asks for {module}.{name}, which torch.distributed.checkpoint does not write "
                "and which could run code. Load the checkpoint where you trust it, and pass the "
                "state_dict itself."
            )
        base = _Items if name == "OrderedDict" else _Record
        return type(name, (base,), {})  # a new one each time: a pickle may write to a class


def _with_plain_keys(opcode: bytes, count: int) -> Callable[[Any], None]:
    """The function of an opcode that fills a dict with the last `count` of the stack (0: all).

    Python hashes nested tuples without looking how deep they are, and crashes at some depth.
    """
    original = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        keys = unpickler.stack[-count:][::2]  # key, value, key, ...
        if not all(isinstance(key, str | int | _Record) for key in keys):
            raise MalformedError("a key is neither a text nor a record")
        original(unpickler)

    return checked


_Unpickler.dispatch[pickle.SETITEM[0]] = _with_plain_keys(pickle.SETITEM, count=2)
_Unpickler.dispatch[pickle.SETITEMS[0]] = _with_plain_keys(pickle.SETITEMS, count=0)


# ---- What the records hold ---------------------------------------------------------------------


def _decode(metadata: Any) -> list[StoredTensor | StoredObject]:
    fields = _fields(metadata, "Metadata")
    listed, paths = fields.get("state_dict_metadata"), fields.get("planner_data")
    if not isinstance(listed, dict) or not all(isinstance(key, str) for key in listed):
        raise MalformedError("it has no state_dict_metadata")
    places = _decode_places(fields.get("storage_data"))
    found: list[StoredTensor | StoredObject] = []
    for key, about in listed.items():
        path = _decode_path(key, paths)
        if _is(about, "TensorStorageMetadata"):
            found.append(_decode_tensor(key, path, about, places))
        elif _is(about, "BytesStorageMetadata"):
            found.append(StoredObject(key, path, places.get((key, None))))
        else:
            raise MalformedError(f"{key!r} is neither a tensor nor an object")
    return found


def _decode_path(key: str, paths: Any) -> tuple[str, ...]:
    path = paths.get(key) if isinstance(paths, dict) else None
    if not isinstance(path, tuple) or not path:
        return (key,)
    if len(path) > _MAX_DEPTH or not all(isinstance(part, str | int) for part in path):
        raise MalformedError(f"{key!r} has the path {reprlib.repr(path)}")
    return tuple(str(part) for part in path)


_Place = tuple[str, int, int]  # file, offset, length
# By key and offsets of the chunk; an object has none.
_Places = dict[tuple[str, tuple[int, ...] | None], _Place]


def _decode_places(stored: Any) -> _Places:
    if not isinstance(stored, dict):
        raise MalformedError("it has no storage_data")
    places: _Places = {}
    for index, info in stored.items():
        at = _fields(index, "MetadataIndex")
        key, offsets = at.get("fqn"), at.get("offset")
        if not isinstance(key, str):
            raise MalformedError(f"its storage_data has the key {reprlib.repr(key)}")
        if offsets is not None:
            places[key, _decode_sizes(offsets)] = _decode_place(key, info)
            continue
        with contextlib.suppress(MalformedError, UnsupportedError):  # an object, which few need
            places[key, None] = _decode_place(key, info)
    return places


def _decode_place(key: str, info: Any) -> _Place:
    fields = _fields(info, "_StorageInfo")
    file, offset, length = (fields.get(n) for n in ("relative_path", "offset", "length"))
    transforms = fields.get("transform_descriptors")
    if transforms:
        raise UnsupportedError(
            f"tensor {key!r} is stored transformed ({reprlib.repr(transforms)}), which is not read."
        )
    if not isinstance(file, str) or not _is_size(offset) or not _is_size(length):
        raise MalformedError(f"tensor {key!r} is at {reprlib.repr((offset, length))} of a file")
    return file, offset, length


def _decode_tensor(
    key: str, path: tuple[str, ...], about: _Record, places: _Places
) -> StoredTensor:
    fields = _fields(about, "TensorStorageMetadata")
    shape = _decode_sizes(fields.get("size"))
    properties = fields.get("properties")
    state = properties.state if _is(properties, "TensorProperties") else None
    dtype = state[0] if isinstance(state, tuple) and state else None
    if not isinstance(dtype, torch.dtype):
        raise MalformedError(f"tensor {key!r} has no dtype")
    chunks = fields.get("chunks")
    if not isinstance(chunks, list):
        raise MalformedError(f"tensor {key!r} has no chunks")
    decoded = tuple(_decode_chunk(key, chunk, shape, places) for chunk in chunks)
    return StoredTensor(key, path, shape, dtype, decoded)


def _decode_chunk(key: str, chunk: Any, shape: tuple[int, ...], places: _Places) -> Chunk:
    fields = _fields(chunk, "ChunkStorageMetadata")
    offsets, sizes = _decode_sizes(fields.get("offsets")), _decode_sizes(fields.get("sizes"))
    if len(offsets) != len(sizes):
        raise MalformedError(f"tensor {key!r} has a chunk of {sizes} at {offsets}")
    if (key, offsets) not in places:
        raise MalformedError(f"tensor {key!r} has a chunk at {offsets} that is in no file")
    box = resolve_box(list(zip(offsets, sizes, strict=True)), shape)
    return Chunk(box, *places[key, offsets])


def _decode_sizes(size: Any) -> tuple[int, ...]:
    """The numbers of a torch.Size, which is written as a call with a tuple."""
    sizes = size.args[0] if _is(size, "Size") and len(size.args) == 1 else size
    if not isinstance(sizes, tuple) or not all(_is_size(number) for number in sizes):
        raise MalformedError(f"{reprlib.repr(sizes)} is no shape")
    if len(sizes) > _MAX_DEPTH or math.prod(sizes) >= 1 << 63:
        raise MalformedError(f"a tensor would have the shape {reprlib.repr(sizes)}")
    return sizes


def _is_size(number: Any) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < 1 << 63


def _is(record: Any, name: str) -> TypeGuard[_Record]:
    return isinstance(record, _Record) and type(record).__name__ == name


def _fields(record: Any, name: str) -> Mapping[str, Any]:
    state = record.state if _is(record, name) else None
    if not isinstance(state, dict):
        raise MalformedError(f"a {type(record).__name__} stands where a {name} should")
    return state
