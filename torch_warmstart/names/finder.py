"""Which tensors of a checkpoint are a variable's value: from the model's names to its keys.

In this order: the user's own renaming; the same name; the name with slashes; the names TensorFlow
gives the leaf in a layer of that type; and for object-based checkpoints, each of these as a full
name in the object graph or as a path through it. Two different hits for one variable are an error,
never a choice. What wrappers put into names is no part of them, and where a tensor lies in a file
(`layers/dense_1/vars/0`) is no name.

Only for variables that are found by none of these there is more, and what is found so is inferred:

    without its model   Keras's own name for a layer of a model within a model leaves that out
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
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import MissingTensorError, SettingsError, UnsupportedError
from torch_warmstart.formats import Checkpoint, TensorSpec, check_one_key
from torch_warmstart.layouts import ANY, IDENTITY, Form, Layout, expression, fits_either_way
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
from torch_warmstart.model import Owner, Shape, Variable, is_persistent
from torch_warmstart.names.conventions import Conventions, conventions_of, plain_name
from torch_warmstart.names.spellings import ANY_KIND, NUMBERED, OWN, SHORT, Kinds, Spellings
from torch_warmstart.values import frozen

_SETTING = "var_name_to_prev_var_name"
BY_USER = "renamed in settings"  # how a variable or a slot was found
WITHOUT_MODEL = "TensorFlow's name, without its model's"
_IN_SCOPE = "TensorFlow's name, in a scope"
_BY_NUMBER = "Keras's number in the layer"
_IN_WRAPPER = "TensorFlow's name, in a wrapper"
_PARTS = re.compile(r"([./])")


@frozen
class Source:
    """The tensors of the checkpoint that become a variable, and how.

    `owner` is the one of the variable's under whose name they were found.
    """

    specs: tuple[TensorSpec, ...]
    owner: Owner
    form: Form
    reason: str = ""  # how they were found, where that is not by the names themselves
    is_inferred: bool = False  # whether the names were taken for the variable's without being so
    scopes: frozenset[str] = frozenset()  # any of these was skipped; none: no scope was

    @property
    def shape(self) -> Shape | None:
        """The shape in torch; None if the layout does not take tensors like these."""
        shapes = _shapes_in_torch(self.form.layout, tuple(spec.shape for spec in self.specs))
        return shapes[self.form.part] if shapes and self.form.part < len(shapes) else None

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for sources of the same bytes, and each part of it for tensors of the same."""
        return tuple(_identity(spec) for spec in self.specs)


@functools.lru_cache(maxsize=1024)
def _shapes_in_torch(layout: Layout, shapes: tuple[Shape, ...]) -> tuple[Shape, ...] | None:
    """As the layout has it; most tensors of a large model are of few shapes."""
    return layout.shapes_in_torch(shapes)


