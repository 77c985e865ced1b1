"""A planner for `torch.distributed.checkpoint.load` that renames, re-lays out and moves rows.

What is to be done is planned as for any checkpoint, from the metadata that torch has read. A read
item asks for a box of one stored part; what becomes of it is known under its number.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem

from torch_warmstart.computing import forget_derived, on_cpu
from torch_warmstart.errors import (
    Finding,
    SettingsError,
    UnsupportedError,
    WarmStartError,
    is_whole,
)
from torch_warmstart.execution.dcp.reads import Read, reads_of
from torch_warmstart.execution.gathering import fill_cells
from torch_warmstart.execution.initialising import guarded
from torch_warmstart.execution.loading import Outcome, does_something_of_its_own
from torch_warmstart.execution.prepare import fillings
from torch_warmstart.execution.ranks import (
    chance_of,
    explained,
    same_chance,
    told_of,
    what_differs,
)
from torch_warmstart.execution.report import WarmStartReport, make_report
from torch_warmstart.execution.telling import warn_of
from torch_warmstart.formats.torch.dcp import DcpListing
from torch_warmstart.model import (
    Extent,
    extent_of,
    is_on_meta,
    model_variables,
    overlapping,
    share_elements,
    tensors_of,
)
from torch_warmstart.model.sharding import local_tensors
from torch_warmstart.new_rows import Mixed
from torch_warmstart.planning import PlanItem, WarmStartPlan, make_plan
from torch_warmstart.settings import WarmStartSettings

_MOST_READS = 1_000_000


class WarmStartLoadPlanner(LoadPlanner):
    """Warm-starts a model while `torch.distributed.checkpoint.load` reads; made by `load_planner`.

    `plan` is what it does, once `load` has begun.
    """

    def __init__(
        self, model: torch.nn.Module, settings: WarmStartSettings, read_limit: int
    ) -> None:
        if not isinstance(settings, WarmStartSettings):
            raise SettingsError(
                f"load_planner needs WarmStartSettings, not a {type(settings).__name__}."
            )
        if settings.ckpt_to_initialize_from is not None:
            raise SettingsError(
                "load_planner: the reader has the checkpoint; ckpt_to_initialize_from must be None."
            )
        if not is_whole(read_limit) or read_limit <= 0:
            raise SettingsError(f"read_limit must be a number of bytes above 0: {read_limit!r}.")
        self._model, self._settings, self._limit = model, settings, read_limit
        self._plan: WarmStartPlan | None = None
        self._listing: DcpListing | None = None
        self._reads: list[Read] = []
        self._items: list[PlanItem] = []  # whose each read is
        self._left: dict[str, int] = {}  # reads of each variable that have not been committed
        self._fillings: dict[str, Any] = {}
        self._started = time.perf_counter()

    @property
    def plan(self) -> WarmStartPlan:
        """What is done; raises SettingsError before `load` has begun."""
        if self._plan is None:
            raise SettingsError("The plan is made when torch.distributed.checkpoint.load begins.")
        return self._plan

    def report(self) -> WarmStartReport:
        """What was done; raises SettingsError while something is left to be read."""
        if self._plan is None or any(self._left.values()):
            raise SettingsError("torch.distributed.checkpoint.load has not come to its end.")
        return make_report(self._plan, Outcome(), seconds=time.perf_counter() - self._started)

    # -- as LoadPlanner asks for it ----------------------------------------------------------------

    @on_cpu
    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        del is_coordinator  # each rank plans for itself
        if self._plan is not None:
            raise SettingsError(
                "This planner has been used: make one for each load, by "
                "tws.load_planner(model, settings)."
            )
        variables = model_variables(self._model)
        on_meta = next(filter(is_on_meta, variables), None)
        if on_meta is not None:
            raise SettingsError(
                f"{on_meta.name} is on the meta device. Before model.state_dict() is called, make "
                'it by model.to_empty(device="cpu") and what initialises the model; or let '
                "tws.warm_start(model, directory) make it."
            )
        _check_state(state_dict, self._model)
        names = frozenset(name for variable in variables for name in variable.names)
        self._listing = DcpListing(metadata, self._settings.entry, names)
        self._plan = make_plan(self._model, self._settings, self._listing)
        if does_something_of_its_own(self._model):
            self._plan = replace(self._plan, notes=(*self._plan.notes, _hooks_are_not_run()))
        warn_of(self._plan.notes)

    @on_cpu
    def create_local_plan(self) -> LoadPlan:
        assert self._listing is not None
        _check_apart([item for item in self.plan.items if item.state != "kept"])
        for item in self.plan.items:
            mixed = next((fill for fill in item.fills if isinstance(fill, Mixed)), None)
            if mixed is not None:
                raise SettingsError(
                    f"{item.name}: its new rows are to be made of old ones ({mixed}), which a "
                    "load planner sees only once, on their way. Use warm_start(model, directory), "
                    "or a function of torch.nn.init as backup_initializer."
                )
            if item.fallback:
                raise SettingsError(
                    f"{item.name}: fallback takes rows from older checkpoints, and a load planner "
                    "sees one. Use warm_start(model, directory)."
                )
            if item.state != "kept":
                reads = reads_of(item, self._listing, self._limit)
                self._left[item.name] = len(reads)
                self._reads += reads
                self._items += [item] * len(reads)
                _check_count(item, len(self._reads))
        items = [self._read_item(number, read) for number, read in enumerate(self._reads)]
        data = {"told": told_of(self.plan), "chance": chance_of(self.plan)}
        return LoadPlan(items, planner_data=data)

    @on_cpu
    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        told = {rank: plan.planner_data["told"] for rank, plan in enumerate(global_plan)}
        problems = what_differs(told, first=0)
        if problems:
            raise WarmStartError(explained(problems))
        return [replace(plan, planner_data=global_plan[0].planner_data) for plan in global_plan]

    @on_cpu
    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        with torch.no_grad(), same_chance(self.plan, central_plan.planner_data["chance"]):
            filled = [item for item in self.plan.items if item.name in self._left]
            with guarded(self._model) as ask:
                self._fillings = {item.name: fillings(item, ask) for item in filled}
        for item in filled:
            self._complete(item)
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        del value  # never unpickled
        raise UnsupportedError(f"{read_item.storage_index.fqn} is no tensor, and is not unpickled.")

    @on_cpu
    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        return self._read_of(read_item).target()

    @on_cpu
    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        number = self._number_of(read_item)
        with torch.no_grad():
            self._reads[number].place(tensor)
        item = self._items[number]
        self._left[item.name] -= 1
        self._complete(item)

    # -- read items --------------------------------------------------------------------------------

    def _complete(self, item: PlanItem) -> None:
        """Fills the new rows of a variable whose old ones are all there."""
        if not self._left[item.name]:
            with torch.no_grad():
                for part, filling in self._fillings.pop(item.name, []):
                    fill_cells(filling.rows, filling.places, part.tensor)
        forget_derived()  # each time: an error may end it anywhere

    def _read_item(self, number: int, read: Read) -> ReadItem:
        assert self._listing is not None
        name = self._listing.name_of(read.key)
        inner = read.wanted.within(read.part)
        return ReadItem(
            type=LoadItemType.TENSOR,
            dest_index=MetadataIndex(self._items[number].name, index=number),
            dest_offsets=torch.Size([0] * len(inner.sizes)),
            storage_index=MetadataIndex(name, torch.Size(read.part.offsets)),
            storage_offsets=torch.Size(inner.offsets),
            lengths=torch.Size(inner.sizes),
        )

    def _number_of(self, read_item: ReadItem) -> int:
        number = read_item.dest_index.index
        assert number is not None  # it was given one
        return number

    def _read_of(self, read_item: ReadItem) -> Read:
        return self._reads[self._number_of(read_item)]


def _check_apart(items: Sequence[PlanItem]) -> None:
    """Raises SettingsError if variables lie on the same memory and are made of different tensors.

    What is read last would stay in both of them, whatever the plan says.
    """
    here = [(item, local) for item in items for local in item.variable.local_tensors]
    for group in overlapping([local for _, local in here]):
        for first, second in itertools.combinations((here[at] for at in group), 2):
            (one, its), (other, others) = first, second
            if one is other or _made_alike(*first) == _made_alike(*second):
                continue
            if share_elements(its, others):
                raise SettingsError(
                    f"{one.name!r} and {other.name!r} share memory, and a load planner cannot "
                    "compare what they would become. Leave one of them out of "
                    "vars_to_warm_start, give the model tensors of their own, or use "
                    "warm_start(model, directory), which compares."
                )


def _made_alike(item: PlanItem, local: torch.Tensor) -> object:
    """Equal for what becomes the same in the same place; for rows that move never."""
    place = (extent_of(local), local.dtype, local.shape, local.stride())
    return (*place, item.keys, item.layout, item.part, id(item) if item.changes else None)


def _check_count(item: PlanItem, count: int) -> None:
    if count > _MOST_READS:
        raise SettingsError(
            f"{item.name}: more than {_MOST_READS:,} reads would be needed: raise read_limit; or "
            "tws.warm_start(model, directory) reads the same files, row by row."
        )


def _hooks_are_not_run() -> Finding:
    return Finding(
        "load-hooks-not-run",
        "warning",
        "model",
        "The model has load hooks, or modules that load themselves: "
        "torch.distributed.checkpoint.load runs none of them.",
        "tws.warm_start(model, directory) does.",
    )


def _check_state(state: Mapping[str, Any], model: torch.nn.Module) -> None:
    """Raises SettingsError unless all that is to be loaded is the model's."""
    own = {place for tensor in tensors_of(model) for place in _places(tensor)}
    for name, value in _leaves(state, ""):
        if not isinstance(value, torch.Tensor) or not own.issuperset(_places(value)):
            raise SettingsError(
                f"{name!r} of the state to be loaded is no tensor of the model: load it by a "
                "torch.distributed.checkpoint.load of its own."
            )


def _places(tensor: torch.Tensor) -> list[Extent]:
    """Where what is here of a tensor lies."""
    found = (extent_of(local) for local in local_tensors(tensor))
    return [extent for extent in found if extent is not None]


def _leaves(state: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
