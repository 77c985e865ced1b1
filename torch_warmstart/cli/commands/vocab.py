"""The commands `vocab diff` and `vocab update`: a vocabulary from day to day."""

from __future__ import annotations

import argparse
from typing import Any

from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.pages import check_free
from torch_warmstart.display import VERSION
from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import entry_text, plural, printable
from torch_warmstart.vocabularies.lifecycle import (
    VocabularyDiff,
    diff_vocabularies,
    update_vocabulary,
    warning_of,
)


def diff(options: argparse.Namespace) -> Answer:
    """Runs `vocab diff`; exits with 1 if an entry moved, came or went."""
    old, new = _load(options.old, options), _load(options.new, options)
    earlier = [_load(path, options) for path in options.earlier]
    found = diff_vocabularies(old, new, options.counts, earlier=earlier)
    document = found.to_dict()
    code = DIFFERENT if document["differs"] else OK
    if options.fate is None:
        return Answer(found, code, document=document)
    entries = _entries(found, options.fate, old if options.fate == "dropped" else new)
    listed = [{"row": row, "entry": entry} for row, entry in entries]
    document["listed"] = {"fate": options.fate, "entries": listed}
    return Answer("\n".join(printable(str(entry)) for _, entry in entries), code, document=document)


def update(options: argparse.Namespace) -> Answer:
    """Runs `vocab update`."""
    check_free(options.out, force=options.force)
    old = _load(options.old, options)
    warning = warning_of(old)
    new = update_vocabulary(
        old,
        options.counts,
        min_count=options.min_count,
        expire_after=options.expire_after,
        max_size=options.max_size,
        today=options.today,
    )
    found = diff_vocabularies(old, new)
    if not options.dry_run:
        new.save(options.out)
    document = {
        "version": VERSION,
        "kind": "vocabulary-update",
        "path": options.out,
        "written": not options.dry_run,
        "fingerprint": new.fingerprint,
        "diff": found.to_dict(),
        "totals": {"rows": len(new), "entries": len(new.listed)},
        "warnings": [warning] if warning else [],
    }
    did = "Would write" if options.dry_run else "Wrote"
    size = f"{plural(len(new), 'row')}, {plural(len(new.listed), 'entry')}"
    said = "\n".join(filter(None, (warning, f"{did} {options.out}: {size}")))
    return Answer(found, OK, said, document)


def _load(path: str, options: argparse.Namespace) -> Vocabulary:
    column = options.column
    by_number = column is not None and column.isdecimal()
    column = int(column) if by_number else column
    return Vocabulary.load(path, column=column, key=options.key, format=options.format)


def _entries(found: VocabularyDiff, fate: Any, of: Vocabulary) -> list[tuple[int, str | int]]:
    """The rows and entries of a kind, in the order of their rows."""
    rows = found.rows[fate]
    values = of.listed.take(of.numbers_at(rows)).values(slice(None))
    return list(zip(rows.tolist(), map(entry_text, values), strict=True))
