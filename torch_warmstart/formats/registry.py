"""The ordered table of formats, and the choice among them by content.

A format is a row in `FORMATS`: a sniffer of `recognise`, and the reader's function that opens it,
whose module is imported when it is called. The first one whose sniffer recognises a place opens it;
if none does, the error says what each of them looked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    SettingsError,
    UnsupportedError,
)
from torch_warmstart.formats import recognise
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.formats.place import Place
from torch_warmstart.storage import LOCAL, Storage
from torch_warmstart.values import frozen

_Sniffer = Callable[[Place], "str | None"]  # None: it is this; else why it is not


@frozen
class Format:
    """One format: what `format=` calls it, how to tell, how to open."""

    name: str
    title: str
    sniff: _Sniffer  # how to tell
    open: Callable[[Place], Checkpoint]
    nests: bool = False  # whether `entry=` says something of it: which mapping, or which types


def open_checkpoint(
    source: Any,
    *,
    storage: Storage = LOCAL,
    verify: bool = True,
    format: str | None = None,
    entry: str | None = None,
    wanted: Collection[str] = (),
) -> Checkpoint:
    """Opens whatever holds tensors by name; see `api.load_checkpoint`."""
    _check_entry(entry)
    if entry is not None and isinstance(source, Checkpoint | torch.nn.Module):
        raise SettingsError(f"entry={entry!r} is of no use with a {type(source).__name__}.")
    if format is not None and isinstance(source, Checkpoint | torch.nn.Module | Mapping):
        raise SettingsError(f"format={format!r} is of no use with a {type(source).__name__}.")
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, torch.nn.Module):
        module: Checkpoint = _reader("state_dict", "open_module")(source)
        return module
    if isinstance(source, Mapping):
        make = _reader("state_dict", "StateDictCheckpoint")
        state: Checkpoint = make(source, entry=entry, wanted=wanted)
        return state
    if isinstance(source, str | os.PathLike):
        options = {"verify": verify, "entry": entry, "wanted": wanted}
        with storage.kept():
            return _open_place(_place_at(os.fspath(source), storage, **options), format)
    raise SettingsError(
        "A checkpoint is a path or URL, a state_dict, a torch.nn.Module or an open checkpoint, "
        f"not a {type(source).__name__}."
    )


def latest_checkpoint(directory: str, storage: Storage = LOCAL) -> str | None:
    """The prefix that a directory's `checkpoint` file names; see `api.latest_checkpoint`."""
    try:
        storage = storage.connected(directory)
    except FileNotFoundError:  # of a chain, the file within which others are
        return None
    found: str | None = _reader("tensorflow.paths", "latest_checkpoint")(directory, storage)
    return found


def _check_entry(entry: object) -> None:
    if entry not in (None, "") and not (isinstance(entry, str) and entry.strip("/")):
        raise SettingsError(
            "entry is a path of keys in a nested checkpoint, such as 'model' or 'ema/model', not "
            f"{entry!r}."
        )


def _place_at(url: object, storage: Storage, **options: Any) -> Place:
    if not isinstance(url, str) or not url:
        raise SettingsError(f"A checkpoint's path must be a non-empty str, not {url!r}.")
    if url.startswith("~") and not os.path.lexists(url):  # as a shell has it
        url = os.path.expanduser(url)
    try:
        return Place(url, storage.connected(url), **options)
    except FileNotFoundError as error:  # of a chain, the file within which others are
        raise CheckpointNotFoundError(f"There is no checkpoint at {url}: {error}.") from error


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
            _say_whose_folder(place)
            raise
        raise CheckpointNotFoundError(f"There is no checkpoint at {place.url}: {error}.") from error


def _say_whose_folder(place: Place) -> None:
    """Raises UnsupportedError: a folder has nothing that is read, and it is known what."""
    from torch_warmstart.formats.strangers import whose_folder_it_is  # for an error

    whose = whose_folder_it_is(place)
    if whose:
        raise UnsupportedError(f"{place.url} {whose}.")


def _choose(place: Place, name: str | None) -> Format:
    if name is not None:
        return _by_name(name)
    if recognise.may_have_others(place) and recognise.stands_for_others(place.url, place.storage):
        return _by_name("tf-v2" if _stands_for_v1(place) else "tf-v1")
    reasons = []
    for candidate in FORMATS:
        reason = candidate.sniff(place)
        if reason is None:
            return candidate
        reasons.append(f"  {candidate.title}: {reason}")
    if place.is_file and not place.source.size:
        raise CorruptCheckpointError(
            f"{place.url} is empty: 0 bytes. Copy it again, or wait until it is written."
        )
    if place.is_file:
        from torch_warmstart.formats.strangers import what_it_is  # for an error

        known = what_it_is(place)
        if known:
            raise UnsupportedError(f"{place.url} {known}.")
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


