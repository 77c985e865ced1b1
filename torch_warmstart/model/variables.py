"""A model seen as TensorFlow saw one: named variables, trainable or global.

trainable   model.named_parameters()
global      the same, the persistent buffers, and where an optimizer is given, its slots (`slots`)

Tied parameters are one variable with several names. What wrappers add to names (`module.`,
`_orig_mod.`) is not part of a name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from torch_warmstart.computing import Box, home_of
from torch_warmstart.dtypes import PLAIN
from torch_warmstart.errors import SettingsError, UnsupportedError, printable
from torch_warmstart.model.modules import modules_of
from torch_warmstart.model.sharding import (
    Part,
    Table,
    is_sharded,
    local_tensors,
    parts_of,
    registered_of,
    tables_of,
)
from torch_warmstart.model.wrappers import CHILDREN, DATA_PARALLEL, FRONTS, TWICE
from torch_warmstart.values import frozen

Kind = Literal["parameter", "buffer", "slot"]
Shape = tuple[int, ...]
Outline = tuple[Shape, torch.dtype]


@frozen
class Owner:
    """One place in the model where a tensor is registered."""

    name: str  # without wrappers: "encoder.0.weight"
    state_dict_name: str  # with them: "module.encoder.0.weight"
    module: torch.nn.Module  # the layer; of what it computes a weight from and by, too
    leaf: str  # "weight", "parametrizations.weight.original", "parametrizations.weight.0._u"

    @property
    def path(self) -> str:
        """The module's own name: "encoder.0", or "" for the root."""
        if self.name == self.leaf:
            return ""
        own = self.name.removesuffix(f".{self.leaf}") if "." in self.leaf else self.name
        return own if own != self.name else self.name.rpartition(".")[0]


TABLES = (nn.Embedding, nn.EmbeddingBag)  # modules whose weights are looked up in
_STANDS_FOR = "_stands_for"


def stand_for(bare: torch.nn.Module, module: torch.nn.Module) -> None:
    """Makes a bare module, which has successors of another one's tensors, known as its."""
    vars(bare)[_STANDS_FOR] = module


def what_it_is(module: torch.nn.Module) -> torch.nn.Module:
    """A module, or of a bare one that which it stands for: what it does in its model."""
    found: torch.nn.Module = vars(module).get(_STANDS_FOR, module)
    return found


def padding_row(module: torch.nn.Module) -> int | None:
    """The row that an embedding has for no input (`padding_idx`), which it never trains."""
    if isinstance(module, TABLES):
        return module.padding_idx
    return None


def positions_from(path: str, module: torch.nn.Module) -> int | None:
    """The padding row's number that a module counts positions from, as RoBERTa's kin do."""
    row = vars(module).get("padding_idx")
    about = f"{path.rpartition('.')[2]} {type(module).__name__}".lower()
    return row if isinstance(row, int) and "position" in about else None


@frozen(eq=False)
class Slot:
    """What makes a variable an optimizer's: `optimizer.state[parameter][name]`."""

    optimizer: torch.optim.Optimizer
    parameter: Variable
    name: str  # torch's: "exp_avg"
    group: dict[str, Any]  # the param group, for its hyper-parameters
    device: torch.device  # where the optimizer keeps it; `step` is often on the CPU
    start: float | None  # what the optimizer begins with; None: nobody knows
    python_type: type | None = None  # int or float where it is a plain number
    is_fused: bool = False  # it is the kernels' that update the parameter, and is always there
    axes: tuple[int | None, ...] | None = None  # which of the parameter's they are, if it is known

    @property
    def present(self) -> bool:
        """Whether the optimizer has it already; otherwise its first step would make it."""
        return self.is_fused or self.name in self.state

    @property
    def state(self) -> dict[str, Any]:
        """What the optimizer keeps for the parameter, this slot among it; not of fused ones."""
        found: dict[str, Any] = self.optimizer.state.get(registered_of(self.parameter.tensor), {})
        return found


