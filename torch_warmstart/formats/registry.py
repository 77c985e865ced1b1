"""The ordered table of formats, and the choice among them by content."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torch_warmstart import storage
from torch_warmstart.errors import CorruptCheckpointError, SettingsError, UnsupportedError
from torch_warmstart.formats import table
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.formats.bundle import BundleCheckpoint
from torch_warmstart.formats.paths import STATE_FILE, find_prefix, own_prefix
from torch_warmstart.formats.safetensors_file import SafetensorsCheckpoint
from torch_warmstart.formats.state_dict import StateDictCheckpoint, open_module, open_torch_file

_PICKLE_MAGIC = b"\x80"
_ZIP_MAGIC = b"PK\x03\x04"
_SAFETENSORS_LENGTH = 8  # bytes of the little-endian length before the JSON header


@dataclass(frozen=True, slots=True)
class Format:
    """One file format: what it is called, how to tell, how to open."""

    name: str
    sniff: Callable[[storage.ByteSource], str | None]  # None: it is this; else why it is not
    open: Callable[[str], Checkpoint]
    local: bool = False  # opened by a library that knows local files only


def open_checkpoint(source: Any, *, verify: bool = True) -> Checkpoint:
    """Opens whatever holds tensors by name.

    Args:
        source: A path or URL of any supported format, a state_dict (any mapping of names to
            tensors), a module, or an open checkpoint, which is returned as it is.
        verify: Check checksums, where the format has them.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, torch.nn.Module):
        return open_module(source)
    if isinstance(source, Mapping):
        return StateDictCheckpoint(source)
    if isinstance(source, str | os.PathLike):
        return _open_url(os.fspath(source), verify=verify)
    raise SettingsError(
        "A checkpoint is a path or URL, a state_dict, a torch.nn.Module or an open checkpoint, "
        f"not a {type(source).__name__}."
    )


def _open_url(url: object, *, verify: bool) -> Checkpoint:
    if not isinstance(url, str) or not url:
        raise SettingsError(f"A checkpoint's path must be a non-empty str, not {url!r}.")
    file_format = _sniff(url)
    if file_format is not None:
        if file_format.local and storage.is_remote(url):
            raise UnsupportedError(
                f"{url} is a {file_format.name} file, which can only be read from a local disk. "
                "Copy it to this machine first."
            )
        return file_format.open(url)
    return BundleCheckpoint(find_prefix(url), verify=verify)


def _sniff(url: str) -> Format | None:
    """The format of a file that is a checkpoint by itself; None if it stands for others."""
    if not storage.exists(url) or own_prefix(url) is not None:
        return None
    source = storage.open_source(url)
    reasons = []
    try:
        for file_format in FORMATS:
            reason = file_format.sniff(source)
            if reason is None:
                return file_format
            reasons.append(f"no {file_format.name} file ({reason})")
    finally:
        source.close()
    if storage.base_name(url) == STATE_FILE:
        return None
    raise CorruptCheckpointError(
        f"{url} ({source.size:,} bytes) is no checkpoint of a known format: "
        f"{', '.join(reasons)}, and there is no {url}.index."
    )


def _sniff_zip(source: storage.ByteSource) -> str | None:
    if _head(source, 4) != _ZIP_MAGIC:
        return "it does not begin as a zip file does"
    if not storage.is_remote(source.url) and not _is_whole_zip(source.url):
        return "it begins as a zip file does but is not a complete one"
    return None


def _is_whole_zip(path: str) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # raised by Python 3.11 for some damage to the directory at the end
        return False


def _sniff_legacy(source: storage.ByteSource) -> str | None:
    return None if _head(source, 1) == _PICKLE_MAGIC else "it does not begin as a pickle does"


def _sniff_safetensors(source: storage.ByteSource) -> str | None:
    head = _head(source, _SAFETENSORS_LENGTH + 1)
    if len(head) <= _SAFETENSORS_LENGTH or head[-1:] != b"{":
        return "it has no JSON header"
    length = int.from_bytes(head[:_SAFETENSORS_LENGTH], "little")
    return None if length <= source.size else "its header would be longer than the file"


def _sniff_v1(source: storage.ByteSource) -> str | None:
    return None if table.has_magic(source) else "it does not end as an SSTable does"


def _head(source: storage.ByteSource, size: int) -> bytes:
    return source.read(0, min(size, source.size)).tobytes()


def _refuse_v1(url: str) -> Checkpoint:
    raise UnsupportedError(
        f"{url} is a TensorFlow V1 checkpoint (one SSTable), a format that is not read yet. "
        "TensorFlow rewrites it as V2 with tf.compat.v1.train.Saver(...).save()."
    )


FORMATS: tuple[Format, ...] = (
    Format("safetensors", _sniff_safetensors, SafetensorsCheckpoint, local=True),
    Format("torch (zip)", _sniff_zip, open_torch_file, local=True),
    Format("torch (legacy)", _sniff_legacy, open_torch_file, local=True),
    Format("TensorFlow V1", _sniff_v1, _refuse_v1),
)
