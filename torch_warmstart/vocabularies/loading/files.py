"""Files: what one is, by its content, and who reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

from torch_warmstart.entries import Vocabulary, vocabulary_of, with_rows_of_a_list
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    SettingsError,
    StorageError,
    VocabularyError,
    WarmStartError,
    did_you_mean,
    listed,
)
from torch_warmstart.storage import (
    ARROW,
    ARROW_STREAM,
    HDF5,
    NPY,
    PARQUET,
    ZIP,
    Bytes,
    Storage,
    base_name,
)
from torch_warmstart.vocabularies.loading.content import (
    BOM,
    HEAD,
    empty,
    is_counted,
    is_json,
    is_json_lines,
    is_json_throughout,
    is_kept_table,
    is_numbered,
    is_packed,
    is_saved,
    is_tiktoken,
    what_else_it_is,
    why_no_text,
)
from torch_warmstart.vocabularies.loading.lines import entries_of_lines

_FORM_OF = {PARQUET: "parquet", ARROW: "arrow", ARROW_STREAM: "arrow", NPY: "npy"}
_CONTAINERS = (ZIP, HDF5)  # .keras and .h5
_INDEX = ".index"  # of the files that a TensorFlow checkpoint's path stands for
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_TABLES = ("csv", "tsv", "jsonl", "parquet", "arrow")
_PACKED = re.compile(r"\.(gz|bz2|xz|zst|zstd)$")
_SCORED = re.compile(rb"[^\n]*\t-?\d+(\.\d+)?(e-?\d+)?")
_TEXTS = ("csv", "tsv", "jsonl", "json", "vocab", "tiktoken")  # but lines, which look by themselves
_NO_TOKENIZER = "no file of a tokenizer (tokenizer.json, vocab.json, vocab.txt, tokenizer.model)"
_FORMATS = ("lines", *_TABLES, "json", "model", "vocab", "tiktoken", "npy")


def read_file(
    url: str,
    storage: Storage,
    *,
    column: str | int | None = None,
    key: str | None = None,
    format: str | None = None,
) -> Vocabulary:
    """A file or directory as a vocabulary.

    Args:
        url: Where it is.
        storage: What opens it.
        column: Of a table.
        key: The layer or table of a file that may hold several.
        format: One of those above, where the content does not tell.
    """
    if format is not None and format not in _FORMATS:
        raise SettingsError(f"format is one of {', '.join(_FORMATS)}, not {format!r}.")
    if key is not None or _is_directory(url, storage):
        for name, value in (("column", column), ("format", format)):
            if value is not None:
                raise SettingsError(
                    f"{name}={value!r} is for files by themselves, not for a directory or what "
                    f"{url} holds by a key."
                )
        return _read_directory(url, storage, key)
    try:
        raw = _bytes_of(url, storage)
    except VocabularyError as error:
        if isinstance(error.__cause__, FileNotFoundError) and storage.exists(url + _INDEX):
            return _in_checkpoint(url, storage, key)
        raise
    if raw[:8].tobytes().startswith(_CONTAINERS):
        return _in_checkpoint(url, storage, key)
    raw = _unfolded(raw, url)
    form = format or _form_of(raw, url, column)
    if column is not None and form not in _TABLES:
        raise SettingsError(f"column={column!r} is for tables, and {url} is read as {form}.")
    if not len(raw):
        raise empty(url)
    _check_content(raw[:HEAD].tobytes(), url, form, is_said=format is not None)
    if form == "parquet":
        from torch_warmstart.vocabularies.nvtabular import read_categories

        found = read_categories(raw, url, column, storage)
        if found is not None:
            return found
    is_said = form in (format, _SUFFIXES.get(_suffix(url)))
    return _read(raw, url, form, column, is_said=is_said)


def _unfolded(raw: Bytes, url: str) -> Bytes:
    if not is_packed(raw):
        return raw
    from torch_warmstart.vocabularies.loading.compression import decompressed

    return decompressed(raw, url)


def _check_content(head: bytes, url: str, form: str, *, is_said: bool) -> None:
    """Raises VocabularyError for content that cannot be what it is to be read as."""
    why = why_no_text(head, form) if form in _TEXTS else ""
    if why:
        advice = "leave format= out" if is_said else "pass its entries as a sequence"
        raise VocabularyError(f"{url} {why}, and is to be read as {form}: {advice}.")
    if form == "json" and is_json_lines(head.removeprefix(BOM)):
        raise VocabularyError(
            f"{url} is JSON lines: say which of their names has the entries: "
            "Vocabulary.load(..., column='token', format='jsonl')."
        )
    if form == "jsonl" and head.removeprefix(BOM).lstrip()[:1] == b"[":
        raise VocabularyError(
            f"{url} is a list of JSON's, not a line for each entry: write it as JSON lines "
            "(to_json(path, orient='records', lines=True) of pandas), or pass the column as a "
            "sequence."
        )
    if form == "lines" and not is_said and not what_else_it_is(head):
        _check_no_table(head, url)
    whole = head.split(b"\n")[:-1] if form == "vocab" else []
    if not all(_SCORED.fullmatch(line.rstrip(b"\r")) for line in whole):
        raise VocabularyError(
            f"{url} has lines that are no piece, a tab and its score, as each line of "
            "sentencepiece's .vocab is."
        )


def _check_no_table(head: bytes, url: str) -> None:
    """Raises VocabularyError for lines that look like rows of a table."""
    is_one = "if each line is an entry with its separators, Vocabulary.load(..., format='lines')"
    for table, separator in (("csv", b","), ("tsv", b"\t")):
        if is_numbered(head, separator):
            raise VocabularyError(
                f"{url} seems to be a {table}, not one entry a line: say which column holds the "
                "entries, by name where the first line has the names, else by number: "
                f"Vocabulary.load(..., column=0, format={table!r}); or, {is_one}."
            )
    name = next((name for name, is_it in _OTHER_TABLES.items() if is_it(head)), None)
    if name is not None:
        raise VocabularyError(
            f"{url} seems to be a table with {name} between its cells, not one entry a line: pass "
            f"the column of its entries as a sequence; or, {is_one}."
        )


# What is read of them is nothing: only pandas and its like know how each of these is written.
_OTHER_TABLES: Mapping[str, Callable[[bytes], bool]] = {
    "semicolons": lambda head: is_numbered(head, b";"),
    "bars": lambda head: is_numbered(head, b"|"),
    "spaces": is_counted,
}


def _read(
    raw: Bytes, url: str, form: str, column: str | int | None, *, is_said: bool
) -> Vocabulary:
    if form in _TABLES:
        from torch_warmstart.vocabularies.loading.tables import read_table

        return read_table(raw, url, form, column, is_said=is_said)
    if form == "kept table":
        from torch_warmstart.vocabularies.kept_table import read_kept_table

        return read_kept_table(raw, url)
    if form == "saved":
        from torch_warmstart.vocabularies.loading.saved import read_saved

        return read_saved(raw, url)
    if form == "npy":
        return _read_npy(raw, url)
    if form == "lines":
        writable = raw if raw.flags.writeable else raw.copy()
        return vocabulary_of(entries_of_lines(torch.from_numpy(writable), url))
    return _reader_of(form)(raw.tobytes(), url)


def _reader_of(form: str) -> Callable[[bytes, str], Vocabulary]:
    """What a tokenizer's file is read with."""
    if form in ("model", "vocab"):
        from torch_warmstart.vocabularies.loading.sentencepiece import read_model, read_vocab

        return read_model if form == "model" else read_vocab
    if form == "tiktoken":
        from torch_warmstart.vocabularies.loading.tiktoken import read_tiktoken

        return read_tiktoken
    from torch_warmstart.vocabularies.loading.tokenizer_files import read_json

    return read_json


