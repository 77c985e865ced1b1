"""What is taken for a variable's tensor without having its name, only where no tensor has.

in a scope          the only tensor of such a name in one more scope (Keras puts a model's own
name in front, `sequential/den/kernel`, `tf.train.Checkpoint(model=...)` its
attribute); if that scope is one and the same for all that are found so, and
none is found without it, counts of steps and models within it aside
by number           in files of Keras 3, which number a layer's variables, the one of its
number, if there are as many as torch's layer has tensors
in a wrapper        what a wrapper has inside (`TimeDistributed`: `td/inner/kernel`), on the
same condition
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from torch_warmstart.formats import TensorSpec
from torch_warmstart.layouts import ANY
from torch_warmstart.model import Variable
from torch_warmstart.names.conventions import bare_name
from torch_warmstart.names.copies import narrowed
from torch_warmstart.names.layer_tensors import LayerTensors, paths_of
from torch_warmstart.names.source import Source, differ, fitting, identity_of
from torch_warmstart.names.spellings import OWN

_IN_SCOPE = "TensorFlow's name, in a scope"
_IN_WRAPPER = "TensorFlow's name, in a wrapper"


class Inference:
    """What variables of one model are by evidence, each seen beside the others."""

    def __init__(
        self,
        layers: LayerTensors,
        variables: Sequence[Variable],
        renamed: Collection[Variable],
        named_as: Callable[[Variable], tuple[TensorSpec, ...]],
    ) -> None:
        """For the variables of a model.

        Args:
            layers: What their layers are made of in the checkpoint.
            variables: The model's.
            renamed: Those that the user has rules for: how they are found says nothing of others.
            named_as: The tensors of a variable's own names; none, if there are none.
        """
        self._layers = layers
        self._variables = variables
        self._renamed = renamed
        self._named_as = named_as

    def of(self, variable: Variable) -> Source | None:
        """What a variable is taken for that has no tensor of its names, or None."""
        if variable in self._inferred:
            return self._inferred[variable]
        return self._if_in_the_scope(self._infer(variable))

    @functools.cached_property
    def _inferred(self) -> Mapping[Variable, Source | None]:
        """What the model's variables without tensors of their names are, all together."""
        found = {v: self._infer(v) for v in self._variables if self._named_as(v) == ()}
        return {variable: self._if_in_the_scope(source) for variable, source in found.items()}

    def _infer(self, variable: Variable) -> Source | None:
        """The variable by what is evidence, and no name; of scopes, each by itself."""
        return (
            self._find_in_a_scope(variable)
            or self._layers.find_numbered(variable, paths_of(variable), OWN)
            or self._find_wrapped(variable)
        )

    def _if_in_the_scope(self, source: Source | None) -> Source | None:
        """A source, unless it skips a scope that others are not found in."""
        if source is None or not source.scopes:
            return source
        common = source.scopes & self._scopes
        return replace(source, scopes=frozenset(sorted(common)[:1])) if common else None

    @functools.cached_property
    def _scopes(self) -> frozenset[str]:
        """The scopes that may be skipped: every variable that needs that is in each of them.

        None, if variables are found without. Those of models within the model may be: Keras puts a
        model's name before its own layers, and models within it have names of their own.
        """
        inside: list[tuple[Variable, frozenset[str]]] = []
        outside: list[Variable] = []
        for variable in self._variables:
            if variable in self._renamed or _is_count(variable):
                continue
            named = self._named_as(variable)
            source = None if named else self._infer(variable)
            if named or (source is not None and not source.scopes):
                outside.append(variable)
            elif source is not None:
                inside.append((variable, source.scopes))
        of_own_layers = all(map(_is_in_a_model, outside)) and not any(
            _is_in_a_model(variable) for variable, _ in inside
        )
        if not inside or (outside and not of_own_layers):
            return frozenset()
        return frozenset.intersection(*(scopes for _, scopes in inside))

    def _find_in_a_scope(self, variable: Variable) -> Source | None:
        """The variable in one more scope than its name has, if only one tensor answers to that."""
        sources = []
        for owner in variable.owners:
            if not owner.path or owner.path.partition(".")[0].isdecimal():
                continue  # `0.weight` has no name of a layer that could agree
            scopes = _Scopes(functools.partial(self._layers.spellings.in_a_scope, owner.path))
            for form in self._layers.forms(owner):
                specs, rivals = self._layers.fill(form, scopes.keys_of)
                if rivals:
                    return None
                skipped = scopes.of(specs)
                if specs and skipped and self._found_by_name.isdisjoint(s.key for s in specs):
                    sources.append(Source(specs, owner, form, _IN_SCOPE, True, skipped))
        found = narrowed(sources, variable, self._layers.checkpoint)
        return found[0] if found and not differ(found) else None

    @functools.cached_property
    def _found_by_name(self) -> frozenset[str]:
        """The keys that variables of the model have names for: nothing else is found as one."""
        return frozenset(spec.key for v in self._variables for spec in self._named_as(v))

    @functools.cached_property
    def _found_otherwise(self) -> frozenset[object]:
        """What variables of the model find at their own names, or in a scope."""
        found: set[object] = set()
        for variable in self._variables:
            specs = self._named_as(variable)
            source = None if specs else self._find_in_a_scope(variable)
            found.update(map(identity_of, source.specs if source is not None else specs))
        return frozenset(found)

    def _find_wrapped(self, variable: Variable) -> Source | None:
        """The variable in a layer that is all there is in the one of its module's name."""
        for owner in variable.owners:
            forms = self._layers.forms_of_layer(owner)
            if not owner.path or not forms:
                continue
            for scopes in self._wrappers(owner.path):
                inside = self._in_one_layer(scopes.keys_of(f"{ANY}/{ANY}"))
                has_own = any(scopes.keys_of(ANY))  # as WeightNormalization has
                if has_own or len(inside) != len(forms) or inside & self._found_otherwise:
                    continue
                in_wrapper = functools.partial(_in_wrapper, scopes.keys_of)
                filled = [
                    (self._layers.fill(form, in_wrapper)[0], form) for form in forms[owner.leaf]
                ]
                sources = [
                    Source(specs, owner, form, _IN_WRAPPER, True, scopes.of(specs))
                    for specs, form in filled
                    if specs
                ]
                if sources and not differ(sources):
                    return (fitting(sources, variable) or sources)[0]
        return None

    def _in_one_layer(self, keys: Iterable[str]) -> set[object]:
        """What the tensors are that some keys mean; none, if they do not lie in one folder."""
        folders: dict[object, set[str]] = {}
        for key in keys:
            folder = bare_name(key).rpartition("/")[0]
            folders.setdefault(identity_of(self._layers.spellings.spec(key)), set()).add(folder)
        is_one = bool(folders) and bool(set.intersection(*folders.values()))
        return set(folders) if is_one else set()

    def _wrappers(self, path: str) -> Iterable[_Scopes]:
        """The tensors below a path, and below the same in one more scope."""
        in_layer = functools.partial(self._layers.spellings.in_layer, path)
        yield _Scopes(lambda name: (("", key) for key in in_layer(name)))
        yield _Scopes(functools.partial(self._layers.spellings.in_a_scope, path))


