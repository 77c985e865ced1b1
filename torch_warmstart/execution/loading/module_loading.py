"""What a model does of its own when it is loaded: hooks, and modules that load themselves.

They are given what `load_state_dict` would give them, in its order, once; what they make of it is
what is written. Where they run, rolling back must be possible, as anything may happen in them: what
they write, and what has to be written before they can run (a post-hook sees its module loaded), is
journalled. All else is left for the commit:

    an entry that no hook touches                       streamed by the commit
    one that is renamed                                 streamed to where it goes now
    one that is replaced, changed, or was looked at     staged, copied by the commit
    of a module with its own `_load_from_state_dict`    staged and written here, journalled
    below a module with a post-hook                     written here, journalled

torch's norms have a `_load_from_state_dict` of their own, which only adds what old files lack.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from torch_warmstart.computing import as_the_caller
from torch_warmstart.dtypes import as_bytes
from torch_warmstart.errors import CallbackError, Finding, WarmStartError
from torch_warmstart.execution.commit import Copy, InParts, Load, Prepared, Step, Write, leaves
from torch_warmstart.formats import EXTRA_STATE
from torch_warmstart.model import (
    Extents,
    Journal,
    Variable,
    WrittenMemory,
    extent_of,
    is_persistent,
    modules_of,
    named_modules,
    names_saved_by_itself,
)
from torch_warmstart.model.sharding import (
    Boxed,
    is_divided_alike,
    is_of_sharding,
    is_sharded,
    local_tensors,
    parts_of,
)
from torch_warmstart.planning import PlanItem, WarmStartPlan

if TYPE_CHECKING:
    from torch_warmstart.execution.loading.stand_ins import StandIn
    from torch_warmstart.new_rows import NewRowsAccount

_Module = torch.nn.Module
_STOCK = frozenset(
    cls.__dict__["_load_from_state_dict"] for cls in (_Module, _NormBase, _InstanceNorm)
)
_DROPPED = "a load_state_dict hook of the model dropped it"
_NOT_TAKEN = "its module's own _load_from_state_dict did not take it"
_CHANGED = "changed by the model's own loading"
_GIVEN = "given by a load_state_dict hook of the model"


class Outcome:
    """What became of variables for which that is something else than was planned."""

    def __init__(self) -> None:
        self.items: dict[Variable, PlanItem] = {}
        self.notes: list[Finding] = []
        # Of those that are made of old ones, by the axis that they are along.
        self.new_rows: dict[tuple[Variable, int], NewRowsAccount] = {}


def does_something_of_its_own(model: _Module) -> bool:
    """Whether to load a model is more than to copy tensors."""
    return _loads_itself(model) or any(
        not _is_stock(module)
        or _users(module._load_state_dict_pre_hooks)
        or _users(module._load_state_dict_post_hooks)
        for module in modules_of(model)
    )


def _users(hooks: Mapping[Any, Any]) -> list[Any]:
    """The hooks that may do anything."""
    return [hook for hook in hooks.values() if not is_of_sharding(hook)]


def _loads_itself(model: _Module) -> bool:
    load = vars(model).get("load_state_dict") or getattr(type(model), "load_state_dict", None)
    return load is not _Module.load_state_dict and not is_of_sharding(load)


def _is_stock(module: _Module) -> bool:
    if "_load_from_state_dict" in vars(module):
        return False
    return getattr(type(module), "_load_from_state_dict", None) in _STOCK


def load_modules(
    plan: WarmStartPlan, prepared: Prepared, journal: Journal, outcome: Outcome
) -> Prepared:
    """Runs a model's own loading, and gives the steps that are left to do.

    Args:
        plan: What was planned.
        prepared: Its steps.
        journal: Gets what is overwritten here.
        outcome: Gets what became of variables other than as planned.

    Raises CallbackError with whatever a hook raises as its cause; nothing is undone then.
    """
    if not does_something_of_its_own(plan.model):
        return prepared
    journal.keep_attributes(modules_of(plan.model))
    of_slots = (item.variable.slot for item in plan.items)
    optimizers = {id(slot.optimizer): slot.optimizer for slot in of_slots if slot is not None}
    journal.keep_optimizers(optimizers.values())
    writes = {write.items[0].variable: write for write in _model_writes(prepared)}
    loading = _Loading(plan, writes, journal, outcome)
    loading.run()
    left = loading.left()
    slots = [step for step in prepared.steps if not _is_of_model(step)]
    copies = tuple(write for write in left if isinstance(write, Copy))
    others = [write for write in left if not isinstance(write, Copy)]
    return Prepared((*([Load(copies)] if copies else []), *others, *slots))


def _model_writes(prepared: Prepared) -> Iterable[Any]:
    for step in prepared.steps:
        if isinstance(step, Load):
            yield from step.copies
        elif _is_of_model(step):
            yield step


def _is_of_model(step: Step) -> bool:
    return bool(step.items) and all(item.variable.slot is None for item in step.items)


class _Loading:
    """One `load_state_dict`, of which the copying is put off."""

    def __init__(
        self,
        plan: WarmStartPlan,
        writes: Mapping[Variable, Write],
        journal: Journal,
        outcome: Outcome,
    ) -> None:
        self._plan, self._writes, self._journal, self._outcome = plan, writes, journal, outcome
        self._items = {i.variable: i for i in plan.items if i.variable.slot is None}
        self._by_name = {o.state_dict_name: v for v in self._items for o in v.owners}
        self._by_tensor = {id(v.tensor): v for v in self._items}  # whatever a hook has put it in
        here = [(local, variable) for variable in self._items for local in variable.local_tensors]
        self._memory = Extents(here)
        self._own = WrittenMemory([local for local, _ in here])
        self._left: dict[Variable, Write] = {}  # to be written by the commit, the last one each
        self._reached: set[Variable] = set()  # by what was planned, or something else
        self._modules = list(named_modules(plan.model, is_each_once=False))
        self._at: dict[str, _Module] = {}  # what hooks have left of them, by prefix
        missing = set(plan.missing)
        self._missing_names = {
            owner.state_dict_name
            for variable in self._items
            if variable.name in missing
            for owner in variable.owners
        }
        self._missing: list[str] = []
        self._unexpected: list[str] = []
        self._errors: list[str] = []

    def run(self) -> None:
        """As torch does it."""
        self._versions = self._plan.checkpoint.metadata() or _versions(self._modules)
        self._stand_ins = {variable: _stand_in(write) for variable, write in self._writes.items()}
        state = self._state()
        if _loads_itself(self._plan.model):
            self._load_all(state)
        else:
            self._load(self._plan.model, state, "")
        if self._errors:
            raise WarmStartError(
                "The model cannot load what was planned:\n  " + "\n  ".join(self._errors)
            )
        for variable in self._writes:
            if variable not in self._reached:
                self._keep(variable, _DROPPED)

    def left(self) -> list[Write]:
        """What the commit has to write, in the order of the model's variables."""
        return [self._left[variable] for variable in self._items if variable in self._left]

    # -- as load_state_dict does it ----------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """What a state_dict would hold, under all the names that the model's own has it under."""
        saved = self._saved_names()
        return {
            name: stand_in
            for variable, stand_in in self._stand_ins.items()
            for owner in variable.owners
            for name in self._given_names(variable)
            or saved.get(owner.state_dict_name, [owner.state_dict_name])
        }

    def _given_names(self, variable: Variable) -> Sequence[str]:
        """The checkpoint's own, where the model's hooks make the variable's name of them."""
        item = self._items[variable]
        return item.keys if item.is_by_hook else ()

    def _saved_names(self) -> dict[str, list[str]]:
        """What the model makes of names when it writes a state_dict, where it does so itself."""
        model = self._plan.model
        if by_itself := names_saved_by_itself(model):
            return {name: [saved] for name, saved in by_itself.items()}
        if not any(module._state_dict_hooks for module in modules_of(model)):
            return {}
        names: dict[int, list[str]] = {}
        state = self._call(lambda: model.state_dict(keep_vars=True), "a state_dict hook", model)
        for name, tensor in state.items():
            names.setdefault(id(tensor), []).append(name)
        found = {}
        for variable in self._items:
            known = names.get(id(variable.tensor), [])
            for owner in variable.owners:
                is_plain = owner.state_dict_name in known or not known
                found[owner.state_dict_name] = [owner.state_dict_name] if is_plain else known
        return found

    def _load_all(self, state: dict[str, Any]) -> None:
        """A model whose `load_state_dict` is its own."""
        model = self._plan.model
        given = _StateDict({name: _made(value) for name, value in state.items()})
        given._metadata = self._versions
        options = {"strict": False} if _takes(model.load_state_dict, "strict") else {}
        load = functools.partial(model.load_state_dict, given, **options)
        self._run_own(model, "", load, self._items)

    def _load(self, module: _Module, state: dict[str, Any], prefix: str) -> None:
        self._at[prefix] = module
        metadata = self._versions.get(prefix[:-1], {})
        if _is_stock(module):
            rest = (prefix, metadata, True, self._missing, self._unexpected, self._errors)
            self._run_pre_hooks(module, state, rest)
            self._unwrap_registered(module)
            self._take(module, state, prefix)
        else:
            self._load_itself(module, state, prefix, metadata)
        for name, child in module._modules.items():
            if child is not None:
                inner = f"{prefix}{name}."
                below = {key: value for key, value in state.items() if key.startswith(inner)}
                self._load(child, below, inner)
        self._run_post_hooks(module, prefix)

    def _load_itself(
        self, module: _Module, state: dict[str, Any], prefix: str, metadata: Any
    ) -> None:
        """A module with its own `_load_from_state_dict`, which may do anything with its tensors."""
        for key, value in state.items():
            if key.startswith(prefix) and "." not in key[len(prefix) :]:
                state[key] = _made(value)
        rest = (prefix, metadata, True, self._missing, self._unexpected, self._errors)
        own = [v for v in map(self._by_name.get, _own_names(module, prefix)) if v is not None]
        self._run_own(module, prefix, lambda: module._load_from_state_dict(state, *rest), own)
        self._missing[:] = [name for name in self._missing if self._is_missing(name)]

    def _is_missing(self, name: str) -> bool:
        """Whether it was selected and is not there, or was there and has been dropped."""
        return name in self._missing_names or self._by_name.get(name) in self._writes

    def _run_own(
        self, module: _Module, prefix: str, load: Callable[[], object], own: Iterable[Variable]
    ) -> None:
        own = list(own)
        self._flush(own)
        before = {variable: self._registered(variable) for variable in own}
        mark = len(self._journal)
        kind = (
            "load_state_dict" if not prefix and _loads_itself(module) else "_load_from_state_dict"
        )
        self._call(load, f"the {kind}", module)
        self._look_again(module, prefix)
        self._unwrap_registered(module)
        touched = self._touched(mark)
        for variable in own:
            if variable in touched or self._registered(variable) != before[variable]:
                self._loaded_itself(variable)
            elif variable in self._writes and variable not in self._reached:
                self._reached.add(variable)
                self._keep(variable, _NOT_TAKEN)
        for variable in touched - set(own):  # of another module
            self._left.pop(variable, None)
            self._loaded_itself(variable)

    def _loaded_itself(self, variable: Variable) -> None:
        """A variable that has been written; is it what was planned?"""
        write = self._writes.get(variable)
        self._reached.add(variable)
        current = self._current(variable)
        expected = write.staged() if write is not None else None
        if expected is not None and _same(expected, current.detach(), cast=True):
            self._outcome.items.pop(variable, None)
            return
        self._change(variable, _CHANGED)

    def _run_pre_hooks(self, module: _Module, state: dict[str, Any], rest: tuple[Any, ...]) -> None:
        hooks = _users(module._load_state_dict_pre_hooks)
        mark = len(self._journal)
        for hook in hooks:
            self._call(functools.partial(hook, state, *rest), "a load_state_dict hook", module)
        for variable in self._touched(mark):
            if variable not in self._writes:  # what is planned is still to come
                self._reached.add(variable)
                self._change(variable, _CHANGED)

    def _run_post_hooks(self, module: _Module, prefix: str) -> None:
        hooks = _users(module._load_state_dict_post_hooks)
        if not hooks:
            return
        below = [v for name, v in self._by_name.items() if name.startswith(prefix)]
        self._flush(below)
        before = {variable: self._registered(variable) for variable in below}
        told = torch.nn.modules.module._IncompatibleKeys(self._missing, self._unexpected)
        mark = len(self._journal)
        for hook in hooks:
            out = self._call(
                functools.partial(hook, module, told), "a load_state_dict post-hook", module
            )
            if out is not None:
                raise CallbackError(
                    f"A load_state_dict post-hook of {_called(module, self._modules)} returned a "
                    "value; torch wants None of them."
                )
        self._look_again(module, prefix)
        replaced = [v for v, registered in before.items() if self._registered(v) != registered]
        for variable in self._touched(mark).union(replaced):
            self._left.pop(variable, None)
            self._reached.add(variable)
            self._change(variable, _CHANGED)

    def _look_again(self, module: _Module, prefix: str) -> None:
        """Which modules there are now: a hook may have put others in their place."""
        for name, one in named_modules(module, prefix[:-1], is_each_once=False):
            self._at[f"{name}." if name else ""] = one

    def _current(self, variable: Variable) -> torch.Tensor:
        """What the model has for a variable now: a hook may have put something else there."""
        if isinstance(variable.tensor, Boxed):
            return variable.tensor  # its module has only what is here
        owner = variable.owners[0]
        module = self._at.get(owner.state_dict_name.removesuffix(owner.leaf), owner.module)
        tensor = _registered_in(module, owner.leaf)
        return variable.tensor if tensor is None else tensor

    def _registered(self, variable: Variable) -> tuple[int, object]:
        tensor = self._current(variable)
        return id(tensor), tuple(_extents(tensor))

    def _call(self, function: Callable[[], Any], what: str, module: _Module) -> Any:
        try:
            with self._journal.mode, as_the_caller():
                return function()
        except Exception as error:
            raise CallbackError(
                f"{what[0].upper()}{what[1:]} of {_called(module, self._modules)} raised "
                f"{type(error).__name__}: {error}"
            ) from error

    # -- what torch's own `_load_from_state_dict` does ---------------------------------------------

    def _take(self, module: _Module, state: Mapping[str, Any], prefix: str) -> None:
        own = _own_names(module, prefix)
        for name in own:
            target = _registered_in(module, name[len(prefix) :])
            variable = self._by_name.get(name) or self._by_tensor.get(id(target))
            if variable is None:
                continue
            if name in state:
                if target is None or isinstance(variable.tensor, Boxed):
                    target = variable.tensor
                self._record(variable, name, state[name], target.detach())
            elif self._is_missing(name) and variable not in self._reached:
                self._missing.append(name)
        leaves = {name[len(prefix) :] for name in own}
        for key in state:
            first, dot, _ = key.removeprefix(prefix).partition(".")
            known = first in module._modules if dot else first in leaves
            if key.startswith(prefix) and not known and first != EXTRA_STATE:
                self._unexpected.append(key)

    def _record(self, variable: Variable, name: str, value: Any, target: torch.Tensor) -> None:
        """Something is to be copied into what the model has for a variable."""
        from torch_warmstart.execution.loading.stand_ins import StandIn

        if not isinstance(value, torch.Tensor):
            self._errors.append(f"{name}: a hook gives a {type(value).__name__}, not a tensor.")
            return
        if target.shape == () and value.shape == (1,):
            value = value[0]
        if value.shape != target.shape:
            self._errors.append(f"{name}: {list(value.shape)} into {list(target.shape)}.")
            return
        if isinstance(value, StandIn) and not value.is_made:
            of = next(v for v, stand_in in self._stand_ins.items() if stand_in is value)
            write = self._writes[of]
            if of is variable:
                self._outcome.items.pop(variable, None)
                self._leave(variable, write.onto(target))
                return
            if not isinstance(write, Copy):
                write = _copy(write.staged(), target, write)
            self._leave(variable, write.onto(target))
            item = replace(self._items[of], variable=variable, state="renamed", reason=_GIVEN)
            self._outcome.items[variable] = item
            return
        value = _made(value).detach()
        if is_sharded(value) and not (is_sharded(target) and is_divided_alike(value, target)):
            self._errors.append(f"{name}: a hook gives a tensor that is sharded in another way.")
            return
        if _extents(value) == _extents(target):
            return  # its own tensor: a norm that has no counter in an old file
        value = value.clone() if any(map(self._own.holds, local_tensors(value))) else value
        planned = self._writes.get(variable)
        self._leave(variable, _copy_of(value, target, (self._items[variable],)))
        if planned is None or not _same(planned.staged(), value):
            self._change(variable, _CHANGED if planned is not None else _GIVEN)

    def _leave(self, variable: Variable, write: Write) -> None:
        former = self._left.get(variable)
        if former is not None and _extents(former.target) != _extents(write.target):
            self._flush([variable])  # a hook has untied what shared memory
        self._left[variable] = replace(write, items=(self._items[variable],))  # type: ignore[type-var]
        self._reached.add(variable)

    def _flush(self, variables: Iterable[Variable]) -> None:
        """Writes what would be left for the commit, as somebody is going to look at it."""
        for variable in dict.fromkeys(variables):
            write = self._left.pop(variable, None)
            if write is not None:
                for leaf in leaves([write]):
                    self._journal.save(leaf.target)
                write.run()

    def _touched(self, mark: int) -> set[Variable]:
        """Variables in whose memory something was written."""
        extents = dict.fromkeys(self._journal.written_since(mark))
        return {v for extent in extents for v in self._memory.touching(extent)}

    def _unwrap_registered(self, module: _Module) -> None:
        """A hook may have registered what stands for a tensor."""
        from torch_warmstart.execution.loading.stand_ins import StandIn

        for where in (module._parameters, module._buffers):
            for leaf, value in list(where.items()):
                if isinstance(value, StandIn):
                    where[leaf] = value.made()  # type: ignore[assignment]

    # -- what is told ------------------------------------------------------------------------------

    def _keep(self, variable: Variable, why: str) -> None:
        item = self._items[variable]
        self._outcome.items[variable] = PlanItem(variable, "kept", why, item.sources, item.owner)
        text = f"{variable.name} stays as it is: {why}."
        self._outcome.notes.append(Finding("not-taken-by-the-model", "note", variable.name, text))

    def _change(self, variable: Variable, why: str) -> None:
        item = self._items[variable]
        state = item.state if item.state == "remapped" else "converted"
        reason = why if item.state == "kept" else ", ".join(filter(None, (item.reason, why)))
        self._outcome.items[variable] = replace(item, state=state, reason=reason)