class _NotThereError(MissingTensorError):
    """That a name is not in the checkpoint, with near ones, looked for only if it is read."""

    def __init__(self, problem: str, near: Callable[[], Sequence[str]]) -> None:
        super().__init__(problem)
        self._near = near

    def __str__(self) -> str:
        near = " or ".join(map(repr, self._near()))
        return super().__str__() + (f" Did you mean {near}?" if near else "")


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
        self._renamed = renamed
        self.conventions: Conventions = conventions_of(checkpoint)
        self._spellings = Spellings(checkpoint, self.conventions)
        self._found: dict[Variable, Source | None] = {}  # by the variables' own names
        self._known_forms: dict[tuple[int, str], tuple[Form, ...]] = {}  # by module's id and leaf
        # By the id of all forms, which are kept: those that there may be here.
        self._known_possible: dict[int, tuple[tuple[Form, ...], tuple[Form, ...]]] = {}

    def find(self, variable: Variable) -> Source | None:
        """What a variable is warm-started from without the user's help, or None.

        Raises SettingsError if different tensors answer to the variable's names.
        """
        found = self._find_by_name(variable)
        if found is not None or not self.conventions.has_scopes:
            return found
        if variable in self._inferred:
            return self._inferred[variable]
        return self._if_in_the_scope(self._infer(variable))

    @property
    def keys(self) -> frozenset[str]:
        """The checkpoint's; to look one up here costs a tenth of what it costs there."""
        return self._spellings.keys

    def without_a_name(self) -> str | None:
        """Where a tensor lies of which the checkpoint says no more than that, if there is one."""
        return self._spellings.without_a_name()

    def find_renamed(
        self, variable: Variable, owner: Owner, names: Sequence[str], asked_by: str = _SETTING
    ) -> Source:
        """The tensors that the user named: keys, full names or paths through the object graph.

        `:0` and `.` for `/` are forgiven. The leaf of a single name may be torch's, `old/weight`
        for `old/kernel`. Raises MissingTensorError with near names, or SettingsError if a name is
        ambiguous or the layer is not made of so many tensors.
        """
        if len(names) == 1 and not self._spellings.given(names[0]):
            translated = self._find_translated(variable, owner, names[0])
            if translated is not None:
                return translated
        specs = tuple(self.named(owner, name, asked_by) for name in names)
        forms = [form for form in self.forms(owner) if len(form.names) == len(specs)]
        if len(specs) > 1:  # by whose names something is refused, the user did not go
            forms = [form for form in forms if form.refusal is None]
        if not forms and len(specs) == 1:
            forms = [Form(((owner.leaf,),))]
        if not forms:
            counts = sorted({len(form.names) for form in self.forms(owner)})
            raise SettingsError(
                f"{owner.name} is not made of {len(specs)} tensors of the checkpoint, which "
                f"{asked_by} names, but of {' or '.join(map(str, counts))}."
            )
        sources = [Source(specs, owner, form) for form in forms]
        fitting = _fitting(sources, variable)
        layouts = list(dict.fromkeys(source.form.layout.name for source in fitting))
        if len(layouts) > 1:
            refusal = _undecided(layouts, alone=len(specs) == 1)
            return with_layout(fitting[0], Form(fitting[0].form.names, refusal=refusal))
        return self._presumed((fitting or sources)[0])

    def _presumed(self, source: Source) -> Source:
        """The same, said to be presumed where torch's layout is, by no name of torch's."""
        form, spec = source.form, source.specs[0]
        if self.conventions.has_own_layers or form.layout is not IDENTITY:
            return source
        if not fits_either_way(source.owner.module, spec.key, spec.shape):
            return source
        return with_layout(source, replace(form, is_presumed=True))

    def beside(self, source: Source, owner: Owner) -> Source | None:
        """Another tensor of the layer in the checkpoint that a source is in.

        None if it has no such tensor, or the source's names do not say where its layer is.
        """
        for path in self._spellings.layers_of(source.specs[0].key, source.form.names[0]):
            in_layer = functools.partial(self._spellings.in_layer, path, kinds=ANY_KIND)
            keys_of = _once_each(in_layer)
            for form in self.forms(owner):
                specs, _ = self._fill(form, keys_of)
                if specs:
                    return Source(specs, owner, form)
        return None

    def nearest(self, variable: Variable) -> list[str]:
        """What the checkpoint calls tensors that looks like a variable's name."""
        return self._spellings.near_names(self.conventions.spelt(variable.name))

    def forms(self, owner: Owner) -> tuple[Form, ...]:
        """The forms that a tensor of the model may have in the checkpoint."""
        return self._forms_of(owner.module, owner.leaf)

    def _possible_forms(self, owner: Owner) -> tuple[Form, ...]:
        """Those of them whose names any layer of the checkpoint has; mostly one."""
        forms = self.forms(owner)
        if id(forms) not in self._known_possible:
            may_have = self._spellings.may_have
            possible = (f for f in forms if all(any(map(may_have, names)) for names in f.names))
            self._known_possible[id(forms)] = forms, tuple(possible)
        return self._known_possible[id(forms)][1]

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

    def named(self, owner: Owner, name: str, asked_by: str = _SETTING) -> TensorSpec:
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
        return self._find_begun(variable, owner, path) or self._find_numbered(
            variable, at, ANY_KIND
        )

    def _find_begun(self, variable: Variable, owner: Owner, path: str) -> Source | None:
        """The variable where a path ends within its layer: at `multi_rnn_cell/` of a stack's."""

        def keys_of(name: str) -> Iterable[str]:
            rests = _rests(path.replace(".", "/").split("/"), name.split("/"))
            return (k for rest in rests for k in self._spellings.in_layer(path, rest, ANY_KIND))

        return self._chosen(variable, [(owner, _once_each(keys_of))])

    # -- by the model's name -----------------------------------------------------------------------

    def _find_by_name(self, variable: Variable) -> Source | None:
        """The variable where its own names lead to, or those without its models'.

        Raises as `_find_at`.
        """
        if variable not in self._found:
            paths = _paths(variable)
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
        other = self._find_numbered(variable, paths, kinds)
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
            layers.append((owner, _once_each(_with_ending(keys_of, behind))))
        return self._chosen(variable, layers, self.forms if behind else self._possible_forms)

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
                specs, rivals = self._fill(form, keys_of, chosen)
                if len(rivals) > 1:
                    raise self._ambiguous(variable, rivals)
                if specs:
                    sources.append(Source(specs, owner, form))
        if len(sources) < 2:
            return next(iter(sources), None)
        if _differ(sources):
            sources = _whole(sources)
        sources = _fitting(sources, variable) or sources
        if _differ(sources):
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
        return SettingsError(
            f"{tied} is found under different keys: {found}. Say which one is meant: "
            f"var_name_to_prev_var_name={{{variable.name!r}: {called[0]!r}}}."
        )

    # -- inferred ----------------------------------------------------------------------------------

    @functools.cached_property
    def _inferred(self) -> Mapping[Variable, Source | None]:
        """What the model's variables without tensors of their names are, all together."""
        found = {v: self._infer(v) for v in self._variables if self._named_as(v) == ()}
        return {variable: self._if_in_the_scope(source) for variable, source in found.items()}

    def _infer(self, variable: Variable) -> Source | None:
        """The variable by what is evidence, and no name; of scopes, each by itself."""
        return (
            self._find_in_a_scope(variable)
            or self._find_numbered(variable, _paths(variable), OWN)
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

    def _named_as(self, variable: Variable) -> tuple[TensorSpec, ...]:
        """The tensors of a variable's own names; of those that are ambiguous, any."""
        try:
            found = self._find_by_name(variable)
        except SettingsError:  # its own problem, and said where it is planned
            return (TensorSpec("", (), None, ""),)
        return found.specs if found is not None else ()

    def _find_in_a_scope(self, variable: Variable) -> Source | None:
        """The variable in one more scope than its name has, if only one tensor answers to that."""
        sources = []
        for owner in variable.owners:
            if not owner.path or owner.path.partition(".")[0].isdecimal():
                continue  # `0.weight` has no name of a layer that could agree
            scopes = _Scopes(functools.partial(self._spellings.in_a_scope, owner.path))
            for form in self.forms(owner):
                specs, rivals = self._fill(form, scopes.keys_of)
                if rivals:
                    return None
                skipped = scopes.of(specs)
                if specs and skipped and self._found_by_name.isdisjoint(s.key for s in specs):
                    sources.append(Source(specs, owner, form, _IN_SCOPE, True, skipped))
        sources = _whole(sources)
        sources = _fitting(sources, variable) or sources
        return sources[0] if sources and not _differ(sources) else None

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
            found.update(map(_identity, source.specs if source is not None else specs))
        return frozenset(found)

    def _find_numbered(
        self, variable: Variable, paths: Sequence[tuple[Owner, str]], kinds: Kinds
    ) -> Source | None:
        """The variable by its number in a layer of a Keras 3 file, if the layers are alike.

        Keras numbers a layer's variables as torch lists those of its own: kernel and bias; gamma,
        beta, moving mean and variance.
        """
        for owner, path in paths:
            forms = self._forms_of_layer(owner)
            folder = f"{path.replace('.', '/')}{NUMBERED}"
            found = [self._spellings.one(f"{folder}{n}", kinds) for n in range(len(forms) + 1)]
            keys = [key for key in found if key is not None]
            if forms and found[-1] is None and len(keys) == len(forms):
                specs = (self.spec(keys[list(forms).index(owner.leaf)]),)
                sources = [
                    Source(specs, owner, form, _BY_NUMBER, is_inferred=True)
                    for form in forms[owner.leaf]
                ]
                return (_fitting(sources, variable) or sources)[0]
        return None

    def _find_wrapped(self, variable: Variable) -> Source | None:
        """The variable in a layer that is all there is in the one of its module's name."""
        for owner in variable.owners:
            forms = self._forms_of_layer(owner)
            if not owner.path or not forms:
                continue
            for scopes in self._wrappers(owner.path):
                inside = {_identity(self.spec(key)) for key in scopes.keys_of(f"{ANY}/{ANY}")}
                has_own = any(scopes.keys_of(ANY))  # as WeightNormalization has
                if has_own or len(inside) != len(forms) or inside & self._found_otherwise:
                    continue
                in_wrapper = functools.partial(_in_wrapper, scopes.keys_of)
                filled = [(self._fill(form, in_wrapper)[0], form) for form in forms[owner.leaf]]
                sources = [
                    Source(specs, owner, form, _IN_WRAPPER, True, scopes.of(specs))
                    for specs, form in filled
                    if specs
                ]
                if sources and not _differ(sources):
                    return (_fitting(sources, variable) or sources)[0]
        return None

    def _wrappers(self, path: str) -> Iterable[_Scopes]:
        """The tensors below a path, and below the same in one more scope."""
        in_layer = functools.partial(self._spellings.in_layer, path)
        yield _Scopes(lambda name: (("", key) for key in in_layer(name)))
        yield _Scopes(functools.partial(self._spellings.in_a_scope, path))

    def _forms_of_layer(self, owner: Owner) -> dict[str, tuple[Form, ...]]:
        """The forms of all tensors of an owner's module, by leaf in torch's order.

        Nothing, if the module is no layer that TensorFlow has, or has as other tensors.
        """
        leaves = _leaves_that_tf_has(owner.module)
        forms = {leaf: self._forms_of(owner.module, leaf) for leaf in leaves}
        return forms if owner.leaf in forms and all(map(_is_a_layers_own, forms.values())) else {}

    def _forms_of(self, module: torch.nn.Module, leaf: str) -> tuple[Form, ...]:
        known = (id(module), leaf)
        if known not in self._known_forms:
            self._known_forms[known] = self.conventions.forms(module, leaf)
        return self._known_forms[known]

    def _fill(
        self,
        form: Form,
        keys_of: Callable[[str], Iterable[str]],
        chosen: Callable[[Sequence[str]], Sequence[str]] = lambda keys: keys,
    ) -> tuple[tuple[TensorSpec, ...], list[str]]:
        """Tensors for all the names of a form, or none; and the keys where several answer to one.

        Args:
            form: What is looked for.
            keys_of: The keys that a name within the layer stands for.
            chosen: Those of several keys that may be meant.
        """
        specs: list[TensorSpec] = []
        for names in form.names:
            hits: dict[object, TensorSpec] = {}
            for key in chosen([key for name in names for key in keys_of(name)]):
                spec = self.spec(key)
                hits.setdefault(_identity(spec), spec)
            if len(hits) != 1:
                return (), [spec.key for spec in hits.values()]
            specs += hits.values()
        return tuple(specs), []


def with_layout(source: Source, form: Form) -> Source:
    """The same tensors, changed in another way."""
    return replace(source, form=form)


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


def _paths(variable: Variable) -> list[tuple[Owner, str]]:
    """Where a variable's layers are, by their names, and by what the model's wrappers make of it.

    The latter is another only where there is a DataParallel: other wrappers are never looked at.
    """
    paths = [(owner, owner.path) for owner in variable.owners]
    for owner in variable.owners:
        if owner.state_dict_name == owner.name:
            continue
        raw = owner.state_dict_name.removesuffix(owner.leaf)
        if plain_name(raw) != plain_name(owner.name.removesuffix(owner.leaf)):
            paths.append((owner, raw.removesuffix(".")))
    return paths


def _is_in_a_model(variable: Variable) -> bool:
    """Whether its layer is not one of the model's own, but of a module within."""
    return all("." in owner.path for owner in variable.owners)


def _is_count(variable: Variable) -> bool:
    """Whether it counts steps: such a variable has no layer that could be in a scope."""
    return not variable.shape and not variable.tensor.is_floating_point()


def _once_each(keys_of: Callable[[str], Iterable[str]]) -> Callable[[str], Iterable[str]]:
    """The same, asked only once for each name: the forms of a layer share most of their names."""
    known: dict[str, tuple[str, ...]] = {}

    def once(name: str) -> tuple[str, ...]:
        if name not in known:
            known[name] = tuple(keys_of(name))
        return known[name]

    return once


def _leaves_that_tf_has(module: torch.nn.Module) -> list[str]:
    """A layer's own tensors in torch's order, which is Keras's."""
    tensors = {**module._parameters, **module._buffers}
    return [
        leaf
        for leaf, tensor in tensors.items()
        if tensor is not None
        and is_persistent(module, leaf)
        and not is_uncounted_in_tf(module, leaf)
    ]


def _is_a_layers_own(forms: Sequence[Form]) -> bool:
    """Whether a tensor is one of a kind of layer that TensorFlow has, and kept as one tensor."""
    return any(
        len(form.names) == 1 and len(form.names[0]) > 1 and form.refusal is None for form in forms
    )


def _differ(sources: Sequence[Source]) -> bool:
    return len({source.identity for source in sources}) > 1


def _fitting(sources: Sequence[Source], variable: Variable) -> list[Source]:
    """Those that have the variable's shape in torch."""
    return [s for s in sources if s.form.refusal is None and _fits(s, variable)]


def _fits(source: Source, variable: Variable) -> bool:
    try:
        return source.shape == variable.shape
    except UnsupportedError:  # whoever takes it nevertheless will hear why
        return False


def _whole(sources: Sequence[Source]) -> list[Source]:
    """Without those that are made of a part of what another is made of.

    A cell's kernel and bias are not what they seem if peepholes lie beside them.
    """
    keys = [{_identity(spec) for spec in source.specs} for source in sources]
    return [
        source
        for source, own in zip(sources, keys, strict=True)
        if not any(own < others for others in keys)
    ]


def _undecided(layouts: Sequence[str], *, alone: bool) -> str:
    either = " or ".join(repr(layout) for layout in layouts)
    what = "alone it" if alone else "they"
    return f"{what} may be laid out as by {either}; name the right one in var_name_to_layout"


def _identity(spec: TensorSpec) -> object:
    """Equal for keys that are the same bytes, as tied weights in a state_dict are."""
    return spec.key if spec.storage is None else spec.storage
