"""The vocabularies of a checkpoint, beside it: `<url>.warmstart.json` and a file for each.

The JSON says which tensors a vocabulary is for, its fingerprint and its file; the file is what
`Vocabulary.save` writes, with special rows, counts and days. It has a name made of its content, so
that the JSON, which is replaced last, never names what is half written. Read, both are untrusted:
names stay in the directory, sizes are bounded and must be those that are told, and a vocabulary
that has another fingerprint than the JSON says is refused. So is one whose tensor is another now
than it was saved for: a checkpoint is written anew under its name, and what lies beside it stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from torch_warmstart.computing import on_cpu
from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import (
    WRONG_DOCUMENT,
    SettingsError,
    StorageError,
    VocabularyError,
    WrongDocumentError,
    path_of,
    printable,
    why_wrong,
)
from torch_warmstart.formats import Checkpoint, open_checkpoint
from torch_warmstart.settings import VocabSource
from torch_warmstart.storage import (
    LOCAL,
    Storage,
    base_name,
    below,
    beside,
    is_remote,
    is_signed,
    parent,
)
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.loading import read_vocabulary
from torch_warmstart.vocabularies.samples import Sample, is_of, sample_of

SUFFIX = ".warmstart.json"
KIND = "torch_warmstart.vocabularies"
VERSION = 1

_MOST = 16 << 20  # bytes of the JSON
_MOST_DATA = 64 << 30  # bytes of a vocabulary's file
_PIECE = 16 << 20
_DATA = re.compile(r"\.warmstart-[0-9a-f]{32}\.vocab")
_NAME = re.compile(rf"[^/]+({_DATA.pattern})", re.DOTALL)  # of any checkpoint's


@frozen
class Kept:
    """What the JSON says of a tensor's vocabulary."""

    file: str  # a name in the directory
    size: int  # its bytes
    fingerprint: str
    sample: Sample | None = None  # of the tensor that it was saved for; None: nobody has taken one


class Sidecar(Mapping[str, Vocabulary]):
    """The vocabularies beside a checkpoint, by the keys of its tensors; read when asked for."""

    def __init__(self, url: str, kept: Mapping[str, Kept], storage: Storage) -> None:
        """What stands in the JSON at `url`."""
        self.url = url
        self._kept, self._storage = kept, storage
        self._read: dict[Kept, Vocabulary] = {}

    def fingerprint(self, key: str) -> str:
        """That of a tensor's vocabulary, without reading it."""
        return self._kept[key].fingerprint

    def of_tensor(self, key: str, checkpoint: Checkpoint) -> Vocabulary:
        """That of a tensor; VocabularyError if the tensor is another than it was saved for."""
        sample = self._kept[key].sample
        if sample is not None and not is_of(sample, checkpoint, key):
            raise VocabularyError(
                f"{self.url} has a vocabulary for {printable(key)!r}, but for other values than "
                f"{checkpoint.url} holds: it was saved before these were written, or is another "
                "checkpoint's. After each save of the checkpoint, save_vocabularies() again; or "
                "give the old vocabulary."
            )
        return self[key]

    def __getitem__(self, key: str) -> Vocabulary:
        kept = self._kept[key]
        if kept not in self._read:
            self._read[kept] = self._load(kept)
        return self._read[kept]

    def _load(self, kept: Kept) -> Vocabulary:
        url = below(parent(self.url), kept.file)
        try:
            source = self._storage.open(url)
            found = source.size
            source.close()
        except StorageError:  # it may be there, so to copy it is no help
            raise
        except OSError as error:
            raise VocabularyError(
                f"{self.url} needs {printable(kept.file)!r}, which cannot be read: {error}. Copy "
                "the files beside a checkpoint with it, or save_vocabularies() again."
            ) from error
        if found != kept.size:
            raise VocabularyError(
                f"{url} has {found:,} bytes, but {self.url} says {kept.size:,}. {_AGAIN}"
            )
        vocabulary = read_vocabulary(url, storage=self._storage)
        if vocabulary.fingerprint != kept.fingerprint:
            raise VocabularyError(
                f"{url} is another vocabulary than {self.url} says: its fingerprint is "
                f"{vocabulary.fingerprint}, not {printable(kept.fingerprint)}. {_AGAIN}"
            )
        return vocabulary

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


