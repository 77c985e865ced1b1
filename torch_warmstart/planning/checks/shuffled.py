"""Rows that would be taken for others', as the vocabularies beside a local checkpoint betray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import Finding, VocabularyError, WarmStartError, plural
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.rows import OldVocabularies
from torch_warmstart.settings import ClipOrPad, FromCheckpoint, VocabInfo
from torch_warmstart.vocabularies import is_looked_beside

_ATTRIBUTE = "vocabulary"  # where a module says its own


def find_shuffled(items: Iterable[PlanItem], old: OldVocabularies) -> list[Finding]:
    """What the saved vocabularies say against a plan: an error, or a warning.

    An old vocabulary is given that has entries in other rows than the one saved beside the
    checkpoint; or rows are taken by position, and the module's own vocabulary (its attribute
    `vocabulary`, if that is a `Vocabulary`) is another than the saved one.
    """
    if not is_looked_beside(old.checkpoint):
        return []
    taken = [i for i in items if i.state != "kept" and i.variable.slot is None]
    try:
        return list(_found(taken, old))
    except VocabularyError as error:
        text = f"The vocabularies beside the checkpoint cannot be looked at: {error}"
        return [Finding("sidecar-unreadable", "warning", old.checkpoint.url, text)]


def _found(items: Iterable[PlanItem], old: OldVocabularies) -> Iterator[Finding]:
    for item in items:
        of_entries = [c for c in item.changes if isinstance(c.vocab, VocabInfo)]
        if len(item.keys) != 1 or item.keys[0] not in old.sidecar:
            if not of_entries:
                yield from _against_layers(item, old)
            continue
        saved = old.saved(item.keys[0])
        of_rows = [change for change in of_entries if change.axis == 0]
        for change in of_rows if of_entries[1:] else of_entries:
            assert isinstance(change.vocab, VocabInfo)
            yield from _given(item, change.vocab, saved, old)
        by_position = [c for c in item.changes if isinstance(c.vocab, ClipOrPad) and c.axis == 0]
        if all(change.axis != 0 for change in item.changes) and not of_entries:
            yield from _by_position(item, saved)
        elif by_position:
            yield from _by_position(item, saved, by_position[0].old_size)


def _given(
    item: PlanItem, info: VocabInfo, saved: Vocabulary, old: OldVocabularies
) -> Iterator[Finding]:
    from torch_warmstart.vocabularies import read_vocabulary

    if isinstance(info.old_vocab, FromCheckpoint):
        return
    given = read_vocabulary(info.old_vocab, storage=old.storage)
    differ = _in_other_rows(given, saved)
    if differ:
        text = (
            f"{item.name}: {differ} of {given.origin}, which is given as its old vocabulary, "
            f"{'is' if differ.startswith('1 ') else 'are'} elsewhere or not in the one that was "
            f"saved beside {old.checkpoint.url}. {old.instead} to take that."
        )
        yield Finding("old-vocab-differs", "warning", item.name, text)


def _against_layers(item: PlanItem, old: OldVocabularies) -> Iterator[Finding]:
    """The module's own vocabulary against those of lookup layers in the checkpoint.

    Nothing says which layer's is the table's: so it is a warning, where one has the entries in
    other rows and none has them in the same.
    """
    mine = _own(item)
    if mine is None or not len(mine.listed):
        return
    found = {}
    for name, saved in old.checkpoint.vocabularies().items():
        try:
            rows = saved.rows(mine)
        except WarmStartError:  # text and ids
            continue
        known = rows >= 0
        if 2 * int(known.sum()) > len(rows):
            found[name] = int((rows != mine.entry_rows)[known].sum())
    if found and all(found.values()):
        name = min(found, key=lambda each: found[each])
        text = (
            f"{item.name} is taken row by row, but {plural(found[name], 'entry')} of its module's "
            f"vocabulary, {mine.origin}, {'has' if found[name] == 1 else 'have'} another row in "
            f"that of {name!r} in the checkpoint. If that is the table's, say so: "
            f"var_name_to_vocab_info={{{item.name!r}: VocabInfo(module.{_ATTRIBUTE}, "
            f"old_vocab=FROM_CHECKPOINT[{name!r}])}}."
        )
        yield Finding("vocabulary-shuffled", "warning", item.name, text)


def _own(item: PlanItem) -> Vocabulary | None:
    modules = [owner.module for owner in item.variable.owners]
    return next(
        (v for m in modules if isinstance(v := getattr(m, _ATTRIBUTE, None), Vocabulary)), None
    )


def _by_position(item: PlanItem, saved: Vocabulary, until: int | None = None) -> Iterator[Finding]:
    """Of rows that go by their number, those before `until`."""
    mine = _own(item)
    differ = _in_other_rows(mine, saved, until) if mine is not None else ""
    if mine is not None and differ:
        text = (
            f"{item.name} would be taken row by row, but {differ} of its module's vocabulary, "
            f"{mine.origin}, {'has' if differ.startswith('1 ') else 'have'} another row or none in "
            f"the one that {item.keys[0]!r} was trained with. Say so: "
            f"var_name_to_vocab_info={{{item.name!r}: VocabInfo(module.{_ATTRIBUTE})}}."
        )
        yield Finding("vocabulary-shuffled", "error", item.name, text)


def _in_other_rows(vocabulary: Vocabulary, saved: Vocabulary, until: int | None = None) -> str:
    """How many entries have another row in the saved one: `3 entries`; "": none."""
    if vocabulary.fingerprint == saved.fingerprint or not len(vocabulary.listed):
        return ""
    try:
        rows = saved.rows(vocabulary)
    except WarmStartError:  # text and ids
        return plural(len(vocabulary.listed), "entry")
    is_taken = vocabulary.entry_rows < (len(vocabulary) if until is None else until)
    count = int(((rows != vocabulary.entry_rows) & is_taken).sum())
    return plural(count, "entry") if count else ""
