"""Where the layers of a model could be in a checkpoint, by their types, names and shapes.

There are candidates of these kinds, and a function for each:

    named      its tensors have the names that TensorFlow gives to a layer of that type
    compound   the same, where a layer of TensorFlow's is several modules: attention and its output
               projection, the two halves of a separable convolution
    chained    a stack of recurrent layers, each of which is a layer of its own in TensorFlow
    shaped     as many tensors as it has, of shapes that fit in one way only
    single     one tensor of a shape that fits
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch_warmstart.dtypes import cast_is_lossy
from torch_warmstart.layouts import (
    IDENTITY,
    TRANSPOSE,
    Form,
    is_same_but_ones,
    read_leaf,
    shaped,
    squeeze,
)
from torch_warmstart.layouts.tensorflow import KERAS_NAMES, forms_of_own_norm, one_layer_forms
from torch_warmstart.model import TABLES, Owner, Shape, Variable
from torch_warmstart.names import Finder
from torch_warmstart.suggesting.tensors import AvailableTensors, Fit, Tensor, fits_shape, natural
from torch_warmstart.values import frozen

_PARAMETRIZED = "parametrizations"  # torch's name for where it keeps that
_KERNEL = {"kernel"}  # what a user's module has it for, whatever it calls it
_CHAINS = 200  # looked at for a stack of recurrent layers


@frozen(eq=False)
class Layer:
    """Tensors that belong together, of which nothing is found; or a single one."""

    name: str  # what is compared with names of the checkpoint
    tensors: tuple[tuple[Owner, Variable], ...]
    is_compound: bool = False  # whether some are of modules below it
    has_twin: bool = False  # of a single one: whether its module's others are of the same shape


@frozen(eq=False)
class Candidate:
    """Where a layer could be in the checkpoint."""

    name: str  # what is compared with names of the model; "": it has none that says anything
    fits: tuple[Fit, ...]  # one a tensor of the layer
    path: str | None = None  # of the layer, if it is one there
    is_named: bool = False  # whether its tensors are called as TensorFlow calls them
    remark: str = ""
    is_foreign: bool = False  # whether it has a name that such a tensor never has

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(tensor.spec.key for fit in self.fits for tensor in fit.tensors)


CandidatesOf = Callable[[Layer], list[Candidate]]
_FormsOf = Callable[[Owner], tuple[Form, ...]]


# -- layers ----------------------------------------------------------------------------------------


def layers_of(variables: Sequence[Variable]) -> list[Layer]:
    """The variables by module."""
    layers: dict[str, list[tuple[Owner, Variable]]] = {}
    for variable in variables:
        owner = variable.owners[0]
        layers.setdefault(owner.path, []).append((owner, variable))
    return [Layer(path, tuple(tensors)) for path, tensors in layers.items()]


def compounds_of(finder: Finder, layers: Sequence[Layer]) -> list[Layer]:
    """The modules that TensorFlow has as one layer with modules below them, where it has such."""
    by_path = {layer.name: layer.tensors for layer in layers}
    compounds: dict[str, list[tuple[Owner, Variable]]] = {}
    for layer in layers:
        path, _, child = layer.name.rpartition(".")
        if child and all(_in_parent(finder.forms(o), child) for o, _ in layer.tensors):
            compounds.setdefault(path, [*by_path.get(path, ())]).extend(layer.tensors)
    return [Layer(path, tuple(tensors), is_compound=True) for path, tensors in compounds.items()]


def singles_of(layers: Sequence[Layer]) -> list[Layer]:
    """Each tensor of some layers by itself."""
    singles = []
    for layer in layers:
        shapes = [variable.shape for _, variable in layer.tensors]
        for (owner, variable), shape in zip(layer.tensors, shapes, strict=True):
            alone = ((owner, variable),)
            singles.append(Layer(owner.name, alone, has_twin=shapes.count(shape) > 1))
    return singles


def _in_layer(finder: Finder, layer: Layer) -> _FormsOf:
    """The forms of a layer's tensors, with names as they are in the layer."""

    def forms(owner: Owner) -> tuple[Form, ...]:
        found = finder.forms(owner)
        if finder.conventions.has_own_layers:
            found += forms_of_own_norm(owner.module, owner.leaf)
        if not layer.is_compound or owner.path == layer.name:
            return found
        return _in_parent(found, owner.path.rpartition(".")[2])

    return forms


def _in_parent(forms: Iterable[Form], child: str) -> tuple[Form, ...]:
    """Those that the layer around has, with the names that it has for them."""
    inside = (
        replace(form, names=tuple(_names_in_parent(names, child) for names in form.names))
        for form in forms
    )
    return tuple(form for form in inside if all(form.names))


def _names_in_parent(names: Sequence[str], child: str) -> tuple[str, ...]:
    leaves = map(read_leaf, names)
    return tuple(leaf.name for leaf in leaves if leaf.child == child)


# -- candidates ------------------------------------------------------------------------------------


