"""The tensors of a layer in a checkpoint: which there may be, and which there are at a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.layouts import Form
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
from torch_warmstart.model import Owner, Variable, is_persistent
from torch_warmstart.names.conventions import Conventions, conventions_of, plain_name
from torch_warmstart.names.source import Source, fitting, identity_of
from torch_warmstart.names.spellings import NUMBERED, Kinds, Spellings

_BY_NUMBER = "Keras's number in the layer"


class LayerTensors:
    """Finds what layers are made of in one checkpoint, whoever asks for it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Those of a checkpoint."""
        self.checkpoint = checkpoint
        self.conventions: Conventions = conventions_of(checkpoint)
        self.spellings: Spellings = Spellings(checkpoint, self.conventions)
        self._known_forms: dict[tuple[int, str], tuple[Form, ...]] = {}  # by module's id and leaf
        # By the id of all forms, which are kept: those that there may be here.
        self._known_possible: dict[int, tuple[tuple[Form, ...], tuple[Form, ...]]] = {}

    def forms(self, owner: Owner) -> tuple[Form, ...]:
        """The forms that a tensor of the model may have in the checkpoint."""
        return self._forms_of(owner.module, owner.leaf)

    def possible_forms(self, owner: Owner) -> tuple[Form, ...]:
        """Those of them whose names any layer of the checkpoint has; mostly one."""
        forms = self.forms(owner)
        if id(forms) not in self._known_possible:
            may_have = self.spellings.may_have
            possible = (f for f in forms if all(any(map(may_have, names)) for names in f.names))
            self._known_possible[id(forms)] = forms, tuple(possible)
        return self._known_possible[id(forms)][1]

    def forms_of_layer(self, owner: Owner) -> dict[str, tuple[Form, ...]]:
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

    def fill(
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
                spec = self.spellings.spec(key)
                hits.setdefault(identity_of(spec), spec)
            if len(hits) != 1:
                return (), [spec.key for spec in hits.values()]
            specs += hits.values()
        return tuple(specs), []

    def find_numbered(
        self, variable: Variable, paths: Sequence[tuple[Owner, str]], kinds: Kinds
    ) -> Source | None:
        """The variable by its number in a layer of a Keras 3 file, if the layers are alike.

        Keras numbers a layer's variables as torch lists those of its own: kernel and bias; gamma,
        beta, moving mean and variance.
        """
        for owner, path in paths:
            forms = self.forms_of_layer(owner)
            folder = f"{path.replace('.', '/')}{NUMBERED}"
            found = [self.spellings.one(f"{folder}{n}", kinds) for n in range(len(forms) + 1)]
            keys = [key for key in found if key is not None]
            if forms and found[-1] is None and len(keys) == len(forms):
                specs = (self.spellings.spec(keys[list(forms).index(owner.leaf)]),)
                sources = [
                    Source(specs, owner, form, _BY_NUMBER, is_inferred=True)
                    for form in forms[owner.leaf]
                ]
                return (fitting(sources, variable) or sources)[0]
        return None


def once_each(keys_of: Callable[[str], Iterable[str]]) -> Callable[[str], Iterable[str]]:
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


def paths_of(variable: Variable) -> list[tuple[Owner, str]]:
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
