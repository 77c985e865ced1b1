"""What lies beside the tensors that are taken: of a layer, every tensor counts.

A kernel is not what it seems if a scale, an adapter, a mask or one more cell lies beside it. So of
each layer from which something is taken all tensors are looked at: one that a variable of the model
is made of is used, whether it is selected or not; of a few it is known that they have no effect,
which is said; any other is a problem.

Which tensors are a layer's is said by the file where it has layers, and else by names: what lies
in the same folder, and of layers that keep theirs in folders within, such as cells, in those.
"""

from __future__ import annotations

import bisect
import fnmatch
import functools
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence

from torch import nn

from torch_warmstart.errors import Finding, listed
from torch_warmstart.formats import Checkpoint, is_extra_state
from torch_warmstart.layouts import read_leaf, torch_layer_of
from torch_warmstart.layouts.tensorflow import BATCHES, STATISTICS
from torch_warmstart.model import Variable
from torch_warmstart.names import Source, bare_name, other_names
from torch_warmstart.planning.locating import Located
from torch_warmstart.values import frozen


@frozen
class Neighbour:
    """What is known of a tensor by its name in a layer, beside those that are taken.

    `names` may have `*` for any run of characters. Of several that fit the first counts.
    """

    names: tuple[str, ...]
    what: str  # it is or does, to go on with "which ..."
    has_effect: bool = True  # on what the layer computes


NEIGHBOURS: tuple[Neighbour, ...] = (
    Neighbour(
        ("vector_u",), "training alone uses: the kernel is kept normalised", has_effect=False
    ),
    Neighbour(("seed_generator_state",), "training alone uses", has_effect=False),
    Neighbour(
        ("moving_stddev", "renorm_mean", "renorm_stddev"),
        "training alone uses, for batch renormalisation",
        has_effect=False,
    ),
    Neighbour((BATCHES,), "counts batches", has_effect=False),
    Neighbour(
        (*STATISTICS.values(), *STATISTICS),
        "the layer normalises with (track_running_stats=True)",
    ),
    Neighbour(("*lora_*",), "belongs to an adapter that is added to the weight"),
    Neighbour(("*_mask",), "masks the weight"),
    Neighbour(("*scale*",), "scales the weight"),
)

_HINT = (
    "A tensor beside those that are taken: merge it into them before the warm start, name its key "
    "in var_name_to_prev_var_name where a variable is made of it, or take the layer without it by "
    "naming the layouts of its variables in var_name_to_layout, or with on_mismatch='keep'."
)

_USUAL = ("weight", "bias")  # what tensors of layers are called, whatever else a layer has


def find_beside(
    taken: Iterable[Variable], located: Located, lost: Iterable[Source]
) -> list[Beside]:
    """The tensors beside those of the variables that are taken, by module.

    Args:
        taken: Variables that are taken, apart from those whose layout is the user's own word.
        located: Where the model's variables come from, selected or not, which is what is used.
        lost: What is there for parameters that modules are made without: that is said elsewhere.
    """
    if not located.unused:
        return []
    by_module: dict[nn.Module, list[tuple[Variable, Source]]] = {}
    for variable in taken:
        source = located.source(variable)
        if source is not None and torch_layer_of(source.owner.module) is not None:
            by_module.setdefault(source.owner.module, []).append((variable, source))
    sources = [*(location.source for location in located.of_variable.values()), *lost]
    used = {each for source in sources if source is not None for each in _identities(source)}
    layers = _Layers(located.finder.checkpoint, is_torch=not located.finder.conventions.has_scopes)
    found = []
    for module, variables in by_module.items():
        keys = layers.unused(module, [source for _, source in variables], used)
        own = _own_tensors(module, variables, located, used) if keys else set()
        others = tuple((key, known) for key, known in keys if key not in own)
        if others:
            found.append(Beside(variables[0][0], variables[0][1].specs[0].key, others))
    return found


