"""A model on the meta device gets tensors: for what is filled, and what its modules initialise.

The new tensors are registered before anything else is done, so that all that follows finds a model
like any other; `undo` puts those back that were there. What is not filled is initialised by the
`reset_parameters` of its module. That is watched: what it did not write stays on the meta device,
where a use of it is noticed, rather than to hold what was in memory before.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.computing import Mode, as_the_caller
from torch_warmstart.errors import CallbackError, Finding
from torch_warmstart.execution.loading.module_loading import Outcome
from torch_warmstart.model import (
    Attributes,
    Extent,
    Extents,
    Journal,
    Owner,
    Variable,
    extent_of,
    is_on_meta,
    makers_of,
    mode_of,
    modules_of,
    place_of,
    resetter_of,
    transient_buffers,
)
from torch_warmstart.model.sharding import is_sharded, local_tensors, shard_number, take_new_shards
from torch_warmstart.planning import (
    PlanItem,
    WarmStartPlan,
    is_made_by_module,
    left_by_module,
    left_on_meta,
)

_PRIME = 1_000_000_000_039  # between two drawings: shards' numbers lie closer


class Materialised:
    """What has been made of a plan's variables on meta; nothing, if none is."""

    def __init__(self, plan: WarmStartPlan) -> None:
        """Makes nothing yet."""
        self._model, self._plan = plan.model, plan
        on_meta = [item.variable for item in plan.items if is_on_meta(item.variable)]
        buffers = [buffer for buffer in transient_buffers(plan.model) if is_on_meta(buffer)]
        by_module = [item.variable for item in plan.items if is_made_by_module(item)]
        self._reset = _resettable([*by_module, *buffers])
        left = {v for v in (*by_module, *buffers) if not self._is_reset(v)}
        self._made = {v: None for v in (*on_meta, *buffers) if v not in left}
        self._new: dict[Variable, torch.Tensor] = {}
        self._extents: dict[Variable, list[Extent | None]] = {}  # where those lie
        self._before = Attributes()  # of modules that get new ones
        self._items: dict[Variable, PlanItem] = {}  # for the new tensors, by what they were
        self._open = dict.fromkeys(v for v in (*by_module, *buffers) if v in self._made)

    def _is_reset(self, variable: Variable) -> bool:
        return any(owner.module is module for owner in variable.owners for module in self._reset)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The new tensors."""
        return [*self._new.values()]

    def register(self) -> WarmStartPlan:
        """Makes the tensors, puts them into the modules, and returns the plan that is for them."""
        if not self._made:
            return self._plan
        with torch.no_grad():
            for variable in self._made:
                self._new[variable] = _made_of(variable)
        owners = (owner for variable in self._new for owner in variable.owners)
        self._before.keep(
            {id(m): m for m, _ in (place_of(self._model, o) for o in owners)}.values()
        )
        for variable, tensor in self._new.items():
            self._extents[variable] = [extent_of(local) for local in local_tensors(tensor)]
            self._put(variable.owners, tensor)
        take_new_shards(self._model)
        self._items = {item.variable: self._with_new(item) for item in self._plan.items}
        return replace(self._plan, items=tuple(self._items.values()))

    def _with_new(self, item: PlanItem) -> PlanItem:
        new = self._new.get(item.variable)
        if new is None:
            return item
        return replace(item, variable=replace(item.variable, tensor=new))

    def initialise(self, journal: Journal, outcome: Outcome) -> list[Finding]:
        """Lets modules initialise what is not filled; says what none of them did.

        A module may write into a buffer, or put another one in its place.

        Raises CallbackError with what a module raises as its cause.
        """
        buffers = [self._new[v] for v in self._open if v.kind == "buffer"]
        for buffer in buffers:
            _fill_with_nan(buffer)
        mark = len(journal)
        if self._reset:  # it may set what is not its own, as train() does
            journal.keep_attributes(modules_of(self._model))
        for module, path in self._reset.items():
            _run(module, path, journal)
        taken = {v for v in self._open if v.kind == "parameter" and self._takes_values(v)}
        # One that makes a bias anew makes its weight anew, too, which is there or is to be filled.
        journal.spare([self._new[v] for v in self._open], buffers)
        written = journal.written_since(mark)
        of_nothing = {id(buffer) for buffer in buffers if _has_nan(buffer)}
        open_ones = [
            v
            for v in self._open
            if id(self._new[v]) in of_nothing
            or not (
                v in taken
                or self._is_given_memory(v)
                or _is_written(self._new[v], written, journal)
            )
        ]
        left = [v for v in open_ones if not self._is_replaced(v)]
        for item in (self._items[v] for v in left if v in self._items):
            outcome.items[item.variable] = left_by_module(item)
        return self._take_back(left)

    def _takes_values(self, variable: Variable) -> bool:
        """Whether a module has put a parameter in the place of an empty one, which gets its values.

        And its place again: it is tied, or of a class, as the one on meta was.
        """
        empty, found = self._new[variable], False
        for module, leaf in (place_of(self._model, owner) for owner in variable.owners):
            made = module._parameters.get(leaf)
            if made is None or made is empty or made.is_meta or made.shape != empty.shape:
                continue
            if is_sharded(made) is not is_sharded(empty):
                continue
            with torch.no_grad():
                empty.copy_(made)
            setattr(module, leaf, empty)
            found = True
        return found

    def _is_given_memory(self, variable: Variable) -> bool:
        """Whether a module has given an empty tensor another memory, by `tensor.data = ...`."""
        new = self._new[variable]
        if new.is_meta or new.shape != variable.tensor.shape:
            return False
        return [extent_of(local) for local in local_tensors(new)] != self._extents[variable]

    def _is_replaced(self, variable: Variable) -> bool:
        """Whether a module has put a buffer of its own, of that shape, where an empty one was."""
        places = (place_of(self._model, owner) for owner in variable.owners)
        now = [getattr(module, leaf, None) for module, leaf in places]
        empty = self._new[variable]
        return variable.kind == "buffer" and all(
            isinstance(tensor, torch.Tensor)
            and tensor is not empty
            and not tensor.is_meta
            and tensor.shape == empty.shape
            for tensor in now
        )

    def settle_kept(self, outcome: Outcome) -> list[Finding]:
        """Takes back what a hook of the model's kept from being filled."""
        new = {id(tensor): variable for variable, tensor in self._new.items()}
        kept = [
            new[id(variable.tensor)]
            for variable, item in outcome.items.items()
            if item.state == "kept" and id(variable.tensor) in new
        ]
        return self._take_back([v for v in kept if v not in self._open])

    def _take_back(self, variables: list[Variable]) -> list[Finding]:
        if not variables:
            return []
        old = {id(self._new[variable]): variable.tensor for variable in variables}
        for module in modules_of(self._model):  # wherever a hook has put them
            for leaf, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if id(tensor) in old:
                    setattr(module, leaf, old[id(tensor)])
        take_new_shards(self._model)
        return [left_on_meta(variables)]

    def undo(self) -> None:
        """Puts back what was there; a second time makes no difference."""
        for variable in self._new:
            with contextlib.suppress(Exception):  # its class, or a hook of torch's, may refuse it
                self._put(variable.owners, variable.tensor)
        self._before.put_back()
        if self._new:
            take_new_shards(self._model)

    def _put(self, owners: Iterable[Owner], tensor: torch.Tensor) -> None:
        """By setattr: an RNN keeps a list of its weights besides."""
        for owner in owners:
            module, leaf = place_of(self._model, owner)
            setattr(module, leaf, tensor)


