"""Where a variable comes from in one planning: by its names, or by a rule of the user's."""

from __future__ import annotations

import contextlib
import functools

from torch_warmstart.errors import MissingTensorError, SettingsError
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
from torch_warmstart.model import Variable
from torch_warmstart.names import BY_USER, Source
from torch_warmstart.planning.planning import Planning
from torch_warmstart.planning.renames import Renaming
from torch_warmstart.planning.selection import Filed

_BY_TF_NAME = "TensorFlow's name"


def find_source(planning: Planning, variable: Variable) -> tuple[Source | None, str]:
    """What a variable is made of, if anything, and how that was found."""
    if id(variable) not in planning.found:
        planning.found[id(variable)] = _find(planning, variable)
    return planning.found[id(variable)]


def _find(planning: Planning, variable: Variable) -> tuple[Source | None, str]:
    renamed = planning.renames.get(id(variable))
    if renamed is not None:
        return _find_renamed(planning, variable, renamed), BY_USER
    source = planning.finder.find(variable)
    if source is None or is_named_alike(source, variable):
        return source, ""
    by_name = _BY_TF_NAME if planning.checkpoint.family == "tensorflow" else ""
    return source, source.reason or by_name


def _find_renamed(planning: Planning, variable: Variable, renamed: Filed) -> Source | None:
    """What a rule of the user's makes of a variable; None if that may be missing, and is."""
    try:
        return follow_rule(planning, variable, renamed)
    except MissingTensorError:
        if renamed.entry.is_exact:
            raise
        owner = renamed.owner
        may_miss = planning.settings.on_missing == "keep" and id(variable) not in planning.vocabs
        if may_miss or is_uncounted_in_tf(owner.module, owner.leaf):
            return None
        raise


def follow_rule(planning: Planning, variable: Variable, renamed: Filed) -> Source:
    """What a rule makes of a variable, by the first of its names that is there."""
    renaming: Renaming = renamed.entry
    asked_by = renaming.rule.setting if renaming.is_exact else str(renaming.rule)
    find = functools.partial(planning.finder.find_renamed, variable, asked_by=asked_by)
    try:
        return find(renamed.owner, renaming.names)
    except MissingTensorError:
        for owner, names in renaming.others:
            with contextlib.suppress(MissingTensorError):
                return find(owner, names)
        raise


def is_there(planning: Planning, variable: Variable, filed: Filed) -> bool:
    """Whether what a rule asks for is in the checkpoint, once or more."""
    try:
        follow_rule(planning, variable, filed)
    except MissingTensorError:
        return False
    except SettingsError:  # there, and more than once
        pass
    return True


def source_of(planning: Planning, variable: Variable) -> Source | None:
    """What a variable is made of, with its problems left to where it is planned."""
    try:
        return find_source(planning, variable)[0]
    except (SettingsError, MissingTensorError):  # a problem of its own, if it is selected
        return None


def is_named_alike(source: Source, variable: Variable) -> bool:
    """Whether a variable is made of one tensor of its own name."""
    names = {name.replace("/", ".") for name in variable.names}
    return len(source.specs) == 1 and source.specs[0].key.replace("/", ".") in names