def named_candidates(finder: Finder, available: AvailableTensors) -> CandidatesOf:
    """Layers whose tensors have the names that they have in a layer of that type."""

    def find(layer: Layer, forms: _FormsOf) -> list[Candidate]:
        found = _common(available, layer.tensors, forms)
        return [
            Candidate(_told(base, fits), fits, base, is_named=True) for base, fits in found.items()
        ]

    return _once_each_kind(finder, find, available)


def chained_candidates(finder: Finder, available: AvailableTensors) -> CandidatesOf:
    """Layers one behind the other, for a stack of recurrent layers: in order first."""

    def find(layer: Layer, _: _FormsOf) -> list[Candidate]:
        levels: dict[int, list[tuple[Owner, Variable]]] = {}
        for owner, variable in layer.tensors:
            stacked = one_layer_forms(owner.module, owner.leaf)
            if stacked is None:
                return []
            levels.setdefault(stacked[0], []).append((owner, variable))
        found = [_common(available, tensors, _as_one_layer) for tensors in levels.values()]
        order = [owner.name for tensors in levels.values() for owner, _ in tensors]
        chains = itertools.islice(_chains(found), _CHAINS)
        return [_chain(layer, order, bases, found) for bases in chains]

    return _once_each_kind(finder, find, available)


def shaped_candidates(finder: Finder, available: AvailableTensors) -> CandidatesOf:
    """Groups of as many tensors as the layer has, of shapes that fit in one way only."""

    def find(layer: Layer, forms: _FormsOf) -> list[Candidate]:
        if len(layer.tensors) == 1:
            return []
        return [
            Candidate(_told(parent, fits), fits)
            for parent, tensors in available.by_parent.items()
            if len(tensors) == len(layer.tensors)
            and (fits := _only_way(available, layer, forms, tensors)) is not None
        ]

    return _once_each_kind(finder, find, available)


def single_candidates(finder: Finder, available: AvailableTensors) -> CandidatesOf:
    """Tensors that fit alone, whatever their names, unless those are for something else."""

    def find(layer: Layer, forms: _FormsOf) -> list[Candidate]:
        ((owner, variable),) = layer.tensors
        own = {n for form in forms(owner) for names in form.names for n in names}
        is_of_users = own == {owner.leaf} and len(variable.shape) > 1
        foreign = KERAS_NAMES - own - (_KERNEL if is_of_users else set())
        shape = available.shape_of(variable)
        return [
            Candidate(_told(tensor.name, (fit,)), (fit,), is_foreign=tensor.leaf in foreign)
            for tensor in available.tensors
            # Where it lies says nothing of which one it is: a layer made without a scale has one
            # tensor less, and the others have other numbers.
            if not (tensor.is_stored and layer.has_twin)
            and _can_become(tensor, variable)
            and (
                fit := _fit_alone(forms(owner), owner, shape, tensor)
                or _fit_otherwise(owner, variable, tensor)
            )
            is not None
        ]

    return _once_each_kind(finder, find, available)


def _once_each_kind(
    finder: Finder, find: Callable[[Layer, _FormsOf], list[Candidate]], available: AvailableTensors
) -> CandidatesOf:
    """The same list for layers that have the same candidates."""
    known: dict[object, list[Candidate]] = {}

    def candidates_of(layer: Layer) -> list[Candidate]:
        forms = _in_layer(finder, layer)
        key = _signature(layer, forms, available)
        if key not in known:
            known[key] = find(layer, forms)
        return known[key]

    return candidates_of


def _signature(layer: Layer, forms: _FormsOf, available: AvailableTensors) -> object:
    """Equal for layers that have the same candidates."""
    return layer.has_twin, *(
        (
            owner.leaf,
            available.shape_of(variable),
            variable.tensor.dtype,
            tuple((f.names, f.layout.name, f.part, f.refusal) for f in forms(owner)),
        )
        for owner, variable in layer.tensors
    )


def _common(
    available: AvailableTensors, tensors: Sequence[tuple[Owner, Variable]], forms: _FormsOf
) -> dict[str, tuple[Fit, ...]]:
    """By path, in natural order, the layers that have all of these tensors.

    Second paths to the same tensors are left out: a cell is a layer's, and one by itself.
    """
    fits = [_fits_by_path(available, forms(owner), variable) for owner, variable in tensors]
    found: dict[frozenset[str], tuple[str, tuple[Fit, ...]]] = {}
    for base in sorted(fits[0], key=natural):
        if all(base in fit for fit in fits):
            here = tuple(fit[base] for fit in fits)
            if _is_of_different_tensors(here):
                found.setdefault(_keys(here), (base, here))
    return dict(found.values())


def _fits_by_path(
    available: AvailableTensors, forms: Sequence[Form], variable: Variable
) -> dict[str, Fit]:
    found = available.fits(forms, available.shape_of(variable))
    return {
        path: fit
        for path, fit in found.items()
        if all(_can_become(tensor, variable) for tensor in fit.tensors)
    }


