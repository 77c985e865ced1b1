"""Whose the states are in an optimizer that torch saved without names: by their positions.

torch numbers the parameters in a saved state and, unless the optimizer was made from named ones,
says no more; one of several models that each name their own may call them alike. Then position i is
taken for the i-th parameter of the checkpoint's model, or where that cannot be, for the one that
the groups of the current optimizer call for; but only if the counts agree, and every slot has the
shape of its parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from torch_warmstart.errors import SettingsError, listed, plural
from torch_warmstart.formats import Checkpoint, SavedOptimizer, SavedParameter, TensorSpec
from torch_warmstart.layouts.tensorflow import BATCHES, STATISTICS
from torch_warmstart.model import Shape, Variable, without_wrappers
from torch_warmstart.slots.saved_slots import SourceOf, slot_keys
from torch_warmstart.slots.torch_optimizers import STEP
from torch_warmstart.values import frozen

_Groups = Sequence[Sequence[str]]  # keys
_BUFFERS = {*STATISTICS, BATCHES}
_NAMED = "an optimizer with named parameters (torch.optim.Adam(model.named_parameters()))"
_MAX_WAYS = 64  # to divide the first so many parameters among groups; beyond it is not told


@frozen
class Identified:
    """A saved optimizer's parameters by name or key, and what no check can see."""

    parameters: Mapping[str, SavedParameter]
    doubt: str = ""