def _reader(module: str, function: str) -> Callable[..., Any]:
    """A function of a reader, whose module is imported when it is called."""

    def call(*args: Any, **options: Any) -> Any:
        found = importlib.import_module(f"torch_warmstart.formats.{module}")
        return getattr(found, function)(*args, **options)

    return call


def _sniffer(may_be: _Sniffer, module: str, function: str = "sniff") -> _Sniffer:
    """A reader's own, which is asked only of what may be of its format."""
    sniff = _reader(module, function)

    def why_not(place: Place) -> str | None:
        found = may_be(place)
        return sniff(place) if found is None else found

    return why_not


_stands_for_v1 = _reader("tensorflow.paths", "sniff_v1")
_stands_for_v2 = _reader("tensorflow.paths", "sniff_v2")


def _sniff_v2(place: Place) -> str | None:
    """A table may have an index of V2 beside it, which comes first, as in TensorFlow."""
    return _stands_for_v2(place) if recognise.table(place) is None else recognise.no_index(place)


FORMATS: tuple[Format, ...] = (
    Format(
        "torch-distributed",
        "torch.distributed checkpoint",
        recognise.torch_distributed,
        _reader("torch.dcp.checkpoint", "open_place"),
        nests=True,
    ),
    Format(
        "hf",
        "Hugging Face directory",
        recognise.huggingface_directory,
        _reader("huggingface.sharded", "open_directory"),
    ),
    Format(
        "hugectr",
        "HugeCTR folder",
        recognise.hugectr,
        _reader("keyed.folders", "open_hugectr"),
    ),
    Format(
        "dynamicemb",
        "dynamicemb folder",
        _sniffer(recognise.dynamicemb, "keyed.dynamicemb"),
        _reader("keyed.dynamicemb", "open_place"),
    ),
    Format(
        "tfra",
        "TFRA folder",
        _sniffer(recognise.tfra, "keyed.tfra"),
        _reader("keyed.tfra", "open_place"),
        nests=True,
    ),
    Format(
        "monolith",
        "Monolith tables",
        _sniffer(recognise.numbered, "tensorflow.monolith.checkpoint"),
        _reader("tensorflow.monolith.checkpoint", "open_place"),
    ),
    Format(
        "hf-index",
        "index of safetensors or torch shards",
        recognise.huggingface_index,
        _reader("huggingface.sharded", "open_index"),
    ),
    Format(
        "safetensors",
        "safetensors file",
        recognise.safetensors,
        _reader("huggingface.safetensors", "open_place"),
    ),
    Format(
        "torch",
        "torch file",
        recognise.torch_zip,
        _reader("torch.file", "open_file"),
        nests=True,
    ),
    Format(
        "torch-legacy",
        "torch file before 1.6",
        recognise.torch_legacy,
        _reader("torch.file", "open_file"),
        nests=True,
    ),
    Format("keras-h5", "Keras HDF5 file", recognise.hdf5, _reader("keras.file", "open_place")),
    Format(
        "keras", "Keras archive", recognise.keras_archive, _reader("keras.file", "open_archive")
    ),
    Format("npy", "numpy .npy file", recognise.npy, _reader("arrays.numpy_files", "open_npy")),
    Format("npz", "numpy .npz file", recognise.npz, _reader("arrays.numpy_files", "open_npz")),
    Format(
        "tf-v1",
        "TensorFlow V1 checkpoint",
        _sniffer(recognise.table, "tensorflow.paths", "sniff_v1"),
        _reader("tensorflow.v1", "open_place"),
    ),
    Format(
        "tf-v2",
        "TensorFlow V2 checkpoint",
        _sniff_v2,
        _reader("tensorflow.keyed_bundle", "open_place"),
    ),
    Format(
        "text-vectors",
        "text file of vectors",
        _reader("arrays.text_vectors", "sniff"),
        _reader("arrays.text_vectors", "open_place"),
    ),
    Format(
        "word2vec-bin",
        "word2vec binary file",
        _reader("arrays.word2vec_binary", "sniff"),
        _reader("arrays.word2vec_binary", "open_place"),
    ),
)
