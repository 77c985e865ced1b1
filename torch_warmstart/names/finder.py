"""Which tensors of a checkpoint are a variable's value: from the model's names to its keys.

In this order: the user's own renaming; the same name; the name with slashes; the names TensorFlow
gives the leaf in a layer of that type; and for object-based checkpoints, each of these as a full
name in the object graph or as a path through it. Two different hits for one variable are an error,
never a choice. What wrappers put into names is no part of them, and where a tensor lies in a file
(`layers/dense_1/vars/0`) is no name.

Only for variables that are found by none of these there is more, and what is found so is inferred:

    without its model   Keras's own name for a layer of a model within a model leaves that out
    by evidence         in a scope, by number or in a wrapper: `inference.py`
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch_warmstart.errors import MissingTensorError, SettingsError, meant_one_of
from torch_warmstart.formats import Checkpoint, TensorSpec, check_one_key
from torch_warmstart.layouts import IDENTITY, Form, expression, fits_either_way, joined_forms
from torch_warmstart.layouts.tensorflow import is_untold_square, presumed_cell
from torch_warmstart.model import Owner, Variable
from torch_warmstart.names.conventions import Conventions, bare_name
from torch_warmstart.names.copies import narrowed
from torch_warmstart.names.layer_tensors import LayerTensors, once_each, paths_of
from torch_warmstart.names.source import Source, differ, fitting, with_layout
from torch_warmstart.names.spellings import ANY_KIND, OWN, SHORT, Kinds
from torch_warmstart.settings import SETTING

if TYPE_CHECKING:
    from torch_warmstart.names.inference import Inference

BY_USER = "renamed in settings"  # how a variable or a slot was found
WITHOUT_MODEL = "TensorFlow's name, without its model's"
_PARTS = re.compile(r"([./])")


class _NotThereError(MissingTensorError):
    """That a name is not in the checkpoint, with near ones, looked for only if it is read."""

    def __init__(self, problem: str, near: Callable[[], Sequence[str]]) -> None:
        super().__init__(problem)
        self._near = near

    def __str__(self) -> str:
        return super().__str__() + meant_one_of(self._near())


class Finder:
    """Finds variables in one checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        variables: Sequence[Variable] = (),
        renamed: Collection[Variable] = (),
    ) -> None:
        """A finder for the variables of a model, which are not found as each other.

        Args:
            checkpoint: Where they are.
            variables: The model's.
            renamed: Those that the user has rules for: how they are found says nothing of others.
        """
        self.checkpoint = checkpoint
        self._variables = [variable for variable in variables if variable.slot is None]
        self._layers = LayerTensors(checkpoint)
        self._spellings = self._layers.spellings
        self.conventions: Conventions = self._layers.conventions
        self._found: dict[Variable, Source | None] = {}  # by the variables' own names
        self._renamed = renamed

    def find(self, variable: Variable) -> Source | None:
        """What a variable is warm-started from without the user's help, or None.

        Raises SettingsError if different tensors answer to the variable's names.
        """
        found = self._find_by_name(variable)
        if found is None and self.conventions.has_scopes:
            found = self._inference.of(variable)
        if found is None or not self.conventions.has_own_layers:
            return found
        return self._presumed(found)

    @functools.cached_property
    def _inference(self) -> Inference:
        from torch_warmstart.names.inference import Inference

        return Inference(self._layers, self._variables, self._renamed, self._named_as)

    @property
    def keys(self) -> frozenset[str]:
        """The checkpoint's; to look one up here costs a tenth of what it costs there."""
        return self._spellings.keys

    def without_a_name(self, but: Iterable[str]) -> str | None:
        """Where a tensor lies of which the checkpoint says no more than that, if there is one.

        But for some keys, of which variables are made by rules.
        """
        return self._spellings.without_a_name(but)

    def find_renamed(
        self, variable: Variable, owner: Owner, names: Sequence[str], asked_by: str = SETTING
    ) -> Source:
        """The tensors that the user named: keys, full names or paths through the object graph.

        `:0` and `.` for `/` are forgiven. The leaf of a single name may be torch's, `old/weight`
        for `old/kernel`. Raises MissingTensorError with near names, or SettingsError if a name is
        ambiguous or the layer is not made of so many tensors.
        """
        if len(names) == 1 and not self._spellings.given(names[0]):
            translated = self._find_translated(variable, owner, names[0])
            if translated is not None:
                return self._presumed(translated)
        specs = tuple(self.named(owner, name, asked_by) for name in names)
        forms = [form for form in self.forms(owner) if len(form.names) == len(specs)]
        if len(specs) > 1:  # by whose names something is refused, the user did not go
            forms = [form for form in forms if form.refusal is None]
            forms = self._meant(variable, owner, forms, specs)
        if not forms and len(specs) == 1:
            forms = [Form(((owner.leaf,),))]
        if not forms:
            counts = sorted({len(form.names) for form in self.forms(owner)})
            raise SettingsError(
                f"{owner.name} is not made of {len(specs)} tensors of the checkpoint, which "
                f"{asked_by} names, but of {' or '.join(map(str, counts))}."
            )
        sources = [Source(specs, owner, form) for form in forms]
        fit = fitting(sources, variable)
        fit = [source for source in fit if _is_called_so(source)] or fit
        layouts = list(dict.fromkeys(source.form.layout.name for source in fit))
        if len(layouts) > 1:
            refusal = _undecided(layouts, alone=len(specs) == 1)
            return with_layout(fit[0], Form(fit[0].form.names, refusal=refusal))
        return self._presumed((fit or sources)[0])

    def _meant(
        self, variable: Variable, owner: Owner, forms: list[Form], specs: Sequence[TensorSpec]
    ) -> list[Form]:
        """The forms of several tensors that a user means.

        By their names a weight is made of them (a table in parts, a cell's); else each is one as
        the layer's own, and they stand one below the other.
        """
        made = [Source(tuple(specs), owner, form) for form in forms]
        called_so = [source.form for source in made if _is_called_so(source)]
        if called_so:
            return called_so
        shapes = [spec.shape for spec in specs]
        below = joined_forms(owner.module, owner.leaf, self.forms(owner), shapes)
        joined = [Source(tuple(specs), owner, form) for form in below]
        fit = fitting(joined, variable) or fitting(made, variable) or joined or made
        return [source.form for source in fit]

    def _presumed(self, source: Source) -> Source:
        """The same, said to be presumed where no name tells its layout."""
        owner, keys = source.owner, [bare_name(spec.key) for spec in source.specs]
        parts = source.form.parts or (source.form,)
        each = zip(source.specs, parts, strict=False)
        is_open = any(self.is_open(owner, part, spec) for spec, part in each)
        form = replace(source.form, is_presumed=True) if is_open else source.form
        told = (self.checkpoint.layer_of(spec.key) is not None for spec in source.specs)
        if self.conventions.has_own_layers and not all(told):  # of Keras's files, which are its
            form = presumed_cell(form, owner.module, owner.leaf, keys)
        return source if form is source.form else with_layout(source, form)

    def is_open(self, owner: Owner, form: Form, spec: TensorSpec) -> bool:
        """Whether a square tensor is taken as it is, and nobody says where its outputs are."""
        if form.layout is not IDENTITY:
            return False
        if not self.conventions.has_own_layers:
            return fits_either_way(owner.module, spec.key, spec.shape)
        name = bare_name(spec.key)
        return is_untold_square(owner.module, owner.leaf, name, spec.shape)

    def beside(self, source: Source, owner: Owner) -> Source | None:
        """Another tensor of the layer in the checkpoint that a source is in.

        None if it has no such tensor, or the source's names do not say where its layer is.
        """
        for path in self._spellings.layers_of(source.specs[0].key, source.form.names[0]):
            in_layer = functools.partial(self._spellings.in_layer, path, kinds=ANY_KIND)
            keys_of = once_each(in_layer)
            for form in self.forms(owner):
                specs, _ = self._layers.fill(form, keys_of)
                if specs:
                    return Source(specs, owner, form)
        return None

    def nearest(self, variable: Variable) -> list[str]:
        """What the checkpoint calls tensors that looks like a variable's name."""
        return self._spellings.near_names(self.conventions.spelt(variable.name))

    def forms(self, owner: Owner) -> tuple[Form, ...]:
        """The forms that a tensor of the model may have in the checkpoint."""
        return self._layers.forms(owner)

    def ending_in(self, ending: str) -> Sequence[str]:
        """Names of the checkpoint that end in these parts, two at least."""
        return self._spellings.ending_in(ending)

    def near(self, name: str) -> list[str]:
        """Keys and other names of the checkpoint that look like a name."""
        return self._spellings.index.near(name)

    def spec(self, key: str) -> TensorSpec:
        """The tensor of a key that is there; cheaper than to ask the checkpoint again."""
        return self._spellings.spec(key)

    # -- by the user's name ------------------------------------------------------------------------

    def named(self, owner: Owner, name: str, asked_by: str = SETTING) -> TensorSpec:
        """The tensor of a name that the user gave for an owner; raises as `find_renamed`."""
        keys = self._spellings.given(name)
        check_one_key(owner.name, name, keys)
        if keys:
            return self.spec(keys[0])
        raise _NotThereError(
            f"{owner.name}: {asked_by} asks for {name!r}, which {self.checkpoint.url} does not "
            "have.",
            functools.partial(self.near, name),
        )

    def _find_translated(self, variable: Variable, owner: Owner, name: str) -> Source | None:
        """What a name means whose leaf is torch's: the layer at another path, with its own names.

        What follows the leaf follows TensorFlow's too: of `old/weight/ExponentialMovingAverage` it
        is `old/kernel/ExponentialMovingAverage`. Raises SettingsError if different tensors answer.
        """
        path, behind = _around_leaf(name.removesuffix(":0"), owner.leaf)
        if path is None:
            return None
        at = [(owner, path)]
        found = self._find_at(variable, at, ANY_KIND, behind)
        self._check_attribute(variable, at, ANY_KIND, found)
        if found is not None or behind:
            return found
        return self._find_begun(variable, owner, path) or self._layers.find_numbered(
            variable, at, ANY_KIND
        )

    def _find_begun(self, variable: Variable, owner: Owner, path: str) -> Source | None:
        """The variable where a path ends within its layer: at `multi_rnn_cell/` of a stack's."""

        def keys_of(name: str) -> Iterable[str]:
            rests = _rests(path.replace(".", "/").split("/"), name.split("/"))
            return (k for rest in rests for k in self._spellings.in_layer(path, rest, ANY_KIND))

        return self._chosen(variable, [(owner, once_each(keys_of))])

    # -- by the model's name -----------------------------------------------------------------------

    def _find_by_name(self, variable: Variable) -> Source | None:
        """The variable where its own names lead to, or those without its models'.

        Raises as `_find_at`.
        """
        if variable not in self._found:
            paths = paths_of(variable)
            found = self._find_at(variable, paths, OWN)
            self._check_attribute(variable, paths, OWN, found)
            if found is None and self.conventions.has_scopes:
                short = self._find_at(variable, paths, SHORT)
                found = short and replace(short, reason=WITHOUT_MODEL, is_inferred=True)
            self._found[variable] = found
        return self._found[variable]

    def _check_attribute(
        self,
        variable: Variable,
        paths: Sequence[tuple[Owner, str]],
        kinds: Kinds,
        found: Source | None,
    ) -> None:
        """Raises SettingsError if one layer is called so, and another one the model's attribute is.

        A file of Keras 3 has both: the name of a layer, and as the folder of another, an attribute.
        """
        if found is None or not self._spellings.has_numbers:
            return
        other = self._layers.find_numbered(variable, paths, kinds)
        if other is not None and not set(other.identity) <= set(found.identity):
            keys = [source.specs[0].key for source in (found, other)]
            raise self._ambiguous(variable, keys)

    def _find_at(
        self,
        variable: Variable,
        paths: Sequence[tuple[Owner, str]],
        kinds: Kinds,
        behind: str = "",
    ) -> Source | None:
        """The variable among the tensors of layers: an owner, and the path to look for it at.

        `behind` is what follows the names within the layer. Raises SettingsError if different
        tensors answer.
        """
        layers = []
        for owner, path in paths:
            keys_of = functools.partial(self._spellings.in_layer, path, kinds=kinds)
            layers.append((owner, once_each(_with_ending(keys_of, behind))))
        return self._chosen(variable, layers, self.forms if behind else self._layers.possible_forms)

    def _chosen(
        self,
        variable: Variable,
        layers: Iterable[tuple[Owner, Callable[[str], Iterable[str]]]],
        forms_of: Callable[[Owner], Sequence[Form]] | None = None,
    ) -> Source | None:
        """What answers to a variable among layers, each with the keys of a name within it.

        `forms_of`: those that are looked for; None: all that there are.
        """
        sources, chosen = [], self._exact_first(variable)
        for owner, keys_of in layers:
            for form in (forms_of or self.forms)(owner):
                specs, rivals = self._layers.fill(form, keys_of, chosen)
                if len(rivals) > 1:
                    raise self._ambiguous(variable, rivals)
                if specs:
                    by, is_inferred = form.evidence, bool(form.evidence)
                    sources.append(Source(specs, owner, form, by, is_inferred))
        # Where a tensor has the layer's own name, what others could make of theirs is none.
        sources = [source for source in sources if not source.is_inferred] or sources
        return self.agreed(variable, sources) if sources else None

    def agreed(self, variable: Variable, sources: Sequence[Source]) -> Source:
        """The one that several sources are; raises SettingsError if their values may differ."""
        if len(sources) == 1:
            return sources[0]
        sources = narrowed(sources, variable, self.checkpoint)
        if differ(sources):
            raise self._ambiguous(variable, [source.specs[0].key for source in sources])
        return sources[0]

    def _exact_first(self, variable: Variable) -> Callable[[Sequence[str]], Sequence[str]]:
        """Of several keys, those that are not exactly another variable's name, if one is its own.

        `a.b.weight` is not the `a/b.weight` that is there too.
        """

        def chosen(keys: Sequence[str]) -> Sequence[str]:
            if len(keys) < 2 or not any(self._named_exactly.get(k) is variable for k in keys):
                return keys
            return [key for key in keys if self._named_exactly.get(key, variable) is variable]

        return chosen

    @functools.cached_property
    def _named_exactly(self) -> Mapping[str, Variable]:
        owned = [(owner, v) for v in self._variables for owner in v.owners]
        return {name: v for o, v in owned for name in (o.name, o.state_dict_name)}

    def _ambiguous(self, variable: Variable, keys: Sequence[str]) -> SettingsError:
        """The error for different keys, with where in the saved program each is, if that tells."""
        distinct = list(dict.fromkeys(keys))
        paths = [self.checkpoint.object_paths(key)[:1] for key in distinct]
        tells = all(paths) and len(set(paths)) == len(paths)
        called = [path[0] for path in paths] if tells else distinct
        found = " and ".join(
            f"{key!r} (in the saved model: {name!r})" if name != key else repr(key)
            for key, name in zip(distinct, called, strict=True)
        )
        first, *others = variable.names
        tied = first + (f" (tied with {', '.join(others)})" if others else "")
        scopes = self._scopes_apart(variable, distinct, called) if tells else ()
        for_all = " or ".join(f"{{'/': {scope!r}}}" for scope in scopes)
        return SettingsError(
            f"{tied} is found under different keys: {found}. Say which one is meant: "
            f"var_name_to_prev_var_name={{{variable.name!r}: {called[0]!r}}}"
            f"{for_all and f', or of all, by what leads there, {for_all}'}."
        )

    def _scopes_apart(
        self, variable: Variable, keys: Sequence[str], paths: Sequence[str]
    ) -> Sequence[str]:
        """What leads to each of several objects that have the same names, as a scope for a rule."""
        owner = variable.owners[0]
        scopes = [path.partition("/")[0] + "/" for path in paths]
        leaves = {name for form in self.forms(owner) for names in form.names for name in names}
        for scope, key in zip(scopes, keys, strict=True):
            path = (scope + owner.path.replace(".", "/")).rstrip("/")
            found = {k for leaf in leaves for k in self._spellings.in_layer(path, leaf, ANY_KIND)}
            if found != {key}:
                return ()
        return scopes

    def _named_as(self, variable: Variable) -> tuple[TensorSpec, ...]:
        """The tensors of a variable's own names; of those that are ambiguous, any."""
        try:
            found = self._find_by_name(variable)
        except SettingsError:  # its own problem, and said where it is planned
            return (TensorSpec("", (), None, ""),)
        return found.specs if found is not None else ()


