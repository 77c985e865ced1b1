"""The exceptions of the library, sorted by whose fault it is, and its warning.

    WarmStartError
    ├── SettingsError (ValueError)              what the caller asked for cannot be done
    │   └── PlanError                           ... with every problem of a plan in one message
    ├── CheckpointError                         the file is at fault
    │   ├── CheckpointNotFoundError (FileNotFoundError)
    │   ├── CorruptCheckpointError
    │   └── MissingTensorError (KeyError)       the checkpoint has no tensor of that key
    ├── VocabularyError (ValueError)            a vocabulary file or sequence is at fault
    ├── UnsupportedError (NotImplementedError)  well-formed, but not something we can do
    ├── StorageError (OSError)                  a filesystem cannot be reached or refuses
    ├── MissingDependencyError (ImportError)    an optional package is not installed
    ├── CallbackError (RuntimeError)            a hook or initialiser of yours raised; its cause
    └── PartialWriteError                       a warm start stopped half way, and says where

    WarmStartWarning (UserWarning)              done, but probably not what was meant

A message has four parts: what failed, where, what was expected and found, what to do next. What a
plan has to say, a problem or a note, is a `Finding` with a code that stays. This module also owns
what many messages share: near-name suggestions, how a text is made printable, and how an entry of a
vocabulary is shown, which can be a person's id.
"""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Literal, TypeGuard, get_args

from torch_warmstart.values import frozen

Severity = Literal["error", "warning", "note"]

_LISTED = 5  # in a sentence, before the others are counted
ENTRIES_SHOWN = 3  # in one message: they can be people's ids
_ENTRY_CHARACTERS = 60
_HIDING = "TORCH_WARMSTART_HIDE_ENTRIES"  # in the environment, so that it is so for all messages
NEAR = 3  # names, of those that are like one that is not there
COMPARED = (
    2_000  # names by difflib, at 10 us each; of more, those are filtered first that share a part
)


# What a document of JSON that is not as it should be raises while its values are taken.
WRONG_DOCUMENT = (
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class WrongDocumentError(ValueError):
    """What is wrong with a document of ours, to follow its name; never leaves the package."""


def why_wrong(error: Exception, otherwise: str) -> str:
    """What to say of a document that raised one of `WRONG_DOCUMENT`."""
    return str(error) if isinstance(error, WrongDocumentError) else otherwise


@frozen
class Finding:
    """Something that a plan, a warm start or a check has to say; `str()` is the sentence.

    Args:
        code: What kind it is, in kebab case. Codes stay as they are; docs/findings.md lists them.
        severity: "error" (nothing is done), "warning" (probably a mistake) or "note".
        subject: The variable, key, setting or file that it is about; "" for the whole.
        text: The sentence: what, where, what was expected and found.
        hint: What to type next, where that is the same for all of its kind; or "".

    Example:
        >>> str(Finding("missing-tensor", "error", "fc.bias", "fc.bias is not in the checkpoint."))
        'fc.bias is not in the checkpoint.'
    """

    code: str
    severity: Severity
    subject: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return self.text


class WarmStartError(Exception):
    """Base of everything this library raises on purpose.

    As text, nothing in it acts upon a terminal, whatever names and paths a file put into it.
    """

    code = "warm-start"  # of the `Finding` that a plan makes of it

    def __str__(self) -> str:
        return "\n".join(map(printable, Exception.__str__(self).split("\n")))


class SettingsError(WarmStartError, ValueError):
    """What the caller asked for cannot be done, whatever the files hold."""

    code = "settings"


class PlanError(SettingsError):
    """A plan with problems: `problems` holds a `Finding` each, the message all of them.

    Problems of the same text are one, those that say the same of several subjects share a line, and
    a hint that several share is said once, below them.
    """

    def __init__(self, headline: str, problems: Sequence[Finding]) -> None:
        by_text = {problem.text: problem for problem in problems}
        self.problems: tuple[Finding, ...] = tuple(by_text.values())
        numbered = [
            f"  {number}. " + line.replace("\n", "\n     ")
            for number, line in enumerate(_lines(self.problems), 1)
        ]
        said = (line for problem in self.problems for line in problem.hint.split("\n") if line)
        hints = dict.fromkeys(said)
        super().__init__("\n".join([headline, *numbered, *hints]))
        self._headline = headline

    @classmethod
    def of(cls, subject: str, problems: Sequence[Finding]) -> PlanError:
        """That something has these problems, so that nothing was changed."""
        count = plural(len({problem.text for problem in problems}), "problem")
        return cls(f"{subject} has {count}; nothing was changed:", problems)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._headline, self.problems)  # between ranks it is pickled


