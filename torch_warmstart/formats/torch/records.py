"""Whether the records of a zip of torch's are as long as its pickle says.

Where one is too short, a file that is mapped is read on into the next record: torch does not look.
So the pickle is gone through once more, by an unpickler that makes nothing of what it names.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import torch

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.torch.stand_ins import StandIn

_SIZES = {
    "UntypedStorage": 1,
    **{name: dtype.itemsize for dtype, name in torch.storage._dtype_to_storage_type_map().items()},
}


def check_records(archive: zipfile.ZipFile, url: str) -> None:
    """Looks whether every record has the bytes that tensors on it take.

    Raises:
        CorruptCheckpointError: one is shorter; the message names it.
    """
    root = archive.namelist()[0].partition("/")[0]
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    for key, expected in _claimed(archive, f"{root}/data.pkl").items():
        record = f"{root}/data/{key}"
        found = sizes.get(record, expected)  # of one that is missing torch says so
        if expected > found:
            raise CorruptCheckpointError(
                f"{url} is damaged: its record {record!r} has {found:,} bytes, and the tensors on "
                f"it take {expected:,}."
            )


def _claimed(archive: zipfile.ZipFile, name: str) -> dict[Any, int]:
    """The bytes of each storage that a pickle names, as far as it can be read."""
    claimed: dict[Any, int] = {}
    try:
        _Unpickler(archive.read(name), claimed).load()
    except Exception:  # damaged bytes make a pickle fail in any way, and torch words that
        return claimed
    return claimed


class _Taken(StandIn):
    """Stands for whatever a pickle names, containers too."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Does nothing, as all of these."""

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class _Unpickler(pickle._Unpickler):
    """Counts storages. Python's own, as torch's is: that in C sets memory aside for a memo."""

    def __init__(self, data: bytes, claimed: dict[Any, int]) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._claimed = claimed

    def find_class(self, _module: str, name: str) -> Any:
        return _SIZES.get(name, _Taken)

    def persistent_load(self, saved: Any) -> None:
        _, size, key, _, count = saved
        if type(size) is type(count) is int:
            self._claimed[key] = max(count * size, self._claimed.get(key, 0))