# A module may make a buffer of what nobody has filled, as a spectral norm's power iteration makes
# its vectors of each other: what was NaN before is then NaN still.


def _fill_with_nan(buffer: torch.Tensor) -> None:
    for local in _that_can_be_nan(buffer):
        local.fill_(float("nan"))


def _has_nan(buffer: torch.Tensor) -> bool:
    return any(bool(local.amin().isnan()) for local in _that_can_be_nan(buffer))


def _that_can_be_nan(buffer: torch.Tensor) -> list[torch.Tensor]:
    """What is here of it, if it has values that can; types of one byte do not compute."""
    parts = [torch.view_as_real(p) if p.is_complex() else p for p in local_tensors(buffer)]
    return [p for p in parts if p.numel() and p.is_floating_point() and p.dtype.itemsize > 1]


def _is_written(tensor: torch.Tensor, written: Iterable[Extent], journal: Journal) -> bool:
    """Whether something was written into all that is here of a tensor."""
    parts = local_tensors(tensor)
    if not parts:  # what the others have of it decides, which see the same writes
        return journal.has_seen_empty(tensor)
    places = Extents((local, at) for at, local in enumerate(parts))
    reached = {at for extent in written for at in places.touching(extent)}
    here = [at for at, local in enumerate(parts) if extent_of(local) is not None]
    return reached.issuperset(here)


