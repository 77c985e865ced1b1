"""Which old vocabulary is meant, where the settings leave it to the checkpoint."""

from __future__ import annotations

from typing import Any

from torch_warmstart.errors import VocabularyError, did_you_mean
from torch_warmstart.formats import Checkpoint
from torch_warmstart.settings import FromCheckpoint
from torch_warmstart.storage import Storage
from torch_warmstart.vocabularies import is_tokenizer_directory, read_vocabulary

_SHOWN = 10  # names of candidates
_GIVE = "Give it: old_vocab= takes what new_vocab takes."


def old_vocabulary(source: Any, checkpoint: Checkpoint, storage: Storage) -> Any:
    """What stands for `FROM_CHECKPOINT`; anything else as it is.

    Without a name only a tokenizer in the checkpoint's own directory is taken: which layer or table
    a variable's rows belong to, no size can tell.

    Raises VocabularyError: the checkpoint holds none, or none of that name, or does not say which.
    """
    if not isinstance(source, FromCheckpoint):
        return source
    found = checkpoint.vocabularies()
    if source.name is not None:
        if source.name in found:
            return found[source.name]
        there = _listed(list(found)) if found else "no vocabulary at all"
        raise VocabularyError(
            f"{checkpoint.url} holds no vocabulary {source.name!r}, but {there}."
            f"{did_you_mean(source.name, found)}{'' if found else ' ' + _GIVE}"
        )
    if is_tokenizer_directory(checkpoint.url, storage):
        return read_vocabulary(checkpoint.url, storage=storage)
    if found:
        raise VocabularyError(
            f"{checkpoint.url} holds {_listed(list(found))}, and does not say which one is for "
            f"this variable. Name it: old_vocab=FROM_CHECKPOINT[{next(iter(found))!r}]."
        )
    raise VocabularyError(
        f"old_vocab is not given, and {checkpoint.url} holds no vocabulary. {_GIVE}"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if names[_SHOWN:] else "")
    return f"the vocabular{'y' if len(names) == 1 else 'ies of'} {shown}"