def _lines(problems: Iterable[Finding]) -> list[str]:
    """The problems' texts; what is said of several subjects alike is said of the first."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for problem in problems:
        begins = bool(problem.subject) and problem.text.startswith(problem.subject)
        said = problem.text[len(problem.subject) :] if begins else problem.text
        alike.setdefault((problem.code, said), []).append(problem)
    return [first.text + _the_same_of(others) for first, *others in alike.values()]


def _the_same_of(others: Sequence[Finding]) -> str:
    return f" The same of {listed((other.subject for other in others), 'and')}." if others else ""


class CheckpointError(WarmStartError):
    """A checkpoint cannot be used: missing, damaged, or without the tensor asked for."""

    code = "checkpoint"


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """No checkpoint is where the caller pointed."""


class CorruptCheckpointError(CheckpointError):
    """The bytes of a checkpoint contradict its format or its checksums."""


class MissingTensorError(CheckpointError, KeyError):
    """The checkpoint has no tensor of that key."""

    code = "missing-tensor"


class VocabularyError(WarmStartError, ValueError):
    """A vocabulary file or sequence breaks a rule."""

    code = "vocabulary"


class UnsupportedError(WarmStartError, NotImplementedError):
    """Well-formed input that this library does not handle."""

    code = "unsupported"


class StorageError(WarmStartError, OSError):
    """A filesystem cannot be reached, or refuses; its own error is the `__cause__`."""


class MissingDependencyError(WarmStartError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class CallbackError(WarmStartError, RuntimeError):
    """A load hook or an initialiser, which a warm start calls, has raised, or did more than it may.

    Model and optimizer are as they were; what was raised is the `__cause__`.
    """

    code = "callback"


class PartialWriteError(WarmStartError):
    """A warm start could not be finished: its source can no longer be read.

    Attributes:
        written: The names of the variables that hold their new values, whole.
        not_written: Those that the plan would have written and that do not, or not wholly.
    """

    def __init__(
        self, message: str, written: Iterable[str] = (), not_written: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.written: tuple[str, ...] = tuple(written)
        self.not_written: tuple[str, ...] = tuple(not_written)


class WarmStartWarning(UserWarning):
    """A warm start that works, but is probably not what was meant; issued before the first write.

    A note of the plan and of the report says the same.
    """


def printable(text: str) -> str:
    r"""A text with what a terminal would act upon spelt out: a name may hold `\n` or `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def hides_entries() -> bool:
    """Whether no entry of a vocabulary may be shown: TORCH_WARMSTART_HIDE_ENTRIES=1."""
    return os.environ.get(_HIDING, "") not in ("", "0")


def entry_text(entry: object) -> Any:
    """An entry as text where it is bytes; what is no UTF-8 is spelt out."""
    return entry.decode("utf-8", "backslashreplace") if isinstance(entry, bytes) else entry


def shown_entry(entry: object) -> str:
    """An entry of a vocabulary in a message, shortened; `(hidden)` where none may be shown."""
    if hides_entries():
        return "(hidden)"
    value = entry_text(entry)
    shown = repr(value) if isinstance(value, str) else str(value)
    too_long = len(shown) > _ENTRY_CHARACTERS
    return shown[:_ENTRY_CHARACTERS] + "..." if too_long else shown


def shown_value(value: object) -> str:
    """An argument of a wrong kind, in a message; a list's kind is said, as it may hold entries."""
    if value is None or isinstance(value, str | bytes | numbers.Number):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"


def said_of_entries(error: Exception) -> str:
    """The first line of what another library says of a file; it may hold an entry."""
    if hides_entries():
        return "what is said of it is hidden, as entries are"
    return str(error).split("\n", 1)[0]


def cause_of(error: Exception) -> Exception | None:
    """What an error of ours is raised from, whose text a traceback shows: it may hold an entry."""
    return None if hides_entries() else error


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a user's argument is a whole number, numpy's too; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a user's argument is a number, numpy's too; a bool is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_kind(what: str, value: object, kind: type | UnionType, expected: str) -> None:
    """Raises SettingsError for an argument that is of another kind; a bool is no number."""
    if not (is_whole(value) if kind is int else isinstance(value, kind)):
        raise SettingsError(f"{what} must be {expected}, not a {type(value).__name__}.")


def check_number_of_bytes(what: str, value: object) -> None:
    """Raises SettingsError for an argument that is no number of bytes."""
    if not is_whole(value) or value < 0:
        raise SettingsError(f"{what} is a number of bytes, at least 0, not {value!r:.60}.")


def check_choice(what: str, value: object, choice: Any) -> None:
    """Raises SettingsError unless an argument is one of the words of a Literal of `choices`."""
    if isinstance(value, str) and value in get_args(choice):
        return
    *others, last = map(repr, get_args(choice))
    raise SettingsError(f"{what} is {', '.join(others)} or {last}, not {shown_value(value)}.")


def path_of(what: str, value: object) -> str:
    """A path that a user gave; raises SettingsError for what is none."""
    if not isinstance(value, str | os.PathLike):
        raise SettingsError(f"{what} must be a path, a str or os.PathLike, not {value!r:.60}.")
    path = os.fspath(value)
    check_kind(what, path, str, "a path of text")
    return path


def near_names(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates most like `name`, best first, at most `NEAR` of them."""
    pool = list(dict.fromkeys(candidates))
    if len(pool) > COMPARED:
        pool = _sharing_parts(name, pool)[:COMPARED]
    alike = difflib.get_close_matches(name, pool, n=NEAR, cutoff=0.5)
    return alike or _sharing_parts(name, pool)[:NEAR]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A sentence naming the nearest candidates, or an empty string."""
    return meant_one_of(near_names(name, candidates))


def the_same(*, exactly: bool) -> str:
    """How a sentence begins that says of others what one before it said of the first."""
    return "The same" if exactly else "The same, with other numbers,"


def same_of(names: Iterable[str], *, exactly: bool) -> str:
    """What follows a sentence about the first of several: ` The same of 'b', 'c'.`; or nothing."""
    others = listed(map(repr, names))
    return f" {the_same(exactly=exactly)} of {others}." if others else ""


def meant_one_of(near: Iterable[str]) -> str:
    """The same of names that have been looked for already: one may be what a user misspelt."""
    shown = " or ".join(map(repr, near))
    return f" Did you mean {shown}?" if shown else ""


def nearest_are(near: Iterable[str]) -> str:
    """The same where nothing is misspelt: a pattern, or a name of the model's."""
    shown = ", ".join(map(repr, near))
    return f" Nearest: {shown}." if shown else ""


def listed(texts: Iterable[str], word: str = "", most: int = _LISTED) -> str:
    """`a, b, c`, with a word `a, b and c`; of more than five the first: `a, b and 1,234 more`."""
    texts = list(texts)
    if len(texts) > most:
        return f"{', '.join(texts[:most])} and {len(texts) - most:,} more"
    *first, last = texts or [""]
    return f"{', '.join(first)} {word} {last}" if first and word else ", ".join(texts)


def with_code(text: str, code: str) -> str:
    """The text of a warning: the code at its end is what a filter of warnings looks for."""
    return f"{text} [{code}]"


def and_others(count: int, noun: str = "variable") -> str:
    """What is said behind the first of so many: ` (and 2 other variables)`, or nothing."""
    return f" (and {plural(count - 1, f'other {noun}')})" if count > 1 else ""


def listed_entries(entries: Iterable[Any]) -> str:
    """The same of entries, of which one message shows fewer: `'a', 'b', 'c' and 1,234 more`."""
    return listed(map(shown_entry, entries), most=ENTRIES_SHOWN)


def as_sentence(text: str) -> str:
    """A text with a full stop, unless it ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`, `3 keys`, `1,234 entries`."""
    if count == 1:
        return f"1 {noun}"
    ends_in_ies = noun.endswith("y") and noun[-2] not in "aeou"
    return f"{count:,} {noun[:-1]}ies" if ends_in_ies else f"{count:,} {noun}s"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _sharing_parts(name: str, pool: Sequence[str]) -> list[str]:
    """Those that contain the most parts of the name (`city` of `city.weight`), shortest first."""
    spellings = {part: {part, *_alike_parts(part, pool)} for part in _parts(name)}
    scored = [
        (sum(any(s in candidate for s in spelled) for spelled in spellings.values()), candidate)
        for candidate in pool
    ]
    best = max((score for score, _ in scored), default=0)
    return sorted((c for score, c in scored if score == best > 0), key=lambda c: (len(c), c))


def _alike_parts(part: str, pool: Sequence[str]) -> list[str]:
    if len(pool) > COMPARED:
        return []
    known = {known for candidate in pool for known in _parts(candidate)}
    return difflib.get_close_matches(part, sorted(known), cutoff=0.7)


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("/", ".").split(".") if part]