_AGAIN = "Save the vocabularies again: save_vocabularies()."


@on_cpu
def save_vocabularies(
    checkpoint: str | os.PathLike[str] | Checkpoint, vocabularies: Mapping[str, VocabSource]
) -> str:
    """Writes vocabularies beside a checkpoint, where `FROM_CHECKPOINT` finds them.

    They are kept by the checkpoint's own keys, with fingerprints, special rows, counts and days,
    and are for the values that the tensors have now: after another save of the checkpoint they are
    refused until they are saved again. What was saved beside it before is replaced, whole or not
    at all.

    Args:
        checkpoint: Path of a checkpoint of any format, or an open one. Its files are not touched.
        vocabularies: A tensor's key, or another name of it, to what `Vocabulary.load` takes.

    Returns:
        The path of the file that was written: the checkpoint's with `.warmstart.json` behind it.

    Raises:
        MissingTensorError: the checkpoint has no such tensor.
        SettingsError: a vocabulary has more rows than its tensor, or nothing can be written there:
            the checkpoint is in memory or remote.

    Example:
        >>> tws.save_vocabularies("model.pt", {"tok.weight": "tokens.txt"})     # doctest: +SKIP
        'model.pt.warmstart.json'
    """
    if not isinstance(vocabularies, Mapping) or not vocabularies:
        raise SettingsError("save_vocabularies takes a mapping of a tensor's key to a vocabulary.")
    if isinstance(checkpoint, Checkpoint):
        return _save(checkpoint, vocabularies)
    where = path_of("save_vocabularies: checkpoint", checkpoint)
    with open_checkpoint(os.path.expanduser(where), storage=LOCAL) as opened:
        return _save(opened, vocabularies)


def _save(checkpoint: Checkpoint, vocabularies: Mapping[str, VocabSource]) -> str:
    url = checkpoint.url.rstrip("/")
    if checkpoint.is_callers or is_remote(url) or not os.path.isdir(parent(url)):
        raise SettingsError(
            f"Vocabularies are saved beside a checkpoint on this machine, which {url} is not. Save "
            "them beside a copy, and upload the files whose names contain '.warmstart'."
        )
    loaded = {checkpoint.spec(key).key: read_vocabulary(v) for key, v in vocabularies.items()}
    for key, vocabulary in loaded.items():
        _check_rows(checkpoint, key, vocabulary)
    path = url + SUFFIX
    try:
        kept = {
            key: _write_data(url, vocabulary, sample_of(checkpoint, key))
            for key, vocabulary in loaded.items()
        }
        _replace_text(path, _text_of(kept, loaded))
        _clear(url, {one.file for one in kept.values()})
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error}.") from error
    return path


def _check_rows(checkpoint: Checkpoint, key: str, vocabulary: Vocabulary) -> None:
    shape = checkpoint.spec(key).shape
    if not shape or len(vocabulary) > max(shape):
        raise SettingsError(
            f"{vocabulary.origin} has {len(vocabulary):,} rows, but {key!r} of {checkpoint.url} "
            f"has the shape {list(shape)}: it is not the vocabulary that it was trained with."
        )
    tables = [t for t in checkpoint.tables().values() if key in (t.values, *t.pieces)]
    if tables and tables[0].keys.fingerprint != vocabulary.fingerprint:
        raise SettingsError(
            f"{key!r} of {checkpoint.url} keeps its own ids, and {vocabulary.origin} says others "
            "or has them in another order. A VocabInfo without old_vocab takes them from there: "
            "save none for it."
        )


