"""Writing what has been prepared: a list of steps, each of which may be done again.

A step holds what it writes and where, and what it leaves does not depend on what was there before
but for rows that stay. So a commit rolls forward: what interrupts a step is raised in the end, and
before that the step is done again and the rest after it. Parameters are filled in place and never
replaced; slots that the optimizer does not have yet are handed to it last. What modules do of their
own when they are loaded has been done before (`module_loading`), while it could be undone.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from torch_warmstart.computing import in_threads
from torch_warmstart.errors import Finding, PartialWriteError, listed
from torch_warmstart.execution.gathering import (
    COPIED_BYTES,
    Rows,
    copy_guarded,
    copy_whole,
    duplicate,
    fill_cells,
    gather_cells,
    gather_with,
    is_plain,
)
from torch_warmstart.formats import Block
from torch_warmstart.model import Variable
from torch_warmstart.model.sharding import parts_of, sharded_like
from torch_warmstart.planning import PlanItem
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.display import Advance
    from torch_warmstart.new_rows import NewRowsAccount
    from torch_warmstart.slots import SlotTargets

_T = TypeVar("_T")

ATTEMPTS = 3  # at a step, before what it raises counts as what it will always raise
_CHECKED_BYTES = 256 << 20  # that are written between two looks at the files
_TASK_BYTES = 4 << 20  # of whole tensors that one thread copies at a time, where several do
_WORTH_THREADS = 2 * COPIED_BYTES
_HERE = torch.device("cpu")


class Step(Protocol):
    """Something to be written."""

    @property
    def items(self) -> tuple[PlanItem, ...]:
        """What of the plan is done once it has been written."""

    def run(self) -> None:
        """Writes it; a second time makes no difference."""


class Write(Step, Protocol):
    """A step that fills one tensor."""

    @property
    def target(self) -> torch.Tensor:
        """What is written to; it shares its memory with the parameter."""

    def staged(self) -> torch.Tensor:
        """What the target would become, in memory of its own."""

    def onto(self, target: torch.Tensor) -> Write:
        """The same for another target."""


class LaterRows(ABC):
    """New rows that are made while they are written: all that can fail in it has been done."""

    nbytes: int  # of all of them

    @abstractmethod
    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Which they are, and some rows, of the target's dtype and on its device."""

    @abstractmethod
    def made(self) -> torch.Tensor:
        """All of them, in memory of their own."""


@frozen(eq=False)
class Filled:
    """New rows that have been made of old ones, for one variable."""

    # Of each part of it that is here, as `parts_of` has them: of its dtype, on its device.
    rows: tuple[torch.Tensor | LaterRows, ...]
    account: NewRowsAccount
    notes: tuple[Finding, ...]  # what has shown only now


@frozen
class Prepared:
    """All that a plan writes, in order."""

    steps: tuple[Step, ...]
    # New rows made of old ones, by the axis that they are along.
    filled: Mapping[tuple[Variable, int], Filled] = field(default_factory=dict)


def _unchecked() -> None:
    """What is called where no source can change."""


def _advance_nothing(description: str, count: int) -> None:
    """What is called where nobody is told."""


