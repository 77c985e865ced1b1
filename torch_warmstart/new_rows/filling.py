"""What fills the rows of a variable that have no old row: one value, decided while planning.

The executor carries it out and decides nothing; the plan's text shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from torch_warmstart.errors import Finding, plural
from torch_warmstart.settings import KEEP, AnyVocabInfo, Initializer
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.new_rows.composing import Answers, Part


@frozen
class Keep:
    """They stay as the model has them."""

    def __str__(self) -> str:
        return "as the model has them"


@frozen
class Constant:
    """The same number everywhere: zeros, as TensorFlow has it, or what an optimizer begins with."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


UNLESS_SAID = Constant(0.0)  # what new rows of a parameter begin with, as in TensorFlow


@frozen(eq=False)
class Initialised:
    """What an initialiser makes there of a tensor of the variable's full shape."""

    initializer: Initializer
    generator: torch.Generator | None = None
    padding: tuple[int, ...] = ()  # rows that a module never trains: zeros, as torch begins them

    def __str__(self) -> str:
        from torch_warmstart.new_rows.composing import label_of
        from torch_warmstart.new_rows.padding import padding_told

        return label_of(self.initializer) + padding_told(self.padding)


@frozen(eq=False)
class Mixed:
    """What initialisers make of the old rows, the first that answers for a row."""

    answers: Answers
    generator: torch.Generator | None = None  # what random rows are drawn from; None: torch's own

    @property
    def num_unanswered(self) -> int:
        """Rows for which nobody answers, as far as that is known: they begin as zeros."""
        return 0 if self.answers.rest else len(self.answers.open)

    def __str__(self) -> str:
        parts = [(part.label, len(part.new), _needs(part)) for part in self.answers.parts]
        told = [f"{count:,} {label}{needs}" for label, count, needs in parts]
        if self.answers.rest:
            asked = " | ".join(single.label for single in self.answers.rest)
            told.append(f"{len(self.answers.open):,} {asked} (asked when it is carried out)")
        elif self.num_unanswered:
            told.append(f"{self.num_unanswered:,} zeros, as nobody answers for them")
        return ", ".join(told)


def unanswered_rows(name: str, count: int) -> Finding:
    """The warning that nobody has answered for some new rows."""
    begins = "begins" if count == 1 else "begin"
    hint = "End with one that answers for all: ... | init.mean()."
    text = (
        f"{name}: no initialiser answers for {plural(count, 'new row')}, which {begins} as zeros."
    )
    return Finding("new-rows-unanswered", "warning", name, f"{text} {hint}", hint)


def equal_rows(name: str, counts: Mapping[str, int]) -> Finding:
    """The note that new rows begin equal, by who made them so."""
    by = " and ".join(f"{count:,} by {label}" for label, count in counts.items())
    first = next(iter(counts))
    hint = f"Where that matters, add noise: init.{first.partition('(')[0]}(...) + init.noise(0.02)."
    text = f"{name}: new rows begin equal to another ({by}). {hint}"
    return Finding("new-rows-equal", "note", name, text, hint)


def _needs(part: Part) -> str:
    needs = getattr(part.single.initializer, "needs", "")
    return f" (needs {needs})" if needs else ""


Fill = Keep | Constant | Initialised | Mixed


def fill_of_variable(info: AnyVocabInfo) -> Fill:
    """What fills new rows of a parameter or buffer: what its `backup_initializer` says."""
    initializer = info.backup_initializer
    if callable(initializer):
        return Initialised(initializer, info.generator)
    return Keep() if initializer == KEEP else UNLESS_SAID


def fill_of_slot(info: AnyVocabInfo, start: float | None) -> Fill | None:
    """What fills new rows of an optimizer's slot; None: nobody knows.

    They are never kept: they begin as the optimizer would begin them, unless an initialiser is
    given for the very slot.

    Args:
        info: The slot's own, or its parameter's without the initialiser.
        start: What the optimizer begins with, if that is known.
    """
    initializer = info.backup_initializer
    if callable(initializer):
        return Initialised(initializer, info.generator)
    return None if start is None else Constant(start)
