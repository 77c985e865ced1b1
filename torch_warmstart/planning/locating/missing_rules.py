"""One finding where one cause keeps many variables from being found: a rule, a layer, a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch_warmstart.errors import (
    Finding,
    MissingTensorError,
    and_others,
    listed,
    meant_one_of,
    plural,
)
from torch_warmstart.formats import indexed_shard
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
from torch_warmstart.model import Variable
from torch_warmstart.names import Finder, Renamed
from torch_warmstart.planning.locating.locations import Located
from torch_warmstart.planning.wishes import Wish, Wishes
from torch_warmstart.settings import SETTING
from torch_warmstart.storage import base_name
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.names import CommonRule


def find_idle_rules(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """One problem for a rule that finds none of its many variables; and those variables."""
    by_rule: dict[object, list[Wish]] = {}
    for wish in wishes.values():
        if wish.is_selected and wish.rename is not None and not wish.rename.value.is_exact:
            by_rule.setdefault(wish.rename.value.rule, []).append(wish)
    return {
        _idle(asked[0], located.finder): frozenset(wish.variable for wish in asked)
        for asked in by_rule.values()
        if _none_is_there(asked, located)
    }


def _none_is_there(asked: Iterable[Wish], located: Located) -> bool:
    locations = (located.of_variable[wish.variable] for wish in asked)
    return all(isinstance(location.error, MissingTensorError) for location in locations)


def _idle(wish: Wish, finder: Finder) -> Finding:
    assert wish.rename is not None
    renaming = wish.rename.value
    name = renaming.names[0]
    return Finding(
        "rule-finds-nothing",
        "error",
        renaming.rule.setting,
        f"{renaming.rule}: {finder.checkpoint.url} has nothing of what it asks for, such as "
        f"{name!r} for {wish.rename.owner.name!r}.{meant_one_of(finder.near(name))}",
    )


def find_made_by_others(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """A problem for all that only the model's load hooks, or its library, could make; and for whom.

    With on_missing='keep' it is a warning.
    """
    by_maker: dict[str, list[Wish]] = {}
    for variable, location in located.of_variable.items():
        if location.made_by is not None and wishes[variable].is_selected:
            by_maker.setdefault(_made_by(location.made_by), []).append(wishes[variable])
    return {
        _made_elsewhere(how, made): frozenset(wish.variable for wish in made)
        for how, made in by_maker.items()
    }


def _made_by(names: Renamed) -> str:
    return (
        f"would be made by {names.by} from tensors of other names, which a plan cannot follow. Let "
        f"it do that: {names.instead}."
    )


def _made_elsewhere(how: str, made: Sequence[Wish]) -> Finding:
    first = made[0].variable.name
    is_kept = all(wish.may_be_missing for wish in made)
    text = f"{first}{and_others(len(made))} {how}"
    return Finding("made-by-hook", "warning" if is_kept else "error", first, text)


@frozen
class _Cause:
    """Why most of what is missing is, and of which variables that is the reason, if not of all."""

    code: str
    text: str  # behind the sentence that the first of them is missing
    explains: tuple[Variable, ...]


def find_missing_rule(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """One problem for most of what is not found, if it has one cause; and those variables.

    One rule would find it, the file does not say what its layers are called, or all of it is in
    another file or entry. With on_missing='keep' it is a warning, and nothing is a problem anyway.
    """
    missing = [wish for wish in wishes.values() if _is_asked_and_missing(wish, located)]
    if not missing:
        return {}
    variables = tuple(wish.variable for wish in missing)
    cause = next(filter(None, (find(variables, located) for find in _CAUSES)), None)
    if cause is None:
        return {}
    first, more = cause.explains[0].name, len(missing) - 1
    verb = "is" if more == 1 else "are"
    others = f", and neither {verb} {plural(more, 'other variable')}" if more else ""
    text = f"{first} is not in the checkpoint{others}. {cause.text}"
    is_kept = all(wish.may_be_missing for wish in missing)
    finding = Finding(cause.code, "warning" if is_kept else "error", first, text)
    return {finding: frozenset(cause.explains)}


def _by_one_rule(missing: Sequence[Variable], located: Located) -> _Cause | None:
    from torch_warmstart.names import common_rules

    rules = common_rules(located.finder, missing, located.used)
    if not rules:
        return None
    rule, *more = rules
    explained = tuple(dict.fromkeys(variable for found in rules for variable, _ in found.found))
    count, of = f"{len(rule.found):,}", f"{len(missing):,}"
    if any(other.source != rule.source for other in more):
        text = _for_scopes(rules, f"{len(explained):,} of the {of}")
    elif more:
        each = " or ".join(map(str, rules[:3]))
        text = (
            f"{len(rules):,} rules find {count} of the {of} each: say which is meant, "
            f"{SETTING}={each}."
        )
    else:
        first, key = rule.found[0]
        text = (
            f"One rule finds {count} of the {of}: {SETTING}={rule}. With it, {first.name} is "
            f"{key!r}."
        )
    return _Cause("rule-missing", text, explained)


def _before_adapters(missing: Sequence[Variable], located: Located) -> _Cause | None:
    from torch_warmstart.names import without_adapters

    rule = without_adapters(located.finder, missing, located.used)
    if not rule.found:
        return None
    first, key = rule.found[0]
    text = (
        f"{len(rule.found):,} of the {len(missing):,} are there by the names that their layers had "
        f"before PEFT put adapters around them, {first.name} as {key!r}: warm-start the model "
        f"before that, or say so: {SETTING}={rule}."
    )
    return _Cause("rule-missing", text, tuple(variable for variable, _ in rule.found))


def _for_scopes(rules: Iterable[CommonRule], found: str) -> str:
    """What to say of rules for several scopes."""
    of_scope: dict[str, list[str]] = {}
    for rule in rules:
        of_scope.setdefault(rule.source, []).append(str(rule))
    each = "; ".join(" or ".join(said[:3]) for said in of_scope.values())
    return (
        f"Rules for {len(of_scope):,} scopes find {found} together. Say {SETTING} with one for "
        f"each: {each}."
    )


def _without_layer_names(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    stored = located.finder.without_a_name(located.used)
    if stored is None:
        return None
    layer = _known_layer(stored, located)
    if layer:
        text = (
            f"{stored!r} lies in the layer {layer!r}, of which others are taken, and the file "
            "does not say which of the layer's tensors it is (one made with scale=False or "
            f"center=False has one less). Say so: {SETTING}={{{missing[0].name!r}: {stored!r}}}, "
            "if it is."
        )
    else:
        text = (
            f"The file does not say what its layers are called: {stored!r} is only where a tensor "
            "lies in it. suggest_names() proposes rules, by types, shapes and order."
        )
    return _Cause("layers-without-names", text, missing)


def _known_layer(key: str, located: Located) -> str:
    """What the file calls the layer of a tensor, if others of it are taken; or ""."""
    checkpoint = located.finder.checkpoint
    layer = checkpoint.layer_of(key) if key in checkpoint else None
    return "" if layer is None or located.used.isdisjoint(layer.keys) else layer.name


def _in_other_files(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    checkpoint = located.finder.checkpoint
    shard = indexed_shard(base_name(checkpoint.url))
    if shard is not None:
        index, count = shard
        text = (
            f"{checkpoint.url} is one of {count:,} files of one checkpoint: pass the folder that "
            f"they are in, or the index that lists them, {index}."
        )
    elif checkpoint.models_beside:
        text = (
            f"The folder has {listed(map(repr, checkpoint.models_beside), 'and')} besides "
            f"{checkpoint.url}, as Accelerate writes a file for each model: pass the file that is "
            "meant."
        )
    else:
        return None
    return _Cause("one-of-several-files", text, missing)


def _in_other_entries(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    checkpoint = located.finder.checkpoint
    entries = "" if located.used else checkpoint.entries_beside()
    if not entries:
        return None
    text = (
        f"Other entries of {checkpoint.url} have tensors, too: {entries}. If one of them is "
        "meant, write entry='...'."
    )
    return _Cause("entry-without-names", text, missing)


# In this order.
_CAUSES = (
    *(_before_adapters, _by_one_rule),
    *(_without_layer_names, _in_other_files, _in_other_entries),
)


def _is_asked_and_missing(wish: Wish, located: Located) -> bool:
    if not wish.is_selected or wish.rename is not None or wish.variable.slot is not None:
        return False
    return is_missing(wish.variable, located)


def is_missing(variable: Variable, located: Located) -> bool:
    """Whether nothing of the checkpoint is a variable of the model, and nobody has said why."""
    location = located.of_variable[variable]
    is_there = bool(location.source or location.error or location.memory_of)
    is_said = bool(location.explanation or location.made_by)
    owner = variable.owners[0]
    return not is_there and not is_said and not is_uncounted_in_tf(owner.module, owner.leaf)
