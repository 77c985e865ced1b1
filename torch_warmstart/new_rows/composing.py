"""Initialisers of new rows, and how they stand together: `a | b + noise`.

The first that answers for a row makes it. While planning, an initialiser says which rows it answers
for; where it needs no values it says its mixture too. What is left is made when the plan is carried
out. The law of what answers for what is here, once, for both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch

from torch_warmstart.dtypes import NO_PLAIN_TENSOR, lies_in_memory, loses_values
from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.dense import Likeness, Some
from torch_warmstart.new_rows.mixture import Mixture, check_mixture, count_equal
from torch_warmstart.new_rows.moments import Values
from torch_warmstart.new_rows.rows import TOGETHER, NewRows, OldRows
from torch_warmstart.settings import Initializer, takes_new_rows
from torch_warmstart.values import frozen

Guard = Callable[[str, Callable[[], Any]], Any]  # runs what a user wrote
Rows = Mixture | Some | torch.Tensor  # a tensor is all that was asked for


class RowInitializer:
    """What makes new rows of old ones; `|` and `+` compose them.

    Each is a dataclass whose fields are the arguments of the function of `tws.init` that has its
    `name`: so it can be written down, and two that were told the same are equal.

    One that needs no values returns a mixture, whose `answered` says for which rows. One that needs
    some says in `needs` what, and in `answers` for which rows.
    """

    takes_new_rows = True
    name: ClassVar[str] = "initialiser"
    needs = ""  # what it reads when the plan is carried out; "": nothing
    is_random = False
    # Whether it knows which rows it makes (`can_make`), and makes whole runs of `TOGETHER` rows bit
    # for bit the same whichever other runs it is asked for.
    makes_runs = False

    @property
    def by_role(self) -> bool:
        """Whether tables of different roles get different mixtures."""
        return False

    @property
    def tables(self) -> tuple[Any, ...]:
        """Which of the arguments are tables from outside, whose values it reads."""
        return ()

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What it was told, by the names of its function's arguments."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, RowInitializer)
        return _are_same([*self.arguments.values()], [*other.arguments.values()])

    def __hash__(self) -> int:
        return hash(type(self))  # what they were told may have none

    def answers(self, new: NewRows) -> torch.Tensor:
        """For which rows: bool of `[m]`. Asked only of those that need values."""
        return torch.ones(len(new), dtype=torch.bool)

    def can_make(self, new: NewRows) -> torch.Tensor:
        """Which of the rows that it answers for it makes after all: bool of `[m]`.

        Asked when the plan is carried out, of those that make runs, where they make only some.
        """
        return torch.ones(len(new), dtype=torch.bool)

    def equals(self, count: int) -> int:
        """How many of so many rows will be equal to another, if that is known before."""
        del count
        return 0

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        """The rows."""
        raise NotImplementedError

    def rows(self, new: NewRows) -> Rows | Likeness:
        """The rows, by those too that leave some to the next without being a mixture."""
        return self(new)

    def __or__(self, other: Any) -> RowInitializer:
        return FirstOf((self, _checked(other)))

    def __ror__(self, other: Any) -> RowInitializer:
        return FirstOf((_checked(other), self))

    def __add__(self, other: Any) -> RowInitializer:
        if not isinstance(other, Noise):
            raise _not_added(other)
        if isinstance(self, WithNoise):
            return WithNoise(self.base, math.hypot(self.scale, other.scale))
        return WithNoise(self, other.scale)

    def __radd__(self, other: Any) -> RowInitializer:
        raise _not_added(other)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<tws.init: {self}>"  # what they were told may be millions of entries


def _are_same(mine: Any, others: Any) -> bool:
    """Whether two arguments are equal; tensors and arrays are if they are one."""
    if mine is others:
        return True
    if isinstance(mine, list | tuple) and isinstance(others, list | tuple):
        return len(mine) == len(others) and all(map(_are_same, mine, others))
    try:
        return type(mine) is type(others) and bool(mine == others)
    except (RuntimeError, TypeError, ValueError):  # of many numbers
        return False


@dataclass(frozen=True, eq=False, repr=False)
class Noise(RowInitializer):
    """What is added to others' rows; by itself it is none."""

    scale: float
    name: ClassVar[str] = "noise"

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        raise SettingsError(
            f"{new.name}: init.noise is added to an initialiser: init.mean() + init.noise("
            f"{self.scale:g})."
        )

    def __or__(self, other: Any) -> RowInitializer:
        del other
        raise SettingsError("init.noise is added with +: (a | b) + init.noise(0.02).")

    __ror__ = __or__

    def __add__(self, other: Any) -> RowInitializer:
        del other
        raise SettingsError(
            "init.noise stands behind what it is added to: init.mean() + init.noise(0.02)."
        )


