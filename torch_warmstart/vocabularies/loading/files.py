"""Files: what one is, by its content, and who reads it."""

from __future__ import annotations

import torch

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import VocabularyError
from torch_warmstart.storage import Bytes, Storage
from torch_warmstart.vocabularies.loading.arrays import vocabulary_of
from torch_warmstart.vocabularies.loading.lines import entries_of_lines
from torch_warmstart.vocabularies.loading.saved import is_saved, read_saved


def read_file(
    url: str,
    storage: Storage,
    *,
    column: str | int | None = None,
    key: str | None = None,
    format: str | None = None,
) -> Vocabulary:
    """A file or directory as a vocabulary."""
    raw = _bytes_of(url, storage)
    if is_saved(raw):
        return read_saved(raw, url)
    return vocabulary_of(entries_of_lines(torch.from_numpy(raw), url))


def _bytes_of(url: str, storage: Storage) -> Bytes:
    try:
        raw = storage.read_all(url)
    except OSError as error:
        why = error if error.errno is None else OSError(error.errno, error.strerror, url)
        raise VocabularyError(f"Vocabulary file {url} cannot be read: {why}") from error
    if not len(raw):
        raise VocabularyError(f"{url} is empty: a vocabulary needs at least one entry.")
    return raw


def is_tokenizer_directory(url: str, storage: Storage) -> bool:
    """Whether a directory holds a tokenizer's files."""
    return storage.is_directory(url) and False
