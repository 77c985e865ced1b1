"""Which tensor of a checkpoint is a variable's value: from the model's names to its keys.

In this order: the user's own renaming; the same name; the name with slashes; the names TensorFlow
gives the leaf in a layer of that type; and for object-based checkpoints, each of these as a full
name in the object graph or as a path through it. Two different hits for one variable are an error,
never a choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch_warmstart.errors import MissingTensorError, SettingsError, did_you_mean, near_names
from torch_warmstart.formats.base import Checkpoint, TensorSpec
from torch_warmstart.formats.object_graph import ATTRIBUTE_SUFFIX
from torch_warmstart.tf_layers import tf_leaf_names
from torch_warmstart.variables import Owner, Variable

# What wrappers put before the names in a state_dict saved with them.
_TORCH_PREFIXES = ("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.")


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the checkpoint, and the owner of the variable under whose name it was found."""

    spec: TensorSpec
    owner: Owner


def find_source(variable: Variable, checkpoint: Checkpoint) -> Source | None:
    """The tensor a variable is warm-started from without the user's help, or None.

    Raises SettingsError if two different tensors answer to the variable's names.
    """
    hits: dict[str, Source] = {}
    for owner in variable.owners:
        for key in _automatic_keys(owner, checkpoint):
            hits.setdefault(key, Source(checkpoint.spec(key), owner))
    if not hits:
        return None
    distinct = {_identity(source.spec): source for source in reversed(hits.values())}
    if len(distinct) > 1:
        found = " and ".join(repr(key) for key in hits)
        raise SettingsError(
            f"{_called(variable)} is found under different keys: {found}. Say which one is meant: "
            f"var_name_to_prev_var_name={{{variable.name!r}: {next(iter(hits))!r}}}."
        )
    return next(iter(hits.values()))


def find_renamed(owner: Owner, name: str, checkpoint: Checkpoint) -> Source:
    """The tensor that the user named: a key, a full name or a path through the object graph.

    `:0` and `.` for `/` are forgiven. Raises MissingTensorError with near names, or SettingsError
    if the name is ambiguous.
    """
    for key in (name, name.removesuffix(":0"), name.replace(".", "/")):
        spec = checkpoint.get(key)
        if spec is not None:
            return Source(spec, owner)
        keys = checkpoint.keys_of(key)
        if len(keys) > 1:
            found = " and ".join(repr(key) for key in keys)
            raise SettingsError(
                f"{owner.name}: {name!r} is the name of several tensors; name one by its key: "
                f"{found}."
            )
        if keys:
            return Source(checkpoint.spec(keys[0]), owner)
    raise MissingTensorError(
        f"{owner.name}: var_name_to_prev_var_name asks for {name!r}, which {checkpoint.url} does "
        f"not have.{did_you_mean(name, _all_names(checkpoint))}"
    )


def nearest_keys(variable: Variable, checkpoint: Checkpoint) -> list[str]:
    """Keys of the checkpoint that look like a variable's name."""
    name = variable.name if checkpoint.family == "torch" else variable.name.replace(".", "/")
    return near_names(name, _all_names(checkpoint))


def _automatic_keys(owner: Owner, checkpoint: Checkpoint) -> Iterator[str]:
    for name in _candidates(owner, checkpoint):
        if name in checkpoint:
            yield name
        yield from checkpoint.keys_of(name)


def _candidates(owner: Owner, checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.family == "torch":
        for prefix in _TORCH_PREFIXES:
            yield prefix + owner.name
        yield owner.name.replace(".", "/")
        return
    leaves = (owner.leaf, *tf_leaf_names(owner.module, owner.leaf))
    for leaf in leaves:
        dotted = f"{owner.path}.{leaf}" if owner.path else leaf
        slashed = dotted.replace(".", "/")
        yield from dict.fromkeys((dotted, slashed))
        yield slashed + ":0"  # a Saver fed with tensor names writes them like this
        yield slashed + ATTRIBUTE_SUFFIX


def _identity(spec: TensorSpec) -> object:
    """Equal for keys that are the same bytes, as tied weights in a state_dict are."""
    return spec.key if spec.storage is None else spec.storage


def _called(variable: Variable) -> str:
    first, *others = variable.names
    return first + (f" (tied with {', '.join(others)})" if others else "")


def _all_names(checkpoint: Checkpoint) -> list[str]:
    return list(dict.fromkeys([*checkpoint, *checkpoint.full_names()]))