def _resettable(variables: Iterable[Variable]) -> dict[torch.nn.Module, str]:
    """The modules that can initialise some of these, and what they are called."""
    return {owner.module: owner.path for each in variables for owner in makers_of(each)}


def _made_of(variable: Variable) -> torch.Tensor:
    """A tensor without values for one on meta, where it will be."""
    old = variable.tensor
    with mode_of(old):
        made = torch.empty_like(old, device=variable.device, requires_grad=False)
        if issubclass(type(old), torch.nn.Parameter):
            plain = made.as_subclass(torch.Tensor)
            made = torch.Tensor._make_subclass(type(old), plain, old.requires_grad)
        elif isinstance(old, torch.nn.Parameter):  # of another class, which torch marks as one
            made = torch.nn.Parameter(made, requires_grad=old.requires_grad)
    for name, value in vars(old).items():  # what others have written on it
        if name not in vars(made):
            with contextlib.suppress(AttributeError):
                setattr(made, name, value)
    return made


def _run(module: torch.nn.Module, path: str, journal: Journal) -> None:
    reset = resetter_of(module)
    assert reset is not None
    try:
        with as_the_caller(), journal.mode, _chance_of(module):
            reset()
    except Exception as error:
        raise CallbackError(
            f"{path or 'The model'} ({type(module).__name__}): its reset_parameters() raised "
            f"{type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _chance_of(module: torch.nn.Module) -> Iterator[None]:
    """Within, each shard has random numbers of its own on a CPU, and copies have the same.

    On other devices torch sees to that.
    """
    own = (*module._parameters.values(), *module._buffers.values())
    there = (tensor for tensor in own if tensor is not None)
    if not any(is_sharded(tensor) and tensor.device.type == "cpu" for tensor in there):
        yield
        return
    seed = int(torch.randint(1 << 62, ()))
    # Only here, as filters are all threads'.
    with torch.random.fork_rng(devices=[]), _Drawing(seed), warnings.catch_warnings():
        # It says that DTensors on a CPU take random numbers as plain ones do; that is seen to.
        warnings.filterwarnings("ignore", ".*DTensor random operators.*")
        yield


class _Drawing(Mode):
    """Begins each drawing of random numbers anew: by how many there were, and for which part.

    A rank has a shard of one parameter and all of another, and a number that is drawn for the
    shard, as many as there are, must not change those that all ranks have alike.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed, self._count = seed, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            self._count += 1
            sharded = [a for a in args if isinstance(a, torch.Tensor) and is_sharded(a)]
            number = functools.reduce(lambda sum_, a: 31 * sum_ + shard_number(a), sharded, 0)
            torch.manual_seed((self._seed + _PRIME * self._count + number) % (1 << 62))
        return func(*args, **(kwargs or {}))