class _Scopes:
    """The keys of names within a layer, and the scopes that were skipped for each."""

    def __init__(self, find: Callable[[str], Iterable[tuple[str, str]]]) -> None:
        """Remembers what `find` says: for a name in the layer, scopes and keys."""
        self._find = find
        self._of_name: dict[str, tuple[str, ...]] = {}
        self._of_key: dict[str, set[str]] = {}

    def keys_of(self, name: str) -> tuple[str, ...]:
        if name not in self._of_name:
            found = list(self._find(name))
            for scope, key in found:
                self._of_key.setdefault(key, set()).add(scope)
            self._of_name[name] = tuple(dict.fromkeys(key for _, key in found))
        return self._of_name[name]

    def of(self, specs: Sequence[TensorSpec]) -> frozenset[str]:
        """The scopes that all of some tensors are in; without what is no scope."""
        scopes = [self._of_key[spec.key] for spec in specs]
        return frozenset(set.intersection(*scopes) - {""}) if scopes else frozenset()


def _in_wrapper(keys_of: Callable[[str], Iterable[str]], name: str) -> Iterable[str]:
    """The keys of a tensor of whatever layer is in the one at a path."""
    return keys_of(f"{ANY}/{name}")


def _is_in_a_model(variable: Variable) -> bool:
    """Whether its layer is not one of the model's own, but of a module within."""
    return all("." in owner.path for owner in variable.owners)


def _is_count(variable: Variable) -> bool:
    """Whether it counts steps: such a variable has no layer that could be in a scope."""
    return not variable.shape and not variable.tensor.is_floating_point()