def _form_of(raw: Bytes, url: str, column: str | int | None) -> str:
    """What a file is, by its first bytes; by its name only what has none of its own."""
    head = raw[:HEAD].tobytes()
    text = head.removeprefix(BOM)
    if column is None and is_kept_table(raw):
        return "kept table"
    for magic, form in _FORM_OF.items():
        if head.startswith(magic):
            return form
    if is_saved(raw):
        return "saved"
    suffix = _suffix(url)
    if column is not None:
        return _SUFFIXES.get(suffix) or _table_form(text)
    if suffix in _SUFFIXES and _is_table(text, suffix):
        return _SUFFIXES[suffix]
    return next((form for form, fits in _FORMS if fits(head, suffix, raw)), "lines")


def _table_form(head: bytes) -> str:
    if is_json(head):
        return "jsonl"
    return "tsv" if b"\t" in head.split(b"\n")[0] else "csv"


# In this order; whether a file is one by its first bytes, its suffix and all of it.
_FORMS: tuple[tuple[str, Callable[[bytes, str, Bytes], bool]], ...] = (
    ("json", lambda head, _, raw: _is_json(head.removeprefix(BOM), raw)),
    ("tiktoken", lambda head, suffix, _: suffix == ".tiktoken" or is_tiktoken(head)),
    ("vocab", lambda head, suffix, _: suffix == ".vocab" or _is_scored(head)),
    (
        "model",
        lambda head, suffix, raw: head[:1] == b"\n" and (suffix == ".model" or _is_model(raw)),
    ),
)