class _StateDict(dict[str, Any]):
    """A dict that can carry torch's `_metadata`, as `state_dict()` makes them."""

    _metadata: Any = None


def _stand_in(write: Any) -> StandIn:
    from torch_warmstart.execution.loading.stand_ins import StandIn

    like = write.source if isinstance(write, Copy) else write.target
    return StandIn(like, write.staged)


def _made(value: Any) -> Any:
    from torch_warmstart.execution.loading.stand_ins import StandIn

    return value.made() if isinstance(value, StandIn) else value


def _copy(source: torch.Tensor, target: torch.Tensor, write: Write) -> Write:
    return _copy_of(source, target, write.items)


def _copy_of(source: torch.Tensor, target: torch.Tensor, items: tuple[PlanItem, ...]) -> Write:
    """A copy of a tensor, which may be sharded if the target is, and in the same way."""
    if not is_sharded(target):
        return Copy(source, target, 1.0, items)
    parts = parts_of(target)
    pieces = (
        local_tensors(source) if is_sharded(source) else [part.box.of(source) for part in parts]
    )
    both = zip(pieces, parts, strict=True)
    copies = tuple(Copy(piece, part.tensor, 1.0, items) for piece, part in both)
    return InParts(target, copies, items)


def _same(one: torch.Tensor, other: torch.Tensor, *, cast: bool = False) -> bool:
    """Whether what is here of two tensors is the same, bit for bit.

    Args:
        one: A tensor, sharded or not.
        other: Another one, sharded in the same way if it is.
        cast: Whether to compare what `one` is in the other's dtype.
    """
    if one.shape != other.shape or (one.dtype != other.dtype and not cast):
        return False
    mine, its = local_tensors(one), local_tensors(other)
    if [a.shape for a in mine] != [b.shape for b in its]:
        return False
    return all(
        torch.equal(as_bytes(a.to(b.dtype).to(b.device)), as_bytes(b))
        for a, b in zip(mine, its, strict=True)
    )


