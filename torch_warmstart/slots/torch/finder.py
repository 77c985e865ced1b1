"""Slots in the state that a torch optimizer saved: whose they are, and whether they can be taken.

Slots are found by the parameter's name, or by its position. They are taken only from an optimizer
that the current one can go on from: slots of one name mean other things in other optimizers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import SettingsError, did_you_mean, listed
from torch_warmstart.formats import SavedOptimizer, SavedParameter, TensorSpec
from torch_warmstart.layouts import IDENTITY, Form
from torch_warmstart.model import Slot, Variable, without_wrappers
from torch_warmstart.model.sharding import FIRST_STATE, registered_of
from torch_warmstart.names import BY_USER, Finder, Source
from torch_warmstart.slots.saved_slots import NoSource, SlotSource, SourceOf, slot_form
from torch_warmstart.slots.steps import apart, one_of_all, product_layout
from torch_warmstart.slots.torch.entries import doubt_of_entries, nearest
from torch_warmstart.slots.torch.positions import Identified, Positions
from torch_warmstart.slots.torch_optimizers import (
    PRODUCT,
    STEP,
    are_left_to_names,
    can_go_on,
    kinds_of,
    kinds_of_optimizer,
    option_of,
    ran_without,
    remark,
    torch_name,
)
from torch_warmstart.values import frozen

_NO_STATE = NoSource("the checkpoint's optimizer had none for it")


@frozen
class _Hit:
    """What one of the saved optimizers has for a parameter."""

    optimizer: SavedOptimizer
    parameter: SavedParameter
    doubt: str = ""  # whether it is that parameter's

    @property
    def kinds(self) -> frozenset[str]:
        if FIRST_STATE in self.parameter.slots:  # each table has an optimizer of its own
            return kinds_of(self.parameter.slots, ())
        return kinds_of(self.optimizer.slot_names, self.optimizer.options)

    @property
    def is_presumed(self) -> bool:
        """Whether several optimizers keep no more than this: FBGEMM's Adagrad and its LARS.

        Not if there is a number for each row, which is row-wise Adagrad's.
        """
        return set(self.parameter.slots) == {FIRST_STATE}

    def key_of(self, slot: str) -> str | None:
        """The key of a slot, or of what it can be worked out from."""
        slots = self.parameter.slots
        return slots.get(slot, slots.get(STEP) if slot == PRODUCT else None)


class TorchSlots:
    """The slots in a checkpoint that torch wrote."""

    def __init__(
        self,
        finder: Finder,
        variables: Sequence[Variable],
        source_of: SourceOf,
        optimizer_entry: str | None = None,
    ) -> None:
        """Looks at nothing yet.

        Args:
            finder: Of the checkpoint.
            variables: All there are.
            source_of: Where a variable is found.
            optimizer_entry: Which optimizers of the checkpoint are meant, as a path of keys.
        """
        self._checkpoint = finder.checkpoint
        self._variables = variables
        self._positions = Positions(finder.checkpoint, variables, source_of, self._goes_on_from)
        self._entry = optimizer_entry
        self._known: dict[str, Identified | SettingsError] = {}  # by path
        self._doubts: dict[str, str] = {}  # by path: of names that leave open whose they are
        self._by_end: dict[int, dict[str, list[str]]] = {}  # keys by that many of their last names

    @property
    def has_state(self) -> bool:
        """Whether the optimizers that are meant kept anything."""
        return any(parameter.slots for o in self._optimizers for parameter in o.parameters)

    def find(self, slot: Variable, parameter: Source) -> SlotSource | NoSource | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Raises SettingsError if optimizers' states cannot be told apart, or positions not checked.
        """
        found = [self._of_one(slot, spec) for spec in _joined(parameter)]
        hits = [one for one in found if isinstance(one, _Hit)]
        if len(hits) == len(found):
            return self._source(slot, parameter, hits)
        return None if hits else found[0]  # type: ignore[return-value]

    def _of_one(self, slot: Variable, spec: TensorSpec) -> _Hit | NoSource | None:
        """The same of one of the tensors that a parameter is made of: who has it."""
        assert slot.slot is not None
        hits = self._hits(slot.slot.parameter, spec)
        here = self._kinds_for(slot.slot)
        having = [hit for hit in hits if hit.key_of(slot.slot.name) and can_go_on(hit.kinds, here)]
        if len(having) > 1 and self._entry is None:
            lying = nearest([hit.optimizer.path for hit in having], self._checkpoint.entry)
            having = [hit for hit in having if hit.optimizer.path in lying]
        if len(having) > 1:
            raise self._ambiguous(slot, having)
        if having:
            return having[0]
        if hits and not any(hit.parameter.slots for hit in hits):
            return _NO_STATE
        option = option_of(slot.slot.optimizer, slot.slot.name)
        if option and any(hit.parameter.slots and can_go_on(hit.kinds, here) for hit in hits):
            return NoSource(ran_without(option))
        return None

    def explain(self, slot: Variable, parameter: Source) -> str:
        """Why `find` found nothing. The same words for all slots that share the reason."""
        assert slot.slot is not None
        specs = _joined(parameter)
        lacks = (spec for spec in specs if not isinstance(self._of_one(slot, spec), _Hit))
        spec = next(lacks, specs[0])
        where, key = self._checkpoint.url, spec.key
        hits = self._hits(slot.slot.parameter, spec)
        if not hits:
            names = [p.name for o in self._optimizers for p in o.parameters if p.name]
            return (
                f"{slot.name}: the optimizer's state in {where} has no parameter {key!r}."
                f"{did_you_mean(key, names)}"
            )
        there = hits[0].optimizer.slot_names
        if not any(can_go_on(h.kinds, self._kinds_for(slot.slot)) for h in hits):
            return _another_kind(where, hits[0], slot.slot, self._kinds_for(slot.slot))
        wanted = self._slots_of[id(slot.slot.parameter)]
        lacking = [name for name in wanted if name not in there]
        if not lacking:
            return f"{slot.name}: the optimizer's state in {where} has none for {key!r}."
        kept, others = _named(there, "and"), _named(lacking, "or")
        return (
            f"The optimizer's state in {where} has {kept}, but no {others}, as "
            f"{type(slot.slot.optimizer).__name__} keeps here: another optimizer, or one with "
            "other options, made it."
        )

    def renamed(self, slot: Variable, parameter: Source, specs: Sequence[TensorSpec]) -> SlotSource:
        """A slot from the tensors that the user named."""
        form = slot_form(parameter.form) if slot.shape else Form(((slot.owners[0].leaf,),))
        return SlotSource(Source(tuple(specs), slot.owners[0], form), BY_USER)

    @functools.cached_property
    def _slots_of(self) -> Mapping[int, Sequence[str]]:
        """What the current optimizers keep, by id of the parameter."""
        found: dict[int, list[str]] = {}
        for slot in (v.slot for v in self._variables if v.slot is not None):
            found.setdefault(id(slot.parameter), []).append(slot.name)
        return found

    def _kinds_for(self, slot: Slot) -> frozenset[str]:
        """What the current optimizer of a slot may be; that of kernels is known by the table."""
        if slot.is_fused:
            return kinds_of(self._slots_of[id(slot.parameter)], ())
        return self._kinds_here[id(slot.optimizer)]

    @functools.cached_property
    def _kinds_here(self) -> Mapping[int, frozenset[str]]:
        """What the current optimizers may be of, by id of the optimizer."""
        slots = [v.slot for v in self._variables if v.slot is not None]
        optimizers = {id(slot.optimizer): slot.optimizer for slot in slots}
        kept = self._kept_here
        return {key: kinds_of_optimizer(o, kept[key]) for key, o in optimizers.items()}

    @functools.cached_property
    def _kept_here(self) -> Mapping[int, set[str]]:
        """What the current optimizers keep for any parameter, by id of the optimizer."""
        kept: dict[int, set[str]] = {}
        for slot in (v.slot for v in self._variables if v.slot is not None):
            kept.setdefault(id(slot.optimizer), set()).add(slot.name)
        return kept

    def _by_names_alone(self, slot: Slot, hit: _Hit) -> str:
        """That another optimizer's slots are taken by their names, which nothing else supports.

        Of an optimizer that is not torch's the only other evidence is that it keeps the same. (What
        counts the steps may stand in its param groups.)
        """
        there, here = {*hit.optimizer.slot_names}, self._kept_here[id(slot.optimizer)]
        is_known = not are_left_to_names(hit.kinds, self._kinds_for(slot))
        if is_known or there - {STEP} == here - {STEP}:
            return ""
        name, same = type(slot.optimizer).__name__, sorted(there & here)
        return (
            f"{_named(same, 'and')} of {name} {'is' if len(same) == 1 else 'are'} taken by name "
            f"from an optimizer that kept {_named(hit.optimizer.slot_names, 'and')}: what {name} "
            "means by it nobody here knows. If it is something else, leave `optimizer` out."
        )

    def _goes_on_from(self, optimizer: torch.optim.Optimizer, saved: SavedOptimizer) -> bool:
        here = self._kinds_here.get(id(optimizer), frozenset())
        return can_go_on(kinds_of(saved.slot_names, saved.options), here)

    # -- what the checkpoint has -------------------------------------------------------------------

    @functools.cached_property
    def _optimizers(self) -> tuple[SavedOptimizer, ...]:
        """Those that are meant."""
        found, entry = self._checkpoint.optimizer_states(), self._entry
        if entry is None:
            return found
        chosen = tuple(o for o in found if f"{o.path}/".startswith(f"{entry.strip('/')}/"))
        if not chosen:
            there = ", ".join(repr(optimizer.path) for optimizer in found) or "none"
            raise SettingsError(
                f"optimizer_entry={entry!r}: {self._checkpoint.url} has no optimizer's state there;"
                f" there are {there}."
            )
        return chosen

    def _hits(self, variable: Variable, spec: TensorSpec) -> list[_Hit]:
        """What saved optimizers have for the parameter that a tensor is the value of."""
        hits, problems = [], []
        for optimizer in self._optimizers:
            try:
                hit = self._hit_in(optimizer, variable, spec)
            except SettingsError as error:
                problems.append(error)
                continue
            if hit is not None:
                hits.append(hit)
        if problems and not hits:
            raise problems[0]
        return hits

    def _hit_in(
        self, optimizer: SavedOptimizer, variable: Variable, spec: TensorSpec
    ) -> _Hit | None:
        if optimizer.path not in self._known:
            self._known[optimizer.path] = self._identify(optimizer)
        known = self._known[optimizer.path]
        if isinstance(known, SettingsError):
            raise known
        aliases = self._aliases(variable, spec)
        alias = next((alias for alias in aliases if alias in known.parameters), None)
        if alias is None:
            return None
        doubt = known.doubt or self._doubt_of_name(optimizer, alias, spec)
        return _Hit(optimizer, known.parameters[alias], doubt)

    def _doubt_of_name(self, optimizer: SavedOptimizer, name: str, spec: TensorSpec) -> str:
        """What to say if a name without what stands before it is that of several tensors.

        In the same words for all parameters of an optimizer.
        """
        known = self._doubts.get(optimizer.path, "")
        if known or self._entry is not None or name in (spec.key, without_wrappers(spec.key)):
            return known
        tied = self._positions.tied_keys(spec)
        others = [key for key in self._ends_in(name) if key not in (spec.key, *tied)]
        other = next((o for o in others if self._checkpoint.spec(o).shape == spec.shape), None)
        if other is not None:
            self._doubts[optimizer.path] = (
                f"The optimizer's state at {optimizer.path!r} calls a parameter {name!r}, which "
                f"may be {spec.key!r} as well as {other!r}. It is taken for the first; if it is "
                "that of the other part, leave `optimizer` out. "
                f"optimizer_entry={optimizer.path!r} says that it is right."
            )
        return self._doubts.get(optimizer.path, "")

    def _ends_in(self, name: str) -> Sequence[str]:
        """The keys whose last names are these."""
        count = name.count(".") + 1
        if count not in self._by_end:
            ends = self._by_end[count] = {}
            for key in self._checkpoint:
                ends.setdefault(".".join(key.split(".")[-count:]), []).append(key)
        return self._by_end[count].get(name, ())

    def _identify(self, optimizer: SavedOptimizer) -> Identified | SettingsError:
        """A saved optimizer's parameters by name or key, or why they cannot be told."""
        try:
            if optimizer.tells_names:
                known = Identified(_by_name(optimizer))
            else:
                known = self._positions.identify(optimizer)
        except SettingsError as error:
            return error
        if known.doubt or self._entry is not None:
            return known
        keys = [key for key in known.parameters if key in self._checkpoint]
        entry, *others = self._checkpoint.entries_alike(keys) or ("",)
        return Identified(known.parameters, doubt_of_entries(optimizer.path, entry, others))

    def _aliases(self, variable: Variable, spec: TensorSpec) -> Iterator[str]:
        """What a saved optimizer may call a parameter: its key, and those of tensors tied to it."""
        keys = [spec.key, *self._positions.tied_keys(spec)]
        yield from keys
        for key in map(without_wrappers, keys):
            yield key
            yield from (n for n in variable.names if key == n or key.endswith(f".{n}"))
        if any(without_wrappers(key) in variable.names for key in keys):
            yield from variable.names
        name = self._called_here.get(id(registered_of(variable.tensor)))
        if name is not None and name not in self._checkpoint:
            yield name

    @functools.cached_property
    def _called_here(self) -> Mapping[int, str]:
        """What current optimizers call their parameters, by id: a part's own names, it may be."""
        groups = {id(v.slot.group): v.slot.group for v in self._variables if v.slot is not None}
        return {
            id(tensor): name
            for group in groups.values()
            for tensor, name in zip(
                group.get("params", ()), group.get("param_names", ()), strict=False
            )
        }

    def _source(self, slot: Variable, parameter: Source, hits: Sequence[_Hit]) -> SlotSource:
        assert slot.slot is not None
        hit = hits[0]
        keys = (one.key_of(slot.slot.name) or "" for one in hits)
        specs = tuple(self._checkpoint.spec(key) for key in keys)
        form = _form(slot, parameter, specs)
        if slot.slot.name == PRODUCT and PRODUCT not in hit.parameter.slots:
            steps = None if form.layout.num_tf == 1 else form.layout
            form = replace(form, layout=product_layout(slot.slot, steps))
        reason = "by name" if hit.optimizer.tells_names else "by position"
        remarks = remark(hit.kinds, self._kinds_for(slot.slot))
        doubt = next((one.doubt for one in hits if one.doubt), "")
        is_presumed = bool(doubt) or (hit.is_presumed and len(specs[0].shape) > 1)
        presumed = self._by_names_alone(slot.slot, hit)
        source = Source(specs, slot.owners[0], form, is_inferred=is_presumed or bool(presumed))
        return SlotSource(source, reason, remarks=remarks, doubt=doubt, presumed=presumed)

    def _ambiguous(self, slot: Variable, hits: Sequence[_Hit]) -> SettingsError:
        entry = self._checkpoint.entry or ""  # "critic", beside "critic_optimizer"
        paths = sorted((hit.optimizer.path for hit in hits), key=lambda path: entry not in path)
        return SettingsError(
            f"{slot.name} is in several optimizers' states: {', '.join(map(repr, paths))}. Say "
            f"which one is meant: {' or '.join(f'optimizer_entry={path!r}' for path in paths)}."
        )