def _own_tensors(
    module: nn.Module,
    variables: Iterable[tuple[Variable, Source]],
    located: Located,
    used: set[Hashable],
) -> set[str]:
    """The keys of what the layer has for the module's own variables: they are not taken from it.

    A rule takes them from elsewhere, or they are not selected. What torch saved for a parameter
    that the module is made without is among the report's unexpected keys, as torch has it. What
    would be made of several, of which one is taken by itself (`weight_orig`, without its mask), is
    no excuse for the others.
    """
    owners = [o for v in located.in_module(module) for o in v.owners if o.module is module]
    beside = [located.finder.beside(source, o) for _, source in variables for o in owners]
    keys = [{spec.key for spec in source.specs} for source in beside if source is not None]
    found = {key for together in keys if together.isdisjoint(used) for key in together}
    if not located.finder.conventions.has_own_layers:
        absent = [leaf for leaf, tensor in module._parameters.items() if tensor is None]
        for _, source in variables:
            path = source.specs[0].key.removesuffix(source.owner.leaf)
            found |= {path + leaf for leaf in absent}
    return found


@frozen
class Beside:
    """Tensors of a layer that no variable is made of, beside one that is taken."""

    variable: Variable
    key: str  # of what is taken
    others: tuple[tuple[str, Neighbour | None], ...]  # keys, and what is known of each

    def findings(self, *, may_be_lost: bool) -> Iterator[Finding]:
        """What there is to say: notes on what has no effect, and a problem, or a warning."""
        by_kind: dict[Neighbour | None, list[str]] = {}
        for key, known in self.others:
            by_kind.setdefault(known, []).append(key)
        for known, keys in by_kind.items():
            harmless = known is not None and not known.has_effect
            there = listed(map(repr, keys), "and")
            text = f"{self.variable.name}: beside {self.key!r} the checkpoint has {there}"
            text += f", which {known.what}" if known is not None else ""
            if harmless:
                yield Finding("unused-beside", "note", self.variable.name, f"{text}.")
            elif may_be_lost:
                lost = f"{text}: it is lost."
                yield Finding("lost-beside", "warning", self.variable.name, lost)
            else:
                lost = f"{text}: no variable is made of it, and what it does would be lost."
                yield Finding("lost-beside", "error", self.variable.name, lost, _HINT)


def _identities(source: Source) -> Iterator[Hashable]:
    for spec in (*source.specs, *source.copies):
        yield spec.key
        if spec.storage is not None:
            yield spec.storage


# -- which tensors are a layer's -------------------------------------------------------------------