def _is_json(head: bytes, raw: Bytes) -> bool:
    return is_json(head) or is_json_throughout(head, raw)


def _is_model(raw: Bytes) -> bool:
    from torch_warmstart.vocabularies.loading.sentencepiece import is_model

    return is_model(raw.tobytes())


def _suffix(url: str) -> str:
    name = _PACKED.sub("", base_name(url).lower())
    return "." + name.rpartition(".")[2] if "." in name else ""


def _is_table(head: bytes, suffix: str) -> bool:
    """Whether it is no list of entries: of one column of csv nobody sees whether it has a name."""
    return suffix in (".csv", ".tsv") or b"{" in head.split(b"\n")[0]


def _is_scored(head: bytes) -> bool:
    """Whether each line is a piece and its score, and one of the first is for what is unknown."""
    if b"<unk>\t0" not in head:
        return False
    lines = head.split(b"\n")[:-1]
    return b"<unk>\t0" in lines[:10] and all(_SCORED.fullmatch(line) for line in lines)


def _read_npy(raw: Bytes, url: str) -> Vocabulary:
    from torch_warmstart.formats.arrays import array_of_npy
    from torch_warmstart.vocabularies.loading.arrays import from_numpy

    try:
        array = array_of_npy(raw)
    except ValueError as error:
        raise VocabularyError(
            f"{url} is an array of numpy's that cannot be read as text or integers: {error}."
        ) from error
    return with_rows_of_a_list(from_numpy(array, url))


def _read_directory(url: str, storage: Storage, key: str | None) -> Vocabulary:
    from torch_warmstart.vocabularies.loading.tokenizer_files import (
        is_tokenizer_directory,
        read_directory,
    )

    if key is None and is_tokenizer_directory(url, storage):
        return read_directory(url, storage)
    if storage.is_directory(url):
        from torch_warmstart.vocabularies.nvtabular import read_folder

        found = read_folder(url, storage, key)
        if found is not None:
            return found
    return _in_checkpoint(url, storage, key)


def _in_checkpoint(url: str, storage: Storage, key: str | None) -> Vocabulary:
    """The vocabulary of a layer or a table in a file that holds several."""
    from torch_warmstart.formats import open_checkpoint

    try:
        with open_checkpoint(url, storage=storage) as checkpoint:
            found = checkpoint.vocabularies()
    except WarmStartError as error:
        if isinstance(error, VocabularyError | StorageError | ImportError):
            raise
        if isinstance(error, CheckpointNotFoundError) and _is_directory(url, storage):
            held = listed(storage.list_directory(url)) or "nothing"
            raise VocabularyError(
                f"{url} is a directory without a vocabulary: it has {_NO_TOKENIZER}, and no "
                f"single checkpoint. It holds {held}. Pass the vocabulary's own file."
            ) from error
        why = str(error).split("\n", 1)[0].rstrip(":")
        raise VocabularyError(f"{url} holds no vocabulary that can be read: {why}") from error
    if key is not None and key in found:
        return found[key]
    if not found:
        besides = f"{_NO_TOKENIZER}, and " if _is_directory(url, storage) else ""
        raise VocabularyError(
            f"{url} holds no vocabulary: {besides}no lookup layer or table with its entries is in "
            "it. Pass the entries as a sequence, or a file with one entry a line."
        )
    names = listed(map(repr, found))
    if key is None:
        raise VocabularyError(
            f"{url} holds vocabularies by name: {names}. Say which: "
            f"Vocabulary.load(..., key={next(iter(found))!r})."
        )
    raise VocabularyError(
        f"{url} holds no vocabulary {key!r}, but {names}.{did_you_mean(key, found)}"
    )


def _is_directory(url: str, storage: Storage) -> bool:
    try:
        return storage.is_directory(url)
    except FileNotFoundError:  # of a chain, the file within which others are
        return False


def _bytes_of(url: str, storage: Storage) -> Bytes:
    try:
        raw = storage.read_all(url)
    except StorageError:  # which is an OSError, and no fault of the file's
        raise
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        why = error
        if isinstance(error, OSError) and error.errno is not None:
            why = OSError(error.errno, error.strerror, url)
        raise VocabularyError(f"Vocabulary file {url} cannot be read: {why}") from error
    if not len(raw):
        raise empty(url)
    return raw