@frozen(eq=False, repr=False)
class Variable:
    """A tensor to fill: the model's, or an optimizer's slot for one of them.

    A slot that the optimizer does not have yet is a tensor without data (on the meta device) of the
    shape and dtype that it will have.
    """

    tensor: torch.Tensor
    kind: Kind
    owners: tuple[Owner, ...]  # more than one if it is tied
    slot: Slot | None = None

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} {list(self.shape)}>"

    @property
    def name(self) -> str:
        return self.owners[0].name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(owner.name for owner in self.owners)

    @property
    def trainable(self) -> bool:
        """TensorFlow's word. A frozen parameter (`requires_grad=False`) is still a parameter."""
        return self.kind == "parameter"

    @property
    def shape(self) -> Shape:
        """Its sizes; none where it has no shape yet (`is_lazy`)."""
        try:
            return tuple(self.tensor.shape)
        except RuntimeError:  # asked for very often, and lazy very seldom
            return ()

    @property
    def is_lazy(self) -> bool:
        """Whether its shape is not known before a batch has been through the model."""
        return torch.nn.parameter.is_lazy(self.tensor)

    @property
    def outline(self) -> Outline:
        """What `model.half()`, `model.to(...)` and `.data = ...` change behind the same tensor."""
        return self.shape, self.tensor.dtype

    @property
    def parts(self) -> tuple[Part, ...]:
        """What of it this process holds: all, in one part, unless it is sharded."""
        return parts_of(self.tensor)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Which parts of it those are."""
        return tuple(part.box for part in self.parts)

    @property
    def local_tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors that hold what is here of it."""
        return local_tensors(self.tensor)

    @property
    def device(self) -> torch.device:
        """Where it is; for a slot that is not there yet, or a tensor on meta, where it will be."""
        return self.slot.device if self.slot else home_of(self.tensor)


def is_persistent(module: torch.nn.Module, leaf: str) -> bool:
    """Whether a tensor is in a state_dict, and so in a checkpoint; some buffers are not."""
    return leaf not in module._non_persistent_buffers_set


def model_variables(model: torch.nn.Module) -> tuple[Variable, ...]:
    """All parameters and persistent buffers of a model, in the order the model lists them."""
    found: dict[int, Variable] = {}
    for tensor, owner, kind in _registered(model):
        _add(found, tensor, owner, kind)
    return tuple(found.values())


def names_by_tensor(model: torch.nn.Module) -> dict[int, str]:
    """The names of the same, by the ids of their tensors: numbers and text, for many of them."""
    found: dict[int, str] = {}
    for tensor, owner, _ in _registered(model):
        found.setdefault(id(tensor), owner.name)
    return found


def _registered(model: torch.nn.Module) -> Iterator[tuple[torch.Tensor, Owner, Kind]]:
    """Every place in which a model has a tensor: all parameters, then all persistent buffers."""
    modules = list(walk(model))
    layers, tables = _parametrized(modules), tables_of(model)
    for path, raw_path, module in modules:
        layer_path, layer = layers.get(path, (path, module))
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = path + leaf
            owner = Owner(name, raw_path + leaf, layer, name.removeprefix(layer_path))
            yield *_shown(tables, parameter, owner), "parameter"
    for path, raw_path, module in modules:
        layer_path, layer = layers.get(path, (path, module))
        for leaf, buffer in module._buffers.items():
            if buffer is not None and is_persistent(module, leaf):
                name = path + leaf
                owner = Owner(name, raw_path + leaf, layer, name.removeprefix(layer_path))
                yield *_shown(tables, buffer, owner), "buffer"


def _parametrized(
    modules: Iterable[tuple[str, str, torch.nn.Module]],
) -> dict[str, tuple[str, torch.nn.Module]]:
    """The layers whose weights are computed, by the path of what they are computed from.

    What computes one may keep buffers of its own for that: they are the layer's as well.
    """
    found = {}
    for path, _, module in modules:
        # torch's own question takes ten times as long
        if "parametrizations" not in module._modules or not is_parametrized(module):
            continue
        for name, each in module.parametrizations.items():  # type: ignore[union-attr, operator]
            inner = f"{path}parametrizations.{name}."
            found[inner] = (path, module)
            found.update({f"{inner}{at}.": (path, module) for at in each._modules})
    return found


def absent_variables(model: torch.nn.Module) -> tuple[Variable, ...]:
    """The parameters that modules are made without (`bias=False`), as variables of no element."""
    owners: dict[tuple[int, str], list[Owner]] = {}
    for path, raw_path, module in walk(model):
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                owner = Owner(path + leaf, raw_path + leaf, module, leaf)
                owners.setdefault((id(module), leaf), []).append(owner)
    nothing = torch.empty(0, device="meta")
    return tuple(Variable(nothing, "parameter", tuple(own)) for own in owners.values())


class NamesInStates(Collection[str]):
    """What a state_dict may call a model's tensors, whatever wraps the whole of it.

    They are listed when somebody asks: few formats leave open which of their entries is meant.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        names = [name for variable in model_variables(self._model) for name in variable.names]
        return frozenset(front + name for name in names for front in FRONTS)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def module_names(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Every module by its name without wrappers; "" is the model itself."""
    return {path.removesuffix("."): module for path, _, module in walk(model)}


def canonical_name(name: str) -> str:
    """`a/b` as `a.b`; a `:0` at the end, TensorFlow's output number, is dropped."""
    return name.removesuffix(":0").replace("/", ".")


