"""The ordered table of formats, and the choice among them by content.

A format is a file in this folder, with a `sniff` and an `open_place`, and a row in `FORMATS`. The
first one whose sniffer recognises a place opens it; if none does, the error says what each of them
looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    SettingsError,
)
from torch_warmstart.formats.arrays import numpy_files, text_vectors, word2vec_binary
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.formats.huggingface import safetensors as safetensors_file
from torch_warmstart.formats.huggingface import sharded as hf_sharded
from torch_warmstart.formats.keras import file as keras_h5
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.tensorflow import bundle, paths, v1
from torch_warmstart.formats.torch import dcp, nested, state_dict
from torch_warmstart.formats.torch import file as torch_file
from torch_warmstart.storage import LOCAL, Storage


@dataclass(frozen=True, slots=True)
class Format:
    """One format: what `format=` calls it, how to tell, how to open."""

    name: str
    title: str
    sniff: Callable[[Place], str | None]  # None: it is this; else why it is not
    open: Callable[[Place], Checkpoint]
    nests: bool = False  # whether it may hold several mappings, of which `entry=` chooses one


def open_checkpoint(
    source: Any,
    *,
    storage: Storage = LOCAL,
    verify: bool = True,
    format: str | None = None,
    entry: str | None = None,
) -> Checkpoint:
    """Opens whatever holds tensors by name; see `api.load_checkpoint`."""
    nested.check_entry(entry)
    if entry is not None and isinstance(source, Checkpoint | torch.nn.Module):
        raise SettingsError(f"entry={entry!r} is of no use with a {type(source).__name__}.")
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, torch.nn.Module):
        return state_dict.open_module(source)
    if isinstance(source, Mapping):
        return state_dict.StateDictCheckpoint(source, entry=entry)
    if isinstance(source, str | os.PathLike):
        place = _place_at(os.fspath(source), storage, verify=verify, entry=entry)
        return _open_place(place, format)
    raise SettingsError(
        "A checkpoint is a path or URL, a state_dict, a torch.nn.Module or an open checkpoint, "
        f"not a {type(source).__name__}."
    )


def _place_at(url: object, storage: Storage, *, verify: bool, entry: str | None) -> Place:
    if not isinstance(url, str) or not url:
        raise SettingsError(f"A checkpoint's path must be a non-empty str, not {url!r}.")
    return Place(url, storage, verify=verify, entry=entry)


def _open_place(place: Place, name: str | None) -> Checkpoint:
    try:
        chosen = _choose(place, name)
        if place.entry is not None and not chosen.nests:
            raise SettingsError(
                f"entry={place.entry!r} is of no use with {place.url}: a {chosen.title} has no "
                "entries to choose from."
            )
        return chosen.open(place)
    except FileNotFoundError as error:
        if isinstance(error, CheckpointNotFoundError):
            raise
        raise CheckpointNotFoundError(f"There is no checkpoint at {place.url}: {error}.") from error


def _choose(place: Place, name: str | None) -> Format:
    if name is not None:
        return _by_name(name)
    if paths.stands_for_others(place.url, place.storage):
        found = place.tensorflow
        return _by_name("tf-v1" if found is not None and found.v1_files else "tf-v2")
    reasons = []
    for candidate in FORMATS:
        reason = candidate.sniff(place)
        if reason is None:
            return candidate
        reasons.append(f"  {candidate.title}: {reason}")
    if place.is_file:
        listed = "\n".join(reasons)
        raise CorruptCheckpointError(
            f"{place.url} ({place.source.size:,} bytes) is no checkpoint of a known format:\n"
            f"{listed}"
        )
    return _by_name("tf-v2")  # whose opener tells what it looked for


def _by_name(name: str) -> Format:
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    names = ", ".join(repr(candidate.name) for candidate in FORMATS)
    raise SettingsError(f"No format is called {name!r}; there are {names}.")


FORMATS: tuple[Format, ...] = (
    Format(
        "torch-distributed", "torch.distributed checkpoint", dcp.sniff, dcp.open_place, nests=True
    ),
    Format(
        "hf",
        "Hugging Face directory",
        hf_sharded.sniff_directory,
        hf_sharded.open_directory,
    ),
    Format(
        "hf-index",
        "index of safetensors or torch shards",
        hf_sharded.sniff_index,
        hf_sharded.open_index,
    ),
    Format(
        "safetensors",
        "safetensors file",
        safetensors_file.sniff,
        safetensors_file.open_place,
    ),
    Format("torch", "torch file", torch_file.sniff_zip, torch_file.open_place, nests=True),
    Format(
        "torch-legacy",
        "torch file before 1.6",
        torch_file.sniff_legacy,
        torch_file.open_place,
        nests=True,
    ),
    Format("keras-h5", "Keras HDF5 file", keras_h5.sniff, keras_h5.open_place),
    Format("keras", "Keras archive", keras_h5.sniff_archive, keras_h5.open_archive),
    Format("npy", "numpy .npy file", numpy_files.sniff_npy, numpy_files.open_npy),
    Format("npz", "numpy .npz file", numpy_files.sniff_npz, numpy_files.open_npz),
    Format("tf-v1", "TensorFlow V1 checkpoint", v1.sniff, v1.open_place),
    Format("tf-v2", "TensorFlow V2 checkpoint", bundle.sniff, bundle.open_place),
    Format("text-vectors", "text file of vectors", text_vectors.sniff, text_vectors.open_place),
    Format(
        "word2vec-bin",
        "word2vec binary file",
        word2vec_binary.sniff,
        word2vec_binary.open_place,
    ),
)