def _can_become(tensor: Tensor, variable: Variable) -> bool:
    """Whether there is a cast from its dtype: a quantised kernel is no weight."""
    found, wanted = tensor.spec.dtype, variable.tensor.dtype
    return found is not None and (found == wanted or cast_is_lossy(found, wanted) is not None)


def _keys(fits: Iterable[Fit]) -> frozenset[str]:
    return frozenset(tensor.spec.key for fit in fits for tensor in fit.tensors)


def _is_of_different_tensors(fits: Sequence[Fit]) -> bool:
    """Whether no tensor is used for two that torch keeps apart, except as parts of a layout."""
    used = [(frozenset(fit.names), fit.form.part) for fit in fits]
    return len(set(used)) == len(used)


# -- a stack of recurrent layers -------------------------------------------------------------------


def _as_one_layer(owner: Owner) -> tuple[Form, ...]:
    stacked = one_layer_forms(owner.module, owner.leaf)
    return stacked[1] if stacked is not None else ()


def _chains(levels: Sequence[Mapping[str, tuple[Fit, ...]]]) -> Iterator[tuple[str, ...]]:
    """A layer for each level, no tensor twice."""
    if not levels:
        yield ()
        return
    first, *others = levels
    for base, fits in first.items():
        taken = _keys(fits)
        rest = [{b: f for b, f in o.items() if taken.isdisjoint(_keys(f))} for o in others]
        yield from ((base, *chain) for chain in _chains(rest))


def _chain(
    layer: Layer,
    order: Sequence[str],
    bases: Sequence[str],
    levels: Sequence[Mapping[str, tuple[Fit, ...]]],
) -> Candidate:
    """One layer for each level as a candidate, its fits in the order of the stack's tensors."""
    found = [fit for base, level in zip(bases, levels, strict=True) for fit in level[base]]
    by_name = dict(zip(order, found, strict=True))
    fits = tuple(by_name[owner.name] for owner, _ in layer.tensors)
    remark = "a layer of the checkpoint for each of the module's"
    return Candidate(_told(" ".join(bases), fits), fits, is_named=True, remark=remark)


def _told(name: str, fits: Iterable[Fit]) -> str:
    """A name, if it is one and not only where tensors lie in a file."""
    is_stored = any(tensor.is_stored for fit in fits for tensor in fit.tensors)
    return "" if is_stored else name


# -- by shape --------------------------------------------------------------------------------------


def _only_way(
    available: AvailableTensors, layer: Layer, forms: _FormsOf, tensors: Sequence[Tensor]
) -> tuple[Fit, ...] | None:
    """The tensors in the order of the layer's, if their shapes leave no choice."""
    fits = []
    for owner, variable in layer.tensors:
        shape = available.shape_of(variable)
        likely = [tensor for tensor in tensors if _can_become(tensor, variable)]
        found = (_fit_alone(forms(owner), owner, shape, tensor) for tensor in likely)
        fitting = [fit for fit in found if fit is not None]
        if len(fitting) != 1:
            return None
        fits += fitting
    return tuple(fits) if _is_of_different_tensors(fits) else None


def _fit_alone(forms: Iterable[Form], owner: Owner, shape: Shape, tensor: Tensor) -> Fit | None:
    """A tensor as a variable: laid out as its module's, or if only that fits, as it is."""
    if _PARAMETRIZED in tensor.parts and _PARAMETRIZED not in owner.leaf:
        return None  # what a weight is computed from, is not the weight
    usable = [f for f in forms if f.refusal is None and len(f.names) == 1]
    if len(shape) > 1 or not usable:
        usable.append(Form(((owner.leaf,),), IDENTITY))
    more = len(tensor.spec.shape) - len(shape)
    if more > 0 and set(tensor.spec.shape[:more]) == {1}:
        usable.append(Form(((owner.leaf,),), squeeze(more)))
    fitting = [form for form in usable if fits_shape(form, [tensor.spec], shape)]
    of_layer = {form.layout.name for form in fitting} - {IDENTITY.name}
    # A bias of a cell may have its gates in several orders: a rule for it alone would be refused.
    return Fit((tensor,), fitting[0]) if fitting and len(of_layer) < 2 else None


def _fit_otherwise(owner: Owner, variable: Variable, tensor: Tensor) -> Fit | None:
    """A table that has its entries in columns, as T5 has its biases by distance.

    Or what is the same but for axes of size 1, as a bias of [1, c, 1, 1] is.
    """
    layout = None
    if isinstance(owner.module, TABLES):
        layout = TRANSPOSE
    elif math.prod(variable.shape) > 1 and is_same_but_ones(tensor.spec.shape, variable.shape):
        layout = shaped(*variable.shape)
    if layout is None:
        return None
    form = Form(((owner.leaf,),), layout)
    fits = fits_shape(form, [tensor.spec], variable.shape)
    return Fit((tensor,), form) if fits else None