class VariablesByName:
    """The variable that a name means, for many names; every name of a tied one counts.

    By each name as it is, then in its canonical form, last by the names that `named_parameters()`
    has, with what wrappers put into them.
    """

    def __init__(self, variables: Iterable[Variable]) -> None:
        self._found: dict[str, tuple[Variable, Owner]] = {}
        owners = [(variable, owner) for variable in variables for owner in variable.owners]
        for spell in (str, canonical_name):  # a name as it is comes before what stands for it
            for variable, owner in owners:
                self._found.setdefault(spell(owner.name), (variable, owner))
        for variable, owner in owners:
            if owner.state_dict_name != owner.name:
                self._found.setdefault(canonical_name(owner.state_dict_name), (variable, owner))

    def find(self, name: str) -> tuple[Variable, Owner] | None:
        """The variable of a name and the owner that has it."""
        return self._found.get(name) or self._found.get(canonical_name(name))


def select_tensors(
    variables: Sequence[Variable], tensors: Sequence[torch.Tensor]
) -> tuple[list[Variable], list[int]]:
    """The variables that are these very tensors, and the positions of those that are none."""
    by_id = {id(variable.tensor): variable for variable in variables}
    strangers = [at for at, tensor in enumerate(tensors) if id(tensor) not in by_id]
    chosen = {id(tensor) for tensor in tensors}
    return [v for v in variables if id(v.tensor) in chosen], strangers


def _shown(
    tables: dict[str, Table], tensor: torch.Tensor, owner: Owner
) -> tuple[torch.Tensor, Owner]:
    """What is registered, or the table of TorchRec's that it stands for, with its layer."""
    table = tables.get(owner.state_dict_name)
    if table is None:
        return tensor, owner
    return table.tensor, replace(owner, module=table.layer)


def check_answers(variable: Variable) -> None:
    """Raises UnsupportedError for a selected tensor of a class that does not say what it is."""
    _ask(variable.tensor, variable.name, _of_selected)


def _of_any(tensor: torch.Tensor) -> None:
    _ = tensor.is_meta, tensor.layout, tensor.dtype, tensor.numel()


def _of_selected(tensor: torch.Tensor) -> None:
    _ = tensor.shape, tensor.is_nested, tensor.is_inference()
    if tensor.layout is torch.strided:
        _ = tensor.is_contiguous(), tensor.is_conj(), tensor.is_neg()


def _ask(tensor: torch.Tensor, name: str, question: Callable[[torch.Tensor], None]) -> None:
    """Of what is sharded the parts are asked: its own class need not answer (ShardedTensor's)."""
    if type(tensor) in PLAIN or nn.parameter.is_lazy(tensor) or is_sharded(tensor):
        return
    try:
        question(tensor)
    except Exception as error:  # whatever its __torch_function__ does
        raise UnsupportedError(
            f"{name} is of class {type(tensor).__name__}, which does not say its shape, dtype and "
            f"device: {type(error).__name__} ({printable(str(error))}). Give the model a plain "
            "tensor instead."
        ) from error


def _add(found: dict[int, Variable], tensor: torch.Tensor, owner: Owner, kind: Kind) -> None:
    known = found.get(id(tensor))
    if known is None:
        _ask(tensor, owner.name, _of_any)
        found[id(tensor)] = Variable(tensor, kind, (owner,))
    else:  # tied, or a module that stands in several places
        found[id(tensor)] = Variable(tensor, known.kind, (*known.owners, owner))


def walk(
    module: nn.Module, path: str = "", raw_path: str = "", inside: tuple[nn.Module, ...] = ()
) -> Iterable[tuple[str, str, nn.Module]]:
    """Every module with its prefix without and with wrappers; a shared module comes several times.

    `inside`: the modules that it is within. Raises SettingsError if it is one of them: torch's own
    state_dict() would not end, either.
    """
    if any(module is outer for outer in inside):
        raise SettingsError(
            f"model.{raw_path.removesuffix('.')} is a module that it lies within: torch's own "
            "state_dict() and train() do not end on such a model. Keep the reference where torch "
            "does not look for modules, as in a tuple: self.outer = (outer,)."
        )
    yield path, raw_path, module
    within = (*inside, module)
    for name, child in module._modules.items():
        if child is None or (name == TWICE[1] and _is_there_twice(module, child)):
            continue
        wraps = name in CHILDREN or (name == DATA_PARALLEL and _is_data_parallel(module))
        inner, raw_inner = path if wraps else f"{path}{name}.", f"{raw_path}{name}."
        if child._modules:
            yield from walk(child, inner, raw_inner, within)
        else:  # most have no children: no generator of their own
            yield inner, raw_inner, child


def _is_there_twice(module: nn.Module, original: nn.Module) -> bool:
    """Whether a wrapper has the user's model by itself besides in what it runs."""
    run = module._modules.get(TWICE[0])
    return run is not None and any(one is original for one in modules_of(run))


def _is_data_parallel(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel)