@dataclass(frozen=True, eq=False, repr=False)
class FirstOf(RowInitializer):
    """Several, of which the first that answers for a row makes it."""

    parts: tuple[Initializer, ...]

    def __post_init__(self) -> None:
        flat = (part.parts if isinstance(part, FirstOf) else (part,) for part in self.parts)
        object.__setattr__(self, "parts", tuple(one for parts in flat for one in parts))

    def __str__(self) -> str:
        return " | ".join(map(label_of, self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class WithNoise(RowInitializer):
    """Another's rows with noise on them."""

    base: RowInitializer
    scale: float

    def __str__(self) -> str:
        text = str(self.base)
        return f"({text}) + noise" if isinstance(self.base, FirstOf) else f"{text} + noise"


def _not_added(other: Any) -> SettingsError:
    what = label_of(other) if callable(other) else repr(other)
    return SettingsError(
        f"+ is for init.noise on what tws.init makes, not for {what}: init.mean() + "
        "init.noise(0.02). The first of two that answers for a row is a | b."
    )


def _checked(other: Any) -> Initializer:
    if isinstance(other, Noise):
        raise SettingsError("init.noise is added with +: (a | b) + init.noise(0.02).")
    if not takes_new_rows(other):
        name = getattr(other, "__name__", repr(other))
        raise SettingsError(
            f"{name} makes whole tensors, and `|` joins what makes rows: those of tws.init, and "
            "functions whose first parameter is annotated tws.NewRows."
        )
    return other  # type: ignore[no-any-return]


def label_of(initializer: Initializer) -> str:
    """What it is called in plans and reports."""
    if isinstance(initializer, RowInitializer):
        return str(initializer)
    function = initializer
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


# -- who answers -----------------------------------------------------------------------------------


@frozen(eq=False)
class Single:
    """One initialiser without `|` and `+`, and the noise on it."""

    initializer: Initializer
    noise: float  # in proportion to how the trained rows spread, in each column

    @property
    def label(self) -> str:
        return label_of(self.initializer) + (" + noise" if self.noise else "")


@frozen(eq=False)
class Part:
    """Rows, and who answers for them."""

    single: Single
    new: NewRows
    mixture: Mixture | None  # None: made when the plan is carried out
    behind: tuple[Single, ...] = ()  # who is asked for rows that it cannot make after all
    num_equal: int = 0  # of its rows, how many are known to be equal to another
    here: NewRows | None = None  # what of it is made by this process; None: all

    @property
    def label(self) -> str:
        return self.single.label


@frozen(eq=False)
class Answers:
    """Who answers for which of a variable's new rows."""

    parts: tuple[Part, ...]
    rest: tuple[Single, ...]  # who is asked when the plan is carried out, as a user's function is
    open: NewRows  # the rows for which nobody has answered so far

    def for_rows(self, needed: torch.Tensor) -> Answers:
        """The same, where no row is made that a mask does not need, if that changes no other."""
        return replace(self, parts=tuple(_for_rows(part, needed) for part in self.parts))

    @property
    def is_random(self) -> bool:
        """Whether a seed is needed."""
        return any(is_random(single.initializer) or single.noise for single in self._asked)

    @property
    def has_functions(self) -> bool:
        """Whether a user's function may be asked, which may draw from wherever it wants."""
        return any(not isinstance(one.initializer, RowInitializer) for one in self._asked)

    @property
    def _asked(self) -> Iterator[Single]:
        """All that may be asked, some of them more than once."""
        for part in self.parts:
            yield part.single
            yield from part.behind
        yield from self.rest


def _for_rows(part: Part, needed: torch.Tensor) -> Part:
    if part.mixture is not None or not getattr(part.single.initializer, "makes_runs", False):
        return part
    asked = needed[part.new.rows]
    if bool(asked.all()):
        return part
    runs = torch.arange(len(asked)) // TOGETHER
    is_asked = torch.zeros(int(runs[-1]) + 1, dtype=torch.bool)
    is_asked[runs[asked]] = True
    return replace(part, here=part.new.only(is_asked[runs]))


def is_random(initializer: Initializer) -> bool:
    """Whether it draws; a user's function may."""
    return bool(getattr(initializer, "is_random", True))


def singles_of(initializer: Initializer, noise: float = 0.0) -> tuple[Single, ...]:
    """An initialiser taken apart: whom to ask, in order."""
    if isinstance(initializer, FirstOf):
        return tuple(one for part in initializer.parts for one in singles_of(part, noise))
    if isinstance(initializer, WithNoise):
        return singles_of(initializer.base, math.hypot(noise, initializer.scale))
    return (Single(initializer, noise),)


def _are_alike(new: NewRows, other: NewRows) -> bool:
    """Whether two tables are of the same vocabularies, whoever holds these."""
    return (
        new.old.size == other.old.size
        and torch.equal(new.remapping, other.remapping)
        and _is_same(new.vocabulary, other.vocabulary)
        and _is_same(new.old.vocabulary, other.old.vocabulary)
    )


def _is_same(one: Vocabulary | None, other: Vocabulary | None) -> bool:
    if one is other or one is None or other is None:
        return one is other
    return len(one) == len(other) and one.fingerprint == other.fingerprint


class Mixtures:
    """Makes rows; a mixture that it has made serves all tables of the same two vocabularies.

    So an input table, its head and the head's bias follow one mixture, which is made once.
    """

    def __init__(self) -> None:
        self._opened: list[tuple[NewRows, OldRows]] = []
        self._made: dict[tuple[RowInitializer, str], list[tuple[NewRows, Mixture | Likeness]]] = {}

    def __call__(self, one: RowInitializer, new: NewRows) -> Rows | Likeness:
        role = new.role if one.by_role else ""
        known = self._made.setdefault((one, role), [])  # of a settings file each table has its own
        for other, made in known:
            if torch.equal(other.rows, new.rows) and _are_alike(other, new):
                return made
        rows = one.rows(new)
        if isinstance(rows, Mixture | Likeness):
            known.append((new, rows))
        return rows

    def open(self, new: NewRows, values: Values) -> OldRows:
        """A table's old rows, now that they can be read.

        Those of a bias are trained where those of its table are: its module's, or the last one.
        """
        old = replace(new.old, values=values)
        if new.role != "bias":
            self._opened.append((new, old))
            return old
        module = old.name.rpartition(".")[0]
        alike = [opened for table, opened in self._opened if _are_alike(table, new)]
        own = [table for table in alike if table.name.rpartition(".")[0] == module]
        return replace(old, table=(own or alike)[-1]) if alike else old


def ask(singles: Sequence[Single], new: NewRows, mix: Mixtures) -> Answers:
    """Asks one after the other, up to one of which only its values tell for which rows it answers.

    Args:
        singles: Whom to ask.
        new: All the rows.
        mix: Makes a mixture without values, or has made it for another table.
    """
    parts: list[Part] = []
    for at, single in enumerate(singles):
        if not len(new):
            break
        one = single.initializer
        if not isinstance(one, RowInitializer):
            return Answers(tuple(parts), tuple(singles[at:]), new)
        mixture = None if one.needs else mix(one, new)
        assert mixture is None or isinstance(mixture, Mixture)
        answered = one.answers(new) if mixture is None else mixture.answered
        if bool(answered.any()):
            kept = None if mixture is None else mixture.only(answered)
            parts.append(_part(single, new.only(answered), kept, tuple(singles[at + 1 :])))
        new = new.only(~answered)
    return Answers(tuple(parts), (), new)


def _part(
    single: Single, new: NewRows, mixture: Mixture | None, behind: tuple[Single, ...]
) -> Part:
    if single.noise:
        return Part(single, new, mixture, behind)
    assert isinstance(single.initializer, RowInitializer)
    known = single.initializer.equals(len(new))
    equal = count_equal(mixture) if mixture is not None else known
    return Part(single, new, mixture, behind, equal)


# -- their rows ------------------------------------------------------------------------------------


@frozen(eq=False)
class Made:
    """Rows that an initialiser has made: a mixture of old ones, or the rows themselves."""

    label: str
    new: NewRows  # those that are here
    mixture: Mixture | None
    rows: torch.Tensor | None  # of `[m, width]`; may be expanded
    noise: float
    everywhere: NewRows  # those that other processes make, too

    def __len__(self) -> int:
        return len(self.everywhere)

    def only(self, rows: torch.Tensor) -> Made:
        """Some of those that are here, by a mask."""
        if bool(rows.all()):
            return self
        return replace(
            self,
            new=self.new.only(rows),
            mixture=None if self.mixture is None else self.mixture.only(rows),
            rows=None if self.rows is None else _chosen(self.rows, rows),
        )


def make(answers: Answers, values: Values, seed: int, mix: Mixtures, guard: Guard) -> list[Made]:
    """All that is left to make: those whose values are needed, and users' functions.

    Rows for which nobody answers are in none of what is returned.

    Args:
        answers: As they were planned.
        values: The old table's.
        seed: What random rows are drawn from.
        mix: Makes a part's mixture, or has made it for another table.
        guard: Runs users' functions.

    Raises SettingsError if something else than rows is returned.
    """
    made: list[Made] = []
    old = mix.open(answers.open, values)
    waiting = [(answers.open.with_values(old, seed), answers.rest)]
    for part in answers.parts:
        new = (part.new if part.here is None else part.here).with_values(old, seed)
        result = _made_by(part.single, new, mix, guard) if part.mixture is None else part.mixture
        taken, left = _taken(result, new, part.single)
        if part.here is not None:
            taken, left = _of_all(taken, part, old, seed)
        made.append(taken)
        waiting.append((left, part.behind))
    while waiting:
        new, singles = waiting.pop()
        if not len(new) or not singles:
            continue
        first, behind = singles[0], singles[1:]
        asked = _answered_by(first, new)
        here = new.only(asked)
        taken, left = _taken(_made_by(first, here, mix, guard), here, first)
        made.append(taken)
        waiting += [(new.only(~asked), behind), (left, behind)]
    return [taken for taken in made if len(taken)]


def _answered_by(single: Single, new: NewRows) -> torch.Tensor:
    """Which rows one is asked to make."""
    one = single.initializer
    if isinstance(one, RowInitializer) and one.needs:
        return one.answers(new)
    return torch.ones(len(new), dtype=torch.bool)


def _made_by(single: Single, new: NewRows, mix: Mixtures, guard: Guard) -> Rows:
    """What one makes of the rows that it is asked for."""
    one = single.initializer
    if not len(new):
        return torch.empty(0, new.width, dtype=torch.float32)
    if isinstance(one, RowInitializer):
        made = mix(one, new)
        return made.of(new.old) if isinstance(made, Likeness) else made
    result = guard(single.label, functools.partial(one, new))
    if isinstance(result, Mixture):
        return check_mixture(result, len(new), new.old.size, f"{new.name}: {single.label}")
    if isinstance(result, torch.Tensor) and tuple(result.shape) == (len(new), new.width):
        if not lies_in_memory(result):
            raise SettingsError(f"{new.name}: {single.label} returned {NO_PLAIN_TENSOR}")
        if loses_values(result, torch.float64):
            raise SettingsError(
                f"{new.name}: {single.label} returned {result.dtype}, and rows are floating "
                "numbers: return those."
            )
        return result.detach()
    found = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    raise SettingsError(
        f"{new.name}: {single.label} must return a tws.Mixture, or a tensor of [{len(new)}, "
        f"{new.width}] with a row for each that it is asked for; it returned {found}."
    )


def _taken(result: Rows, new: NewRows, single: Single) -> tuple[Made, NewRows]:
    """What was made, and the rows that were not."""
    if isinstance(result, torch.Tensor):
        nobody = torch.zeros(len(new), dtype=torch.bool)
        return Made(single.label, new, None, result, single.noise, new), new.only(nobody)
    answered = result.answered
    here, left = new.only(answered), new.only(~answered)
    if isinstance(result, Mixture):
        return Made(single.label, here, result.only(answered), None, single.noise, here), left
    rows = result.rows if bool(answered.all()) else _chosen(result.rows, answered)
    return Made(single.label, here, None, rows, single.noise, here), left


def _of_all(taken: Made, part: Part, old: OldRows, seed: int) -> tuple[Made, NewRows]:
    """What was made of a part of the rows, and of all the rows those that nobody has made."""
    new = part.new.with_values(old, seed)
    assert isinstance(part.single.initializer, RowInitializer)  # only these make runs
    able = part.single.initializer.can_make(new)
    return replace(taken, everywhere=new.only(able)), new.only(~able)


def _chosen(rows: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Rows by a mask; of one row for all it stays one."""
    if len(rows) and rows.stride(0) == 0:
        return rows[:1].expand(int(which.sum()), -1)
    return rows[which.to(rows.device)]