class RollForward:
    """Steps on their way: what is done, and what it stopped at if it cannot go on."""

    def __init__(
        self, prepared: Prepared, advance: Advance, check: Callable[[], None] = _unchecked
    ) -> None:
        """Does nothing yet.

        Args:
            prepared: The steps.
            advance: Is told what has been done, until it raises something.
            check: Raises if a source is no longer what it was when the steps were prepared.
        """
        self._steps = tuple(part for step in prepared.steps for part in _parts(step))
        self._advance, self._check = advance, check
        self._done = 0  # steps
        self._sound = 0  # steps that were done when the sources were last looked at
        self._attempts = 0  # at the next one
        self.stopped_by: Exception | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything has been written."""
        return self._sound == len(self._steps)

    def finish(self) -> None:
        """Does what is left; may be called again after whatever it raises.

        An error that passes is raised when all is done; how often steps may fail together has no
        bound, only how often one may.
        """
        first: Exception | None = None
        while not self.is_complete and self.stopped_by is None:
            raised = self._raised_on_the_way()
            first = first or raised
        if first is not None:
            raise first

    def _raised_on_the_way(self) -> Exception | None:
        try:
            self._go_on()
        except Exception as error:
            return error
        return None

    def _go_on(self) -> None:
        """Steps, up to where it is worth a look at the sources."""
        count, copied = 0, self._attempt(self._copied_ahead)
        while self._done < len(self._steps) and count < _CHECKED_BYTES:
            step = self._steps[self._done]
            if self._done not in copied:
                self._attempt(step.run)
            self._done += 1
            self._attempts = 0
            count += _read_bytes(step)
            self._tell(step)
        self._attempt(self._check)
        self._sound = self._done

    def _copied_ahead(self) -> Collection[int]:
        """Copies whole tensors that come next, by several threads; returns which steps they were.

        Each is one thread's work: copied one after the other, they would keep one core busy. What
        fails here is done in its turn, and says there why it cannot be done.
        """
        tasks: list[list[int]] = [[]]
        read, written = 0, 0
        for at in range(self._done, len(self._steps)):
            step = self._steps[at]
            if read >= _CHECKED_BYTES or not (isinstance(step, Copy) and step.is_short):
                break  # as far as `_go_on` goes: what is beyond would be copied again
            read += _read_bytes(step)
            written += step.target.nbytes
            tasks[-1].append(at)
            if written >= _TASK_BYTES * len(tasks):
                tasks.append([])
        if written < _WORTH_THREADS:
            return ()
        return {at for done in in_threads(self._copied, tasks, _HERE) for at in done}

    def _copied(self, steps: Iterable[int]) -> list[int]:
        done = []
        for at in steps:
            with contextlib.suppress(Exception):
                self._steps[at].run()
                done.append(at)
        return done

    def _attempt(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except Exception as error:
            self._attempts += 1
            if self._attempts == ATTEMPTS or isinstance(error, SourceChangedError):
                self.stopped_by = error
            raise

    def _tell(self, step: Step) -> None:
        advance, self._advance = self._advance, _advance_nothing  # until it has not raised
        for item in step.items:
            verb = "Loaded" if is_copied(step) else item.state.capitalize()
            advance(f"{verb} {item.name}", item.nbytes)
        self._advance = advance

    def partial(self, error: Exception) -> PartialWriteError:
        """What to raise where it has stopped."""
        names = [[item.name for item in step.items] for step in self._steps]
        written = [name for of_step in names[: self._sound] for name in of_step]
        left = [name for of_step in names[self._sound :] for name in of_step]
        return PartialWriteError(
            f"The warm start could not be finished: {error} Of the variables that it writes, "
            f"{len(written):,} hold their new values and {len(left):,} do not, or not wholly: "
            f"{_listed(left)}. Warm-start again from a checkpoint that nobody writes to, or build "
            "the model anew.",
            written,
            left,
        )


class SourceChangedError(Exception):
    """A source is not what it was when it was verified; becomes a PartialWriteError."""


def _read_bytes(step: Step) -> int:
    """Bytes of the tensors that a step is made of; several steps may be of one."""
    return sum(item.nbytes for item in step.items)


def _parts(step: Step) -> Iterator[Step]:
    if isinstance(step, Load):
        yield from step.copies
    else:
        yield step


def _listed(names: list[str]) -> str:
    return listed(map(repr, names)) or "the optimizer's new slots"


@frozen(eq=False)
class Load:
    """Whole tensors of the model, whose modules do nothing of their own when they are loaded."""

    copies: tuple[Step, ...]

    @property
    def items(self) -> tuple[PlanItem, ...]:
        return tuple(item for copy in self.copies for item in copy.items)

    def run(self) -> None:
        """Copies them."""
        for copy in self.copies:
            copy.run()


@frozen(eq=False)
class Copy:
    """A whole tensor."""

    source: torch.Tensor
    target: torch.Tensor
    scale: float
    items: tuple[PlanItem, ...]
    safe: bool = True  # nobody can cut the file that the source may lie in

    @property
    def is_short(self) -> bool:
        """Whether it is one thread's work, from memory to memory."""
        is_little = self.target.nbytes <= COPIED_BYTES and self.source.dtype == self.target.dtype
        return self.safe and is_little and is_plain(self.source) and is_plain(self.target)

    def run(self) -> None:
        """Copies and scales it."""
        if self.safe:
            copy_whole(self.source, self.target)
        else:
            copy_guarded(self.source, self.target)
        _scale(self.target, self.scale)

    def staged(self) -> torch.Tensor:
        """As the checkpoint has it, which is how it goes into `load_state_dict`."""
        return self.source.clone() if self.safe else duplicate(self.source)

    def onto(self, target: torch.Tensor) -> Copy:
        """The same for another target."""
        return replace(self, target=target)


