"""torch files: `.pt`, `.pth` or `.bin`, as a zip or in the format before torch 1.6.

torch maps a local zip file, so tensors that are not used are not read. It reads every other file
whole: one of the old format, one whose zip is compressed, and one behind a URL, which is fetched
first, many requests at a time.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping
from typing import IO, Any, cast

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError, printable
from torch_warmstart.formats.base import TensorSpec
from torch_warmstart.formats.nested import USUAL, NoTensorsError
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import PICKLE_MAGIC
from torch_warmstart.formats.sources import SourceFile
from torch_warmstart.formats.state_dict import StateDictCheckpoint
from torch_warmstart.formats.torch.records import check_records
from torch_warmstart.formats.torch.stand_ins import StandIn, first_doubtful, name_of
from torch_warmstart.formats.torch.unpickling import load_tensors, refusal
from torch_warmstart.storage import ByteSource, LocalFile

_TORCHSCRIPT = "/constants.pkl"  # what torch.load knows such an archive by
# The number that torch.save of the old format begins with, as a pickle has it.
_MAGIC_NUMBER = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def open_file(place: Place) -> StateDictCheckpoint:
    """Opens a file.

    Raises:
        UnsupportedError: loading it could run code, or it is a TorchScript archive.
        CorruptCheckpointError: torch cannot read it.
        SettingsError: it holds no mapping of names to tensors, or several without `place.entry`.
    """
    loaded = load_place(place)
    if isinstance(loaded, StandIn):
        raise UnsupportedError(refusal(place.url, printable(name_of(loaded))))
    if not isinstance(loaded, Mapping):
        raise SettingsError(
            f"{place.url} holds a {type(loaded).__name__}, not a state_dict: a mapping of names to "
            "tensors."
        )
    if place.entry is None and (unread := _unread_model(loaded)) is not None:
        raise UnsupportedError(refusal(place.url, printable(name_of(unread))))
    try:
        checkpoint = _TorchFile(
            loaded, place.url, entry=place.entry, format="torch file", wanted=place.wanted
        )
    except NoTensorsError:
        _check_no_doubt(loaded, place)  # what may be one is not read
        raise
    _check_no_doubt(checkpoint.others, place)
    checkpoint.mapped = place.source if _can_be_mapped(place) else None
    return checkpoint


def _check_no_doubt(entries: Mapping[Any, Any], place: Place) -> None:
    doubtful = first_doubtful(entries.values())
    if doubtful is not None:
        raise UnsupportedError(refusal(place.url, printable(name_of(doubtful))))


def _unread_model(loaded: Mapping[Any, Any]) -> StandIn | None:
    """What stands where files keep their model, if nothing that is read does."""
    usual = [value for key, value in loaded.items() if isinstance(key, str) and key in USUAL]
    if any(isinstance(value, Mapping) for value in usual):
        return None
    return next((value for value in usual if isinstance(value, StandIn)), None)


class _TorchFile(StateDictCheckpoint):
    """What torch has loaded, on top of the file if it has mapped that."""

    mapped: ByteSource | None

    def _find(self, key: str) -> TensorSpec | None:
        if key not in self._specs:
            self._specs[key] = super()._find(key)
        return self._specs[key]

    @functools.cached_property
    def _specs(self) -> dict[str, TensorSpec | None]:
        """What was found: what has been read from a file stays what it is."""
        return {}

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        if isinstance(self.mapped, LocalFile):
            self.mapped.check()
        return super()._read(spec, rows)


def load_place(place: Place) -> Any:
    """Whatever a file holds; raises as `load_tensors`."""
    if any(name.endswith(_TORCHSCRIPT) for name in place.zip_names):
        raise UnsupportedError(
            f"{place.url} is a TorchScript archive, which holds code. Load it where you trust it, "
            "with torch.jit.load, and pass the module."
        )
    if place.head(1) == PICKLE_MAGIC and _MAGIC_NUMBER not in place.head(64):
        raise UnsupportedError(
            f"{place.url} is a plain pickle, not what torch.save writes: loading it could run "
            "code. Load it where you trust it, and pass the mapping of names to tensors or arrays."
        )
    source = place.source
    source.prefetch([(0, source.size)])  # torch would ask for it bit by bit
    is_zip = bool(place.zip_names)
    if place.archive is not None and is_zip:
        check_records(place.archive, place.url)
    if isinstance(source, LocalFile) and _is_utf8(source.path):
        mmap = _can_be_mapped(place)
        return load_tensors(source.path, place.url, mmap=mmap, stand_ins=is_zip)
    return load_tensors(cast("IO[bytes]", SourceFile(source)), place.url, stand_ins=is_zip)


def _can_be_mapped(place: Place) -> bool:
    """Whether the tensors lie in the file as they are in memory.

    torch saves them so. A zip that was packed anew may be compressed, and torch would map that.
    """
    archive = place.archive
    if archive is None or not place.zip_names or not isinstance(place.source, LocalFile):
        return False
    if not _is_utf8(place.source.path):
        return False
    return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _is_utf8(path: str) -> bool:
    """Whether torch can open a file by its name; others are read as one that lies elsewhere."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False