def _extents(tensor: torch.Tensor) -> list[object]:
    return [extent_of(local) for local in local_tensors(tensor)]


def _own_names(module: _Module, prefix: str) -> list[str]:
    """Parameters and persistent buffers of one module, as in a state_dict."""
    own = [leaf for leaf, tensor in module._parameters.items() if tensor is not None]
    own += [
        leaf
        for leaf, tensor in module._buffers.items()
        if tensor is not None and is_persistent(module, leaf)
    ]
    return [prefix + leaf for leaf in own]


def _registered_in(module: _Module, leaf: str) -> torch.Tensor | None:
    tensor = module._parameters.get(leaf)
    return module._buffers.get(leaf) if tensor is None else tensor


def _versions(modules: Iterable[tuple[str, _Module]]) -> dict[str, dict[str, int]]:
    """The `_metadata` of a state_dict that this model would write, without writing one.

    Modules upgrade what they load from an older version of themselves; ours is up to date.
    """
    return {name: {"version": module._version} for name, module in modules}


def _takes(function: Callable[..., object], name: str) -> bool:
    """Whether a function has a parameter of a name, or takes any."""
    found = inspect.signature(function).parameters
    return name in found or any(one.kind is one.VAR_KEYWORD for one in found.values())


def _called(module: _Module, modules: Iterable[tuple[str, _Module]]) -> str:
    """A module by its name, or what it is."""
    name = next((name for name, one in modules if one is module), "")
    return f"{name!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