@frozen(eq=False)
class Filling:
    """What goes into rows that have no old row; of several axes, into cells."""

    places: tuple[Rows, ...]  # of each axis where they are: the cells that are in all of them
    rows: torch.Tensor | LaterRows | float  # as many, or one number for all

    def run(self, target: torch.Tensor) -> None:
        """Writes them."""
        if not isinstance(self.rows, LaterRows):
            fill_cells(self.rows, self.places, target)
            return
        ((axis, at),) = self.places  # whole rows
        for which, rows in self.rows.blocks():
            fill_cells(rows, [(axis, at[which])], target)

    @property
    def later_bytes(self) -> int:
        """Bytes of rows that are yet to be made."""
        return self.rows.nbytes if isinstance(self.rows, LaterRows) else 0

    def staged(self) -> Filling:
        """The same, of rows that have been made."""
        return replace(self, rows=self.rows.made()) if isinstance(self.rows, LaterRows) else self


@frozen(eq=False)
class Patch:
    """Rows that are back, from an older checkpoint."""

    blocks: tuple[Block, ...]
    remapping: torch.Tensor
    axis: int
    scale: float
    safe: bool

    def run(self, target: torch.Tensor) -> None:
        """Gathers them; other rows stay as they are."""
        gather = gather_with(is_safe=self.safe)
        if self.scale == 1:
            gather(self.blocks, self.remapping, target, self.axis)
            return
        at = (self.remapping >= 0).nonzero().flatten()
        rows = self.remapping.index_select(0, at)
        shape = [*target.shape]
        shape[self.axis] = len(rows)
        scaled = target.new_empty(shape)
        gather(self.blocks, rows, scaled, self.axis)
        target.index_copy_(self.axis, at, scaled.mul_(self.scale))


@frozen(eq=False)
class Gather:
    """Rows that move, and new ones."""

    blocks: tuple[Block, ...]
    remapping: torch.Tensor
    target: torch.Tensor
    axis: int
    scale: float  # not 1 for slots only, whose rows without an old one are filled
    fillings: tuple[Filling, ...]
    items: tuple[PlanItem, ...]
    safe: bool = True  # as a copy is
    patches: tuple[Patch, ...] = ()
    further: tuple[Rows, ...] = ()  # remappings along further axes

    def run(self) -> None:
        """Gathers, scales and fills them; last come those that are back."""
        gather = gather_with(is_safe=self.safe)
        if self.further:
            rows = [(self.axis, self.remapping), *self.further]
            gather_cells(self.blocks, rows, self.target, gather)
        else:
            gather(self.blocks, self.remapping, self.target, self.axis)
        _scale(self.target, self.scale)
        for filling in self.fillings:
            filling.run(self.target)
        for patch in self.patches:
            patch.run(self.target)

    def staged(self) -> torch.Tensor:
        """The rows in their new places, in memory of their own."""
        out = self.target.clone()
        self.onto(out).run()
        return out

    def onto(self, target: torch.Tensor) -> Gather:
        """The same for another target."""
        return replace(self, target=target)


@frozen(eq=False)
class InParts:
    """What this process writes of a sharded tensor: a step for each of its parts."""

    target: torch.Tensor  # the sharded one, which has no bytes of its own
    writes: tuple[Copy | Gather, ...]  # as `parts_of` has the parts of the target
    items: tuple[PlanItem, ...]

    def run(self) -> None:
        """Writes them all."""
        for write in self.writes:
            write.run()

    def staged(self) -> torch.Tensor:
        """A tensor that is sharded in the same way, in memory of its own."""
        parts = [part.tensor.clone() for part in parts_of(self.target)]
        made = sharded_like(self.target, parts)
        self.onto(made).run()
        return made

    def onto(self, target: torch.Tensor) -> InParts:
        """The same for another target that is sharded in the same way."""
        parts = parts_of(target)
        both = zip(self.writes, parts, strict=True)
        return replace(
            self, target=target, writes=tuple(write.onto(part.tensor) for write, part in both)
        )


def is_copied(step: Step) -> bool:
    """Whether it writes whole tensors as they are."""
    return isinstance(step, Copy) or all(isinstance(leaf, Copy) for leaf in leaves([step]))


def leaves(steps: Iterable[Step]) -> Iterator[Copy | Gather]:
    """The steps, or what they consist of, that each write one tensor with bytes of its own."""
    for step in steps:
        if isinstance(step, Load):
            yield from leaves(step.copies)
        elif isinstance(step, InParts):
            yield from step.writes
        elif isinstance(step, Copy | Gather):
            yield step


@frozen(eq=False)
class HandOver:
    """The slots that were made beside the optimizer, given to it: the last step."""

    slots: SlotTargets
    items: tuple[PlanItem, ...] = ()

    def run(self) -> None:
        """Gives them to it."""
        self.slots.hand_over()


def _scale(target: torch.Tensor, scale: float) -> None:
    if scale != 1:
        target.mul_(scale)