def _with_ending(
    keys_of: Callable[[str], Iterable[str]], ending: str
) -> Callable[[str], Iterable[str]]:
    return (lambda name: keys_of(name + ending)) if ending else keys_of


def _around_leaf(name: str, leaf: str) -> tuple[str | None, str]:
    """The path before torch's leaf in a name, and what follows it; None if it has no such leaf."""
    parts, wanted = _PARTS.split(name), leaf.split(".")  # every other part is a separator
    size = 2 * len(wanted) - 1
    for at in range(len(parts) - size, -1, -2):
        if parts[at : at + size : 2] == wanted:
            return "".join(parts[:at])[:-1], "".join(parts[at + size :]).replace(".", "/")
    return None, ""


def _rests(path: Sequence[str], name: Sequence[str]) -> Iterable[str]:
    """What is left of a name within a layer if a path ends in the name's first folders."""
    for count in range(1, len(name)):
        ends = path[-count:]
        if len(ends) == count and all(map(_is_folder, name[:count], ends)):
            yield "/".join(name[count:])


def _is_folder(pattern: str, folder: str) -> bool:
    return "#" not in pattern and expression(pattern).fullmatch(folder) is not None


def _is_called_so(source: Source) -> bool:
    """Whether the tensors' own names end as the form's do: `original0` is no weight to norm."""
    keys = (f"/{bare_name(spec.key)}".replace(".", "/") for spec in source.specs)
    return all(
        any(key.endswith(f"/{name}".replace(".", "/")) for name in names)
        for key, names in zip(keys, source.form.names, strict=True)
    )


def _undecided(layouts: Sequence[str], *, alone: bool) -> str:
    either = " or ".join(repr(layout) for layout in layouts)
    what = "alone it" if alone else "they"
    return f"{what} may be laid out as by {either}; name the right one in var_name_to_layout"