def _joined(parameter: Source) -> Sequence[TensorSpec]:
    """The tensors whose slots a parameter's are made of; else that one whose slots stand for all.

    A weight's are not those of what it is computed from, which its layout says of any one.
    """
    is_joined = parameter.form.layout.slot_layout.num_tf == len(parameter.specs)
    return parameter.specs if is_joined else parameter.specs[:1]


def _form(slot: Variable, parameter: Source, specs: Sequence[TensorSpec]) -> Form:
    """How a slot is made of those of its parameter's tensors."""
    assert slot.slot is not None
    pairs = zip(specs, parameter.specs, strict=False)
    if all(spec.shape == its.shape for spec, its in pairs):
        form = slot_form(parameter.form)
        if len(specs) > 1 and slot.slot.start != 0 and _adds_zeros(form, specs):
            return replace(form, layout=apart(len(specs)))
        return form
    if len(specs) == 1:
        return Form(((slot.slot.name,),))
    layout = one_of_all(slot.name, [IDENTITY] * len(specs)) if not slot.shape else apart(len(specs))
    return Form(((slot.slot.name,),) * len(specs), layout)


def _adds_zeros(form: Form, specs: Sequence[TensorSpec]) -> bool:
    """Whether zeros are put beside what there is."""
    made = form.layout.shapes_in_torch([spec.shape for spec in specs]) or ()
    return sum(map(math.prod, made)) > sum(math.prod(spec.shape) for spec in specs)