class Positions:
    """The parameters of a checkpoint's model, and the orders that optimizers may have them in."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        variables: Sequence[Variable],
        source_of: SourceOf,
        goes_on_from: Callable[[torch.optim.Optimizer, SavedOptimizer], bool],
    ) -> None:
        """Looks at nothing yet; `goes_on_from` tells of kinds, the others are of `TorchSlots`."""
        self._goes_on_from = goes_on_from
        self._checkpoint = checkpoint
        self._variables = variables
        self._source_of = source_of

    def tied_keys(self, spec: TensorSpec) -> Sequence[str]:
        """The keys of the tensors that share a tensor's bytes, its own among them."""
        return self._keys_by_storage.get(spec.storage, ()) if spec.storage is not None else ()

    def identify(self, optimizer: SavedOptimizer) -> Identified:
        """A saved optimizer's parameters by key.

        Raises SettingsError if positions cannot be checked, or do not fit.
        """
        groups = self._current_groups
        of_its_kind = [own for here, own in groups if self._goes_on_from(here, optimizer)]
        fitting, problems = self._fitting(optimizer, of_its_kind)
        if len(fitting) != 1 and len(of_its_kind) < len(groups):
            fitting, problems = self._fitting(optimizer, [own for _, own in groups])
        rivals = self._rivals(fitting, optimizer)
        is_the_models = bool(fitting) and fitting[0] == self._keys and not self._is_sorted
        if is_the_models and all(map(self._is_in_order, rivals)):
            fitting = fitting[:1]
        fitting = fitting or list(self._orders_by_shape(optimizer))
        if len(fitting) == 1:
            by_key = dict(zip(fitting[0], optimizer.parameters, strict=True))
            doubts = (
                self._doubt(optimizer, fitting[0]),
                self._doubt_of_making(optimizer, fitting[0]),
                _doubt_of_names(optimizer, fitting[0]),
                "" if self._is_renamed else _doubt_of_order(optimizer, fitting[0], rivals),
            )
            return Identified(by_key, next(filter(None, doubts), ""))
        raise SettingsError(self._unclear(optimizer, problems, fitting))

    def _rivals(
        self, fitting: Sequence[Sequence[str]], optimizer: SavedOptimizer
    ) -> list[Sequence[str]]:
        """Other orders that fit, of current optimizers with such groups as the saved one had.

        If it is not their model's own, the program that saved the state may have ordered its
        parameters so, too. If it is, the checkpoint's model had another one, or somebody has put
        its tensors into another order.
        """
        current = [own for _, own in self._current_groups]
        alike = [groups for groups in current if self._sizes(groups) == optimizer.group_sizes]
        orders = [[key for group in groups for key in group] for groups in alike]
        orders += self._made_alike(orders, alike)
        return [order for order in orders if order in fitting[1:]]

    def _is_in_order(self, keys: Sequence[str]) -> bool:
        """Whether they stand as the current model has what they are for."""
        return list(keys) == sorted(keys, key=self._places.__getitem__)

    def _fitting(
        self, optimizer: SavedOptimizer, current: Sequence[_Groups]
    ) -> tuple[list[Sequence[str]], list[str]]:
        """The orders that a saved optimizer's parameters can have had; and why others cannot be."""
        problems, fitting = [], []
        orders = list(self._orders(optimizer, current))
        for order in [*orders, *self._made_alike(orders, current)]:
            problem = self._misfit(optimizer, order)
            if problem:
                problems.append(problem)
            elif order not in fitting:
                fitting.append(order)
        return fitting, problems

    def _orders(
        self, optimizer: SavedOptimizer, current: Sequence[_Groups]
    ) -> Iterator[Sequence[str]]:
        """The orders that the parameters of a saved optimizer may have had, by their keys.

        First that of the checkpoint's model; then what current optimizers have, each group in the
        order of the checkpoint's model, or in its own.
        """
        at = {key: position for position, key in enumerate(self._keys)}
        if len(optimizer.group_sizes) <= 1:
            yield self._keys
        for groups in current:
            if any(key not in at for group in groups for key in group):
                continue
            merged = [key for group in groups for key in group]
            if len(set(merged)) < len(merged):  # two objects on one memory: which is which?
                continue
            if len(optimizer.group_sizes) <= 1:
                yield sorted(merged, key=at.__getitem__)
            elif self._sizes(groups) == optimizer.group_sizes:
                yield [key for group in groups for key in sorted(group, key=at.__getitem__)]
            else:
                continue
            yield merged

    def _made_alike(
        self, orders: Sequence[Sequence[str]], current: Sequence[_Groups]
    ) -> Iterator[list[str]]:
        """What the checkpoint's model would have where a current optimizer has one of these orders.

        Where its layers stand otherwise, what a program makes of them ("a group for each layer",
        "from the last to the first") is another order, too. That of a sorted file is no model's.
        """
        known = [key for key in self._keys if key in self._places]
        if self._is_sorted or not len(known) == len(self._keys) == len(self._places):
            return
        here = sorted(known, key=self._places.__getitem__)
        there = dict(zip(here, known, strict=True))
        for merged in ([key for group in groups for key in group] for groups in current):
            if len(merged) == len(known) and merged in orders:
                yield [there[key] for key in merged]

    def _orders_by_shape(self, optimizer: SavedOptimizer) -> Iterator[list[str]]:
        """The orders that a saved optimizer's groups may have had, as far as shapes tell; two do.

        Each group has its parameters in the order of the checkpoint's model, and each parameter is
        in one of them.
        """
        sizes = optimizer.group_sizes
        if len(sizes) < 2 or sum(sizes) != len(self._keys):
            return
        firsts = [sum(sizes[:number]) for number in range(len(sizes))]
        # By how many each group has already: which group each key went to, in up to two ways.
        ways: dict[tuple[int, ...], list[tuple[int, ...]]] = {(0,) * len(sizes): [()]}
        for key in self._keys:
            longer: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
            for counts, chosen in ways.items():
                for number, (count, size) in enumerate(zip(counts, sizes, strict=True)):
                    if count == size:
                        continue
                    if self._fits(key, optimizer.parameters[firsts[number] + count]):
                        after = (*counts[:number], count + 1, *counts[number + 1 :])
                        listed = longer.setdefault(after, [])
                        listed += [(*way, number) for way in chosen[: 2 - len(listed)]]
            if len(longer) > _MAX_WAYS:
                return
            ways = longer
        for way in ways.get(sizes, ()):
            placed = zip(self._keys, way, strict=True)
            yield [key for key, _ in sorted(placed, key=lambda pair: pair[1])]

    @functools.cached_property
    def _keys(self) -> list[str]:
        """The checkpoint's parameters in the order of its model, tied ones once, no buffers."""
        buffers = {name for v in self._variables if v.kind == "buffer" for name in v.names}
        parameters = {name for v in self._variables if v.kind == "parameter" for name in v.names}
        slots = set(slot_keys(self._checkpoint.optimizer_states()))
        found: dict[object, str] = {}
        for key in (self._copied.get(key, key) for key in self._checkpoint):
            spec, name = self._checkpoint.spec(key), without_wrappers(key)
            is_buffer = name in buffers or name.rpartition(".")[2] in _BUFFERS
            may_be_one = name in parameters or _takes_gradients(spec)
            if not is_buffer and key not in slots and may_be_one:
                found.setdefault(key if spec.storage is None else spec.storage, key)
        return list(found.values())

    @functools.cached_property
    def _copied(self) -> Mapping[str, str]:
        """Of the copies of tied tensors, which were one parameter: the key that stands for all."""
        sources = (self._source_of(v) for v in self._variables if v.kind == "parameter")
        return {
            spec.key: self._first_key(source.specs[0])
            for source in sources
            if source is not None
            for spec in source.copies
        }

    @functools.cached_property
    def _is_sorted(self) -> bool:
        """Whether the order may be a file's: safetensors sorts by name, within each dtype.

        A model in torch's order has a weight before its bias, so it is seldom sorted.
        """
        by_dtype: dict[object, list[str]] = {}
        for key in self._keys:
            by_dtype.setdefault(self._checkpoint.spec(key).dtype, []).append(key)
        return all(keys == sorted(keys) for keys in by_dtype.values())

    @functools.cached_property
    def _current_groups(self) -> list[tuple[torch.optim.Optimizer, _Groups]]:
        """The current optimizers, but those with other parameters; the keys of theirs, by group."""
        optimizers = {id(v.slot.optimizer): v.slot.optimizer for v in self._variables if v.slot}
        by_tensor = {id(v.tensor): v for v in self._variables if v.kind == "parameter"}
        found: list[tuple[torch.optim.Optimizer, _Groups]] = []
        for optimizer in optimizers.values():
            parameters = [[by_tensor.get(id(t)) for t in g["params"]] for g in _groups(optimizer)]
            keys = [[self._key_of(p) for p in group] for group in parameters]
            if all(key is not None for group in keys for key in group):
                own = [[key for key in group if key is not None] for group in keys]
                found.append((optimizer, own))
        return found

    @functools.cached_property
    def _places(self) -> Mapping[str, int]:
        """Where the current model has what the checkpoint keeps under a key."""
        keys = [self._key_of(v) for v in self._variables if v.kind == "parameter"]
        return {key: at for at, key in enumerate(keys) if key is not None}

    @functools.cached_property
    def _is_renamed(self) -> bool:
        """Whether the model calls a parameter otherwise: one of another class has its own order."""
        found = ((v.names, self._key_of(v)) for v in self._variables if v.kind == "parameter")
        return any(
            key is not None and not any(_may_be_called(key, name) for name in names)
            for names, key in found
        )

    @staticmethod
    def _sizes(groups: _Groups) -> tuple[int, ...]:
        return tuple(map(len, groups))

    def _key_of(self, variable: Variable | None) -> str | None:
        source = self._source_of(variable) if variable is not None else None
        return self._first_key(source.specs[0]) if source is not None else None

    def _first_key(self, spec: TensorSpec) -> str:
        """The one among a tied tensor's keys that `_keys` has."""
        return next(iter(self.tied_keys(spec)), spec.key)

    def _misfit(self, optimizer: SavedOptimizer, keys: Sequence[str]) -> str | None:
        """Why parameters cannot have had these keys in this order; None if they can."""
        if len(keys) != len(optimizer.parameters):
            return (
                f"it has {plural(len(optimizer.parameters), 'parameter')}, the model "
                f"{len(keys):,} ({listed(map(repr, keys))})"
            )
        for position, (key, parameter) in enumerate(zip(keys, optimizer.parameters, strict=True)):
            if parameter.name is not None and not _may_be_called(key, parameter.name):
                return f"number {position} would be {key!r}, but it is called {parameter.name!r}"
            if not self._fits(key, parameter):
                shape, slots = self._checkpoint.spec(key).shape, self._shapes(parameter)
                name = next(name for name, found in slots.items() if found != shape)
                return (
                    f"number {position} would be {key!r} of shape {list(shape)}, but its {name!r} "
                    f"has shape {list(slots[name])}"
                )
        return None

    def _fits(self, key: str, parameter: SavedParameter) -> bool:
        """Whether what was kept can be of the parameter of a key, as far as shapes tell."""
        if parameter.name is not None and not _may_be_called(key, parameter.name):
            return False
        slots = self._shapes(parameter)
        return not slots or _can_be_of(slots, self._checkpoint.spec(key).shape)

    def _shapes(self, parameter: SavedParameter) -> dict[str, Shape]:
        slots = {name: self._checkpoint.spec(key).shape for name, key in parameter.slots.items()}
        slots.pop(STEP, None)
        return slots

    def _doubt(self, optimizer: SavedOptimizer, order: Sequence[str]) -> str:
        """What to say if other parameters, which no group has, would fit as well.

        An optimizer of some of a model's parameters is taken for one of those that the current
        optimizer has. Nothing in the file says that they are the same ones.
        """
        swap = next(self._swaps(optimizer, order), None)
        if swap is None:
            return ""
        taken, other = swap
        return (
            f"The optimizer's state at {optimizer.path!r} is of {len(order):,} of the model's "
            f"{plural(len(self._keys), 'parameter')}, which it numbers without naming them. They "
            "are taken for those that `optimizer` has now, but the shapes would fit others too: "
            f"{other!r} in place of {taken!r}, for example. If the old optimizer had other "
            f"parameters than this one, these slots are not theirs: save it from {_NAMED}."
        )

    def _doubt_of_making(self, optimizer: SavedOptimizer, order: Sequence[str]) -> str:
        """What to say if nothing but how an optimizer is made today tells of an order."""
        current = [own for _, own in self._current_groups]
        if order in self._orders(optimizer, current):
            return ""
        if list(self._orders_by_shape(optimizer)) == [order]:
            return ""
        return (
            f"The optimizer's state at {optimizer.path!r} numbers its parameters without naming "
            "them. They are taken to stand as those of `optimizer` would if the model had its "
            f"layers in the checkpoint's order, with {order[0]!r} first. If the old optimizer was "
            f"made otherwise, these slots are not theirs: save it from {_NAMED}."
        )

    def _swaps(self, optimizer: SavedOptimizer, order: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A key, and one that could stand in its place without changing its group's order."""
        start, held = 0, set(order)
        for size in optimizer.group_sizes:
            saved = dict(
                zip(order[start : start + size], optimizer.parameters[start:], strict=False)
            )
            start += size
            free: list[str] = []  # keys of no group, since the last key of this one
            before: str | None = None
            for key in self._keys:
                if key in saved:
                    beside = [(key, other) for other in free]
                    before, free = key, []
                elif key not in held:
                    beside = [(before, key)] if before is not None else []
                    free.append(key)
                else:
                    continue
                for taken, other in beside:
                    parameter = saved[taken]
                    if parameter.slots and self._fits(other, parameter):
                        yield taken, other

    def _unclear(
        self, optimizer: SavedOptimizer, problems: Sequence[str], fitting: Sequence[Sequence[str]]
    ) -> str:
        groups = optimizer.group_sizes
        if fitting:
            why = "their shapes fit in more than one order"
        elif problems:
            why = problems[0]
        else:
            sizes = " and ".join(map(str, groups))
            why = (
                f"it has groups of {sizes} parameters, and `optimizer` no such groups to compare "
                "them with"
            )
        shared = optimizer.shared_name
        does = (
            "numbers its parameters without naming them"
            if shared is None
            else f"calls several parameters {shared!r}, as one optimizer of several models does"
        )
        return (
            f"The optimizer's state at {optimizer.path!r} in {self._checkpoint.url} {does}, and "
            f"which are which is unclear: {why}. "
            f"Save it from {_NAMED}, or name keys in var_name_to_prev_var_name, such as "
            f"{_example(optimizer)!r}, or leave the slots out by a list in vars_to_warm_start."
        )

    @functools.cached_property
    def _keys_by_storage(self) -> Mapping[object, Sequence[str]]:
        found: dict[object, list[str]] = {}
        for key in self._checkpoint:
            found.setdefault(self._checkpoint.spec(key).storage, []).append(key)
        return found


def _doubt_of_names(optimizer: SavedOptimizer, order: Sequence[str]) -> str:
    """What to say if names tell of several parameters only in which order they were given."""
    name = optimizer.shared_name
    if name is None:
        return ""
    called = zip(order, optimizer.parameters, strict=True)
    keys = [key for key, parameter in called if parameter.name == name]
    return (
        f"The optimizer's state at {optimizer.path!r} calls several parameters {name!r}, as one "
        f"optimizer of several models does. They are taken for {listed(map(repr, keys))}, in this "
        f"order. If the old optimizer had those models in another, save it from {_NAMED}."
    )


def _doubt_of_order(
    optimizer: SavedOptimizer, order: Sequence[str], rivals: Sequence[Sequence[str]]
) -> str:
    """What to say if the order of the checkpoint's tensors is not the only one that fits."""
    if not rivals:
        return ""
    pairs = zip(order, rivals[0], strict=True)
    taken, other = next((one, another) for one, another in pairs if one != another)
    return (
        f"The optimizer's state at {optimizer.path!r} numbers its parameters without naming "
        "them. They are taken to stand as the checkpoint's tensors do, but the order of those "
        f"of `optimizer` would fit too, with {other!r} in place of {taken!r}. If the old model "
        "had its tensors in another order than the checkpoint, these slots are not theirs: "
        f"save it from {_NAMED}."
    )


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, list[torch.Tensor]]]:
    return optimizer.param_groups


