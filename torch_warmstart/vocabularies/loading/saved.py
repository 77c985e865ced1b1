"""What `Vocabulary.save` wrote: a safetensors file, of which every number is looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_warmstart.entries import (
    ENTRY,
    FILE_KIND,
    FILE_VERSION,
    Entries,
    Usage,
    Vocabulary,
    text_entries,
)
from torch_warmstart.errors import WRONG_DOCUMENT, VocabularyError, WrongDocumentError, why_wrong
from torch_warmstart.storage import Bytes

if TYPE_CHECKING:
    import numpy.typing as npt

_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "U64": np.uint64}


def read_saved(raw: Bytes, url: str) -> Vocabulary:
    """The vocabulary in a file of ours; VocabularyError if it is damaged."""
    try:
        return _read(raw, url)
    except WRONG_DOCUMENT as error:
        why = why_wrong(error, "its header is not what we write")
        raise VocabularyError(f"{url} is a damaged vocabulary: {why}. Save it again.") from error


def _read(raw: Bytes, url: str) -> Vocabulary:
    size = int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8 : 8 + size].tobytes())
    about = json.loads(header["__metadata__"]["vocabulary"])
    if about["format"] != FILE_KIND:
        raise WrongDocumentError("its header is not what we write")
    tensors = {
        name: _tensor(raw[8 + size :], spec) for name, spec in header.items() if name[0] != "_"
    }
    listed = _listed(tensors, about, url)
    first, at = about["first"], tensors.get("rows")
    special = checked_special(about, len(listed), at, first)
    return Vocabulary(
        listed,
        about["num_rows"],
        None if at is None else torch.from_numpy(at.copy()),
        first,
        special,
        str(about["oov_hash"]),
        bool(about["is_padded"]),
        _usage(tensors, len(listed)),
    )


def checked_special(
    about: Any, count: int, at: npt.NDArray[np.int64] | None, first: int = 0
) -> dict[str, range]:
    """The special rows that a file of ours states, once all that it says of rows can be.

    `at` are the rows of `count` entries; None: they follow each other from `first` on. Raises
    WrongDocumentError: version or rows are none that we write.
    """
    version, num_rows = about["version"], about["num_rows"]
    if version != FILE_VERSION:
        raise WrongDocumentError(f"its version is {version!r}, and {FILE_VERSION} is known here")
    if not all(isinstance(number, int) and number >= 0 for number in (num_rows, first)):
        raise WrongDocumentError("a number of rows is none")
    if at is not None and (len(at) != count or bool((np.diff(at, prepend=-1) <= 0).any())):
        raise WrongDocumentError("its rows are not in order")
    if (int(at[-1]) + 1 if at is not None and len(at) else first + count) > num_rows:
        raise WrongDocumentError("an entry is beyond its last row")
    return {str(name): range(*_pair(span, num_rows)) for name, span in about["special"].items()}


def _usage(tensors: dict[str, npt.NDArray[Any]], count: int) -> Usage | None:
    if "counts" not in tensors:
        return None
    counts, *days = (tensors[name] for name in ("counts", "last_seen", "born"))
    if any(len(part) != count for part in (counts, *days)) or bool((counts < 0).any()):
        raise WrongDocumentError("its counts do not fit its entries")
    if counts.dtype != np.int64 or any(day.dtype != np.int32 for day in days):
        raise WrongDocumentError("its counts are of another dtype")
    usage = Usage(*(torch.from_numpy(part.copy()) for part in (counts, *days)))
    if not usage.has_days():
        raise WrongDocumentError("a day of it is none")
    return usage


def _listed(tensors: dict[str, npt.NDArray[Any]], about: Any, url: str) -> Entries:
    if about["kind"] in ("int64", "uint64"):
        ids = torch.from_numpy(tensors["ids"].view(np.int64).copy())
        return Entries(url, ENTRY, ids=ids, is_unsigned=about["kind"] == "uint64")
    data, lengths = tensors["bytes"], tensors["lengths"].astype(np.int64)
    if (len(lengths) and int(lengths.min()) < 0) or float(lengths.sum(dtype=float)) != len(data):
        raise WrongDocumentError("the lengths of its entries do not add up")
    return text_entries(data.copy(), lengths, url)


def _tensor(data: Bytes, spec: Any) -> npt.NDArray[Any]:
    start, stop = spec["data_offsets"]
    dtype = np.dtype(_DTYPES[spec["dtype"]])
    (count,) = spec["shape"]
    if not 0 <= start <= stop <= len(data) or (stop - start) != count * dtype.itemsize:
        raise WrongDocumentError("a tensor of it is not within the file")
    return np.frombuffer(data[start:stop].tobytes(), dtype=dtype)


def _pair(span: Any, num_rows: int) -> tuple[int, int]:
    start, stop = span
    if not 0 <= int(start) <= int(stop) <= num_rows:
        raise WrongDocumentError("a special row is beyond its last row")
    return int(start), int(stop)