def _by_name(optimizer: SavedOptimizer) -> Mapping[str, SavedParameter]:
    """By name, with what wrappers add to it and without."""
    found: dict[str, SavedParameter] = {}
    for parameter in optimizer.parameters:
        found.setdefault(without_wrappers(parameter.name or ""), parameter)
    return {**found, **{p.name: p for p in optimizer.parameters if p.name is not None}}


def _another_kind(where: str, hit: _Hit, slot: Slot, of_slot: frozenset[str]) -> str:
    """Why slots are not taken though there are some, maybe of the same name."""
    names = hit.optimizer.slot_names
    if FIRST_STATE in hit.parameter.slots:
        names = tuple(hit.parameter.slots)
    kept, kinds = _named(names, "and"), " or ".join(sorted(hit.kinds))
    here = torch_name(slot.optimizer) or type(slot.optimizer).__name__
    if slot.is_fused:
        here = " or ".join(sorted(of_slot))
    return (
        f"The optimizer's state in {where} is of {kinds} (it has {kept}), and {here} cannot go on "
        "from that: it means other things by its slots. Make `optimizer` of the old kind, leave "
        "the slots out by a list in vars_to_warm_start, or keep what `optimizer` has with "
        "on_missing='keep'."
    )


def _named(names: Sequence[str], word: str) -> str:
    return listed(map(repr, names or ("nothing",)), word)