class _Layers:
    """The layers of a checkpoint: as its file has them, or as its names do."""

    def __init__(self, checkpoint: Checkpoint, *, is_torch: bool) -> None:
        self._checkpoint, self._is_torch = checkpoint, is_torch

    def unused(
        self, module: nn.Module, sources: Sequence[Source], used: set[Hashable]
    ) -> list[tuple[str, Neighbour | None]]:
        """The keys in the layers that a module's sources are in which nobody uses."""
        from torch_warmstart.layouts.tensorflow import is_optimizer_state

        keys = dict.fromkeys(key for s in sources for key in self._beside(module, s))
        return [
            (key, self._known(key))
            for key in keys
            if used.isdisjoint(self._identities(key))
            and not is_optimizer_state(bare_name(key))
            and not is_extra_state(key)  # which is a note for the whole plan
        ]

    def _identities(self, key: str) -> set[Hashable]:
        storage = self._checkpoint.spec(key).storage
        return {key, *self._checkpoint.keys_of(key)} | ({storage} if storage is not None else set())

    def _known(self, key: str) -> Neighbour | None:
        leaves = {_slashed(name).rpartition("/")[2] for name in self._names_of(key)}
        for neighbour in NEIGHBOURS:
            if any(fnmatch.fnmatchcase(leaf, name) for leaf in leaves for name in neighbour.names):
                return neighbour
        return None

    def _names_of(self, key: str) -> list[str]:
        return [bare_name(key), *self._other_names.get(key, ())]

    def _beside(self, module: nn.Module, source: Source) -> Iterator[str]:
        for spec, names in zip(source.specs, source.form.names, strict=False):
            layer = self._checkpoint.layer_of(spec.key)
            if layer is not None:
                yield from self._in_layer(module, source, spec.key, names)
                yield from self._made_later(layer.name)
            else:
                yield from self._by_name(module, source, spec.key, names)

    def _in_layer(
        self, module: nn.Module, source: Source, key: str, names: Sequence[str]
    ) -> Iterator[str]:
        """What is in the file's layer: all of it, if that is the module's."""
        from torch_warmstart.planning.locating import layer_of_module

        layer = self._checkpoint.layer_of(key)
        assert layer is not None
        keys = layer_of_module(layer, module).keys
        if "/" not in bare_name(key):  # variables that a program saves one by one
            yield from self._at_the_root(module, keys)
        elif self._is_all_of_it(source, key, names):
            yield from (each for each in keys if self._known(each) is not None)
        else:
            yield from keys

    def _is_all_of_it(self, source: Source, key: str, names: Sequence[str]) -> bool:
        """Whether a tensor is called as the module: the file's layer is what that lies in.

        So it is of tables that a program keeps as attributes, side by side.
        """
        path = f"/{_slashed(source.owner.path)}"
        own = (f"/{_slashed(name)}" for name in self._names_of(key))
        return "" in names and path != "/" and any(name.endswith(path) for name in own)

    def _by_name(
        self, module: nn.Module, source: Source, key: str, names: Sequence[str]
    ) -> Iterator[str]:
        for name in self._names_of(key):
            found = self._folder(module, source.owner.path, _slashed(name), names)
            if found is None:
                continue
            folder, is_deep = found
            if folder:
                yield from self._within(f"{folder}/", is_deep=is_deep)
                yield from self._made_later(folder)
            else:
                yield from self._at_the_root(module, self._within("", is_deep=is_deep))

    def _at_the_root(self, module: nn.Module, keys: Iterable[str]) -> Iterator[str]:
        """What is the layer's where it is all that was saved; counts and the like lie there, too.

        Its tensors are called as the module's own are, but for what follows the first word.
        """
        own = {_first_word(leaf) for leaf in (*module._parameters, *module._buffers, *_USUAL)}
        for key in keys:
            if self._known(key) is not None or _first_word(key) in own:
                yield key

    def _made_later(self, folder: str) -> Iterator[str]:
        """What a layer has got once it was built, such as an adapter.

        Keras calls that by the layer's own name alone, `d/lora_kernel_a` beside `model/d/kernel`.
        """
        while folder := folder.partition("/")[2]:
            within = self._within(f"{folder}/", is_deep=False)
            yield from (key for key in within if self._known(key) is not None)

    def _folder(
        self, module: nn.Module, path: str, name: str, names: Sequence[str]
    ) -> tuple[str, bool] | None:
        """Where the layer of a name keeps its tensors; and whether in folders within, too.

        None: that is not known. "" is the root.
        """
        starts = [at for at in range(len(name)) if at == 0 or name[at - 1] == "/"]
        leaves = [read_leaf(leaf).expression for leaf in names if leaf]
        fitting = [at for at in starts if any(leaf.fullmatch(name, at) for leaf in leaves)]
        if not fitting:
            return None
        own = [at for at in fitting if f"/{name[:at]}".endswith(f"/{_slashed(path)}/")]
        at = (own or fitting)[0]
        first, _, rest = name[at:].partition("/")
        if rest:
            return name[:at] + first, True
        is_leaf = all(child is None for child in module._modules.values())
        return name[:at].rstrip("/"), self._is_torch and is_leaf

    def _within(self, folder: str, *, is_deep: bool) -> Iterator[str]:
        start = bisect.bisect_left(self._sorted, (folder, ""))
        for at in range(start, len(self._sorted)):  # a slice would copy all that is behind
            name, key = self._sorted[at]
            if not name.startswith(folder):
                return
            if is_deep or "/" not in name[len(folder) :]:
                yield key

    @functools.cached_property
    def _sorted(self) -> list[tuple[str, str]]:
        """All names with slashes, and their keys."""
        found = [(_slashed(bare_name(key)), key) for key in self._checkpoint]
        others = self._checkpoint.full_names().items()
        return sorted([*found, *((_slashed(name), keys[0]) for name, keys in others)])

    @functools.cached_property
    def _other_names(self) -> dict[str, list[str]]:
        return other_names(self._checkpoint)


def _first_word(name: str) -> str:
    """`weight` of `weight_ih_l0` and `weight.scale`."""
    return re.split("[_./]", name, maxsplit=1)[0]


def _slashed(name: str) -> str:
    return name.replace(".", "/")
