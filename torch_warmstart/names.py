"""Which tensors of a checkpoint are a variable's value: from the model's names to its keys.

In this order: the user's own renaming; the same name; the name with slashes; the names TensorFlow
gives the leaf in a layer of that type; and for object-based checkpoints, each of these as a full
name in the object graph or as a path through it. Two different hits for one variable are an error,
never a choice.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch_warmstart.errors import MissingTensorError, SettingsError, did_you_mean, near_names
from torch_warmstart.formats.base import Checkpoint, TensorSpec
from torch_warmstart.formats.object_graph import ATTRIBUTE_SUFFIX
from torch_warmstart.layouts import Form
from torch_warmstart.tf_layers import tf_forms
from torch_warmstart.variables import Owner, Shape, Variable

# What wrappers put before the names in a state_dict saved with them.
_TORCH_PREFIXES = ("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.")
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Source:
    """The tensors of the checkpoint that become a variable, and how.

    `owner` is the one of the variable's under whose name they were found.
    """

    specs: tuple[TensorSpec, ...]
    owner: Owner
    form: Form

    @property
    def shape(self) -> Shape | None:
        """The shape in torch; None if the layout does not take tensors like these."""
        shapes = self.form.layout.shapes_in_torch([spec.shape for spec in self.specs])
        return shapes[self.form.part] if shapes else None

    @property
    def identity(self) -> object:
        """Equal for sources of the same bytes."""
        return tuple(_identity(spec) for spec in self.specs)


class Finder:
    """Finds variables in one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def find(self, variable: Variable) -> Source | None:
        """What a variable is warm-started from without the user's help, or None.

        Raises SettingsError if different tensors answer to the variable's names.
        """
        sources = [
            source
            for owner in variable.owners
            for form in self._forms(owner)
            if (source := self._fill(variable, owner, form)) is not None
        ]
        if len({source.identity for source in sources}) > 1:
            sources = _fitting(sources, variable) or sources
        if len({source.identity for source in sources}) > 1:
            raise _ambiguous(variable, [source.specs[0].key for source in sources])
        return next(iter(_fitting(sources, variable) or sources), None)

    def find_renamed(self, variable: Variable, owner: Owner, names: Sequence[str]) -> Source:
        """The tensors that the user named: keys, full names or paths through the object graph.

        `:0` and `.` for `/` are forgiven. Raises MissingTensorError with near names, or
        SettingsError if a name is ambiguous or the layer is not made of so many tensors.
        """
        specs = tuple(self.named(owner, name) for name in names)
        forms = [form for form in self._forms(owner) if len(form.names) == len(specs)]
        if not forms and len(specs) == 1:
            forms = [Form(((owner.leaf,),))]
        if not forms:
            raise SettingsError(
                f"{owner.name} is not made of {len(specs)} tensors of the checkpoint: "
                "var_name_to_prev_var_name names one key for it."
            )
        sources = [Source(specs, owner, form) for form in forms]
        return (_fitting(sources, variable) or sources)[0]

    def nearest(self, variable: Variable) -> list[str]:
        """Keys of the checkpoint that look like a variable's name."""
        in_torch = self.checkpoint.family == "torch"
        name = variable.name if in_torch else variable.name.replace(".", "/")
        return near_names(name, self._names)

    # -- by name -----------------------------------------------------------------------------------

    def named(self, owner: Owner, name: str) -> TensorSpec:
        """The tensor of a name that the user gave for an owner; raises as `find_renamed`."""
        for key in (name, name.removesuffix(":0"), name.replace(".", "/")):
            if key in self.checkpoint:
                return self.checkpoint.spec(key)
            keys = self.checkpoint.keys_of(key)
            if len(keys) > 1:
                found = " and ".join(repr(key) for key in keys)
                raise SettingsError(
                    f"{owner.name}: {name!r} is the name of several tensors; name one by its key: "
                    f"{found}."
                )
            if keys:
                return self.checkpoint.spec(keys[0])
        raise MissingTensorError(
            f"{owner.name}: var_name_to_prev_var_name asks for {name!r}, which "
            f"{self.checkpoint.url} does not have.{did_you_mean(name, self._names)}"
        )

    def _forms(self, owner: Owner) -> tuple[Form, ...]:
        if self.checkpoint.family == "torch":
            return (Form(((owner.leaf,),)),)
        return tf_forms(owner.module, owner.leaf)

    def _fill(self, variable: Variable, owner: Owner, form: Form) -> Source | None:
        """A form with tensors of the checkpoint for all its names, or None."""
        specs = []
        for names in form.names:
            hits: dict[object, TensorSpec] = {}
            for key in self._keys(owner, names):
                spec = self.checkpoint.spec(key)
                hits.setdefault(_identity(spec), spec)
            if not hits:
                return None
            if len(hits) > 1:
                raise _ambiguous(variable, [spec.key for spec in hits.values()])
            specs.append(next(iter(hits.values())))
        return Source(tuple(specs), owner, form)

    def _keys(self, owner: Owner, names: Sequence[str]) -> Iterator[str]:
        if self.checkpoint.family == "torch":
            candidates = [*(prefix + owner.name for prefix in _TORCH_PREFIXES)]
            candidates.append(owner.name.replace(".", "/"))
        else:
            candidates = [c for name in names for c in self._tf_candidates(owner, name)]
        for name in candidates:
            if name in self.checkpoint:
                yield name
            yield from self.checkpoint.keys_of(name)

    def _tf_candidates(self, owner: Owner, name: str) -> Iterator[str]:
        dotted = f"{owner.path}.{name}" if owner.path else name
        slashed = dotted.replace(".", "/")
        if _ANY in name:
            yield from self._matching(slashed)
            return
        yield from dict.fromkeys((dotted, slashed))
        yield slashed + ":0"  # a Saver fed with tensor names writes them like this
        yield slashed + ATTRIBUTE_SUFFIX

    def _matching(self, pattern: str) -> Iterator[str]:
        """Names of the checkpoint that a pattern with `*` takes."""
        literal = pattern[: pattern.index(_ANY)]
        expression = re.compile(re.escape(pattern).replace(re.escape(_ANY), "[^/]*"))
        names = self._sorted_names
        for name in names[bisect.bisect_left(names, literal) :]:
            if not name.startswith(literal):
                return
            if expression.fullmatch(name.removesuffix(ATTRIBUTE_SUFFIX).removesuffix(":0")):
                yield name

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(dict.fromkeys([*self.checkpoint, *self.checkpoint.full_names()]))

    @functools.cached_property
    def _sorted_names(self) -> list[str]:
        return sorted(self._names)


def with_layout(source: Source, form: Form) -> Source:
    """The same tensors, changed in another way."""
    return replace(source, form=form)


def _fitting(sources: Sequence[Source], variable: Variable) -> list[Source]:
    """Those that have the variable's shape in torch."""
    return [s for s in sources if s.form.refusal is None and s.shape == variable.shape]


def _identity(spec: TensorSpec) -> object:
    """Equal for keys that are the same bytes, as tied weights in a state_dict are."""
    return spec.key if spec.storage is None else spec.storage


def _ambiguous(variable: Variable, keys: Sequence[str]) -> SettingsError:
    found = " and ".join(repr(key) for key in dict.fromkeys(keys))
    first, *others = variable.names
    called = first + (f" (tied with {', '.join(others)})" if others else "")
    return SettingsError(
        f"{called} is found under different keys: {found}. Say which one is meant: "
        f"var_name_to_prev_var_name={{{variable.name!r}: {keys[0]!r}}}."
    )