def _may_be_called(key: str, name: str) -> bool:
    """Whether a part of a model may call its parameter so that the whole keeps under a key."""
    key, name = without_wrappers(key), without_wrappers(name)
    return key == name or key.endswith(f".{name}")


def _takes_gradients(spec: TensorSpec) -> bool:
    return spec.dtype is not None and (spec.dtype.is_floating_point or spec.dtype.is_complex)


def _can_be_of(slots: Mapping[str, Shape], parameter: Shape) -> bool:
    """Whether slots of these shapes can be those of a parameter.

    One has its shape; or they are factored, by rows and columns, as Adafactor's are. Of a square
    one their names have to say so: they have the shapes of a vector's.
    """
    alike = [slot for slot in slots.values() if len(slot) == len(parameter)]
    if not all(size in (1, whole) for s in alike for size, whole in zip(s, parameter, strict=True)):
        return False
    if alike and tuple(map(max, zip(*alike, strict=True))) == parameter:
        return True
    rows, columns = parameter[:-1], (*parameter[:-2], *parameter[-1:])
    if rows == columns:
        named = {name[-3:]: shape for name, shape in slots.items()}
        return named.get("row") == rows and named.get("col") == columns
    return {rows, columns} <= set(slots.values())


def _example(optimizer: SavedOptimizer) -> str:
    return next(iter(slot_keys([optimizer])), f"{optimizer.path}/state/0/exp_avg")