def _write_data(url: str, vocabulary: Vocabulary, sample: Sample) -> Kept:
    unnamed = f"{url}.warmstart-{secrets.token_hex(8)}.part"  # until its digest is known
    try:
        vocabulary.save(unnamed)
        digest = hashlib.blake2b(digest_size=16)
        with open(unnamed, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        size = os.path.getsize(unnamed)
        name = f"{base_name(url)}.warmstart-{digest.hexdigest()}.vocab"
        os.replace(unnamed, os.path.join(parent(url), name))
    finally:
        if os.path.exists(unnamed):
            os.unlink(unnamed)
    return Kept(name, size, vocabulary.fingerprint, sample)


def _text_of(kept: Mapping[str, Kept], loaded: Mapping[str, Vocabulary]) -> str:
    about = {
        key: {
            "file": one.file,
            "size": one.size,
            "fingerprint": one.fingerprint,
            "num_rows": len(loaded[key]),
            "special": {n: [r.start, r.stop] for n, r in loaded[key].special.items()},
            "has_counts": loaded[key].usage is not None,
            "tensor": None if one.sample is None else dataclasses.asdict(one.sample),
        }
        for key, one in kept.items()
    }
    return json.dumps({"format": KIND, "version": VERSION, "vocabularies": about}, indent=1)


def _replace_text(path: str, text: str) -> None:
    with beside(path) as written, open(written, "w", encoding="utf-8") as file:
        file.write(text)


def _clear(url: str, used: set[str]) -> None:
    """Removes the files that the JSON before this one named."""
    base = base_name(url)
    for name in os.listdir(parent(url)):
        ours = name.startswith(base) and _DATA.fullmatch(name[len(base) :])
        if ours and name not in used:
            os.unlink(os.path.join(parent(url), name))


def is_looked_beside(checkpoint: Checkpoint) -> bool:
    """Whether what lies beside a checkpoint is looked at though nobody asks for it.

    Beside a remote one only what a user asks for is: it costs requests.
    """
    return not (checkpoint.is_callers or is_remote(checkpoint.url))


def sidecar_vocabularies(url: str, storage: Storage) -> Sidecar:
    """The vocabularies beside a checkpoint; empty if nobody has saved any.

    Only the JSON is read, and only that which lies beside `url`: on the same host, where that is
    remote.

    Raises VocabularyError: it is damaged, or of a version that is not known here.
    """
    url = _followed(url.rstrip("/"), storage)
    path = url + SUFFIX
    if is_signed(url) or not storage.exists(path):
        return Sidecar(path, {}, storage)
    source = storage.open(path)
    try:
        if source.size > _MOST:
            raise VocabularyError(f"{path} has {source.size:,} bytes, which no such file has.")
        raw = source.read(0, source.size).tobytes()
    finally:
        source.close()
    try:
        return Sidecar(path, dict(_kept_in(json.loads(raw), base_name(url))), storage)
    except WRONG_DOCUMENT as error:
        why = why_wrong(error, "it is not what we write")
        raise VocabularyError(f"{path} is damaged: {why}. {_AGAIN}") from error


def _followed(url: str, storage: Storage) -> str:
    """What a link on this machine leads to, if nothing lies beside the link itself."""
    if is_remote(url) or not os.path.islink(url) or storage.exists(url + SUFFIX):
        return url
    return os.path.realpath(url)


def _kept_in(about: Any, base: str) -> Iterator[tuple[str, Kept]]:
    if about["format"] != KIND or about["version"] != VERSION:
        raise WrongDocumentError(
            f"its version is {about['version']!r}, and {VERSION} is known here"
        )
    for key, said in about["vocabularies"].items():
        file, size, fingerprint = said["file"], said["size"], said["fingerprint"]
        ours = _NAME.fullmatch(file)
        if not ours:
            raise WrongDocumentError("a file of it is not called as we call them")
        if not isinstance(size, int) or not 0 < size <= _MOST_DATA:
            raise WrongDocumentError("a size of it is none")
        # A checkpoint may have been renamed, with all that lies beside it.
        yield key, Kept(base + ours[1], size, str(fingerprint), _sample_in(said.get("tensor")))


def _sample_in(said: Any) -> Sample | None:
    if said is None:
        return None
    shape, ends, spread = said["shape"], said["ends"], said["spread"]
    return Sample(tuple(int(size) for size in shape), str(ends), str(spread))
