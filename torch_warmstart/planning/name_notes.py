"""What a plan says of names: what was inferred, what lies beside, and that nothing was taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch_warmstart.errors import Finding, MissingTensorError, SettingsError, plural
from torch_warmstart.formats import is_of_averages
from torch_warmstart.model import without_fronts
from torch_warmstart.names import BY_USER, Finder, bare_name
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.plan import NOT_SELECTED, PlanItem, taken_keys
from torch_warmstart.settings import SETTING


def notes_on_names(items: Sequence[PlanItem], located: Located) -> Iterator[Finding]:
    """What was inferred, what was not taken, and that nothing was."""
    model = [item for item in items if item.variable.slot is None]
    yield from _nothing_taken(model)
    inferred = [item for item in model if item.is_inferred]
    in_scope = [item for item in inferred if located.scope_of(item.variable)]
    if in_scope:
        yield _in_scope(in_scope, model, located)
    others: dict[str, list[PlanItem]] = {}
    for item in inferred:
        if item not in in_scope:
            others.setdefault(item.reason, []).append(item)
    yield from (_inferred(reason, found) for reason, found in others.items())
    yield from _averages(model, located)
    yield from _averages_in_entries(model, located.finder)


def _nothing_taken(items: Sequence[PlanItem]) -> Iterator[Finding]:
    chosen = [item for item in items if item.reason != NOT_SELECTED]
    if chosen and all(item.state == "kept" for item in chosen):
        text = (
            f"Nothing is taken from the checkpoint: {plural(len(chosen), 'variable')} (such as "
            f"{chosen[0].name!r}: {chosen[0].reason}) stay as they are."
        )
        yield Finding("everything-kept", "warning", chosen[0].name, text)


def _in_scope(inferred: Sequence[PlanItem], items: Sequence[PlanItem], located: Located) -> Finding:
    first = inferred[0]
    scope = f"{located.scope_of(first.variable)}/"
    text = (
        f"{plural(len(inferred), 'variable')} (such as {first.name!r}) are inferred: all of them "
        f"are in {scope!r} in the checkpoint, which their names do not say."
    )
    rule = _rule_for_scope(first, scope, items, located)
    sure = f" A rule makes it sure: {SETTING}={rule}." if rule else ""
    return Finding("scope-skipped", "note", first.name, text + sure)


def _rule_for_scope(
    first: PlanItem, scope: str, items: Sequence[PlanItem], located: Located
) -> str:
    """A rule that finds the same: for all names, or for the first of the layers."""
    by_names = [item for item in items if item.state != "kept" and item.reason != BY_USER]
    if by_names and all(_finds(located.finder, item, scope) for item in by_names):
        return f"{{'/': {scope!r}}}"
    path = first.owner.path if first.owner is not None else ""
    target = f"{scope}{path.replace('.', '/')}/"
    return f"{{{path + '.'!r}: {target!r}}}" if _finds(located.finder, first, scope) else ""


def _finds(finder: Finder, item: PlanItem, scope: str) -> bool:
    """Whether an item's tensors are found by its name in a scope."""
    assert item.owner is not None
    name = scope + item.owner.name.replace(".", "/")
    try:
        found = finder.find_renamed(item.variable, item.owner, (name,))
    except (MissingTensorError, SettingsError):
        return False
    return tuple(spec.key for spec in found.specs) == item.keys


def _inferred(reason: str, items: Sequence[PlanItem]) -> Finding:
    first = items[0]
    text = (
        f"{plural(len(items), 'variable')} (such as {first.name!r} from "
        f"{' + '.join(map(repr, first.keys))}) are inferred: {reason}. A rule of your own in "
        f"{SETTING} makes it sure."
    )
    return Finding("names-inferred", "note", first.name, text)


def _averages(items: Sequence[PlanItem], located: Located) -> Iterator[Finding]:
    """Averages of what is taken that lie beside it."""
    keys = taken_keys(items)
    separator = located.finder.conventions.separator
    fronts = _fronts_of_averages(located.unused, separator)
    ends = _of_averages(key.rpartition("/")[2] for key in located.unused if "/" in key)
    if not fronts and not ends:
        return
    averages = ((key, _average_of(key, located, fronts, ends)) for key in keys)
    found = [(key, *pair) for key, pair in averages if pair is not None]
    if not found:
        return
    first, average, rule = found[0]
    item = next(item for item in items if item.state != "kept" and first in item.keys)
    is_of_own_name = not item.is_inferred and item.reason != BY_USER
    if rule.startswith("[") and not is_of_own_name:
        end = average.rpartition("/")[2]
        rule = f"{{{item.name!r}: {average!r}, ...}}, or a pattern whose replacement ends in /{end}"
    text = (
        f"{plural(len(found), 'tensor')} that are taken have averages beside them (such as "
        f"{average!r}), which are not. To take those: {SETTING}={rule}."
    )
    yield Finding("averages-left-behind", "note", average, text)


def _plain(names: Iterable[str]) -> set[str]:
    return {each for name in names for each in without_fronts(name)}


def _averages_in_entries(items: Iterable[PlanItem], finder: Finder) -> Iterator[Finding]:
    """Averages of what is taken that are entries of their own in the file."""
    keys = taken_keys(items)
    bare = (each.replace("/", ".") for key in keys for each in finder.conventions.bare(key))
    plain, checkpoint = _plain(keys) | {*bare}, finder.checkpoint
    for averages in checkpoint.averages() if keys else ():
        if averages.names and plain.isdisjoint(_plain(averages.names)):
            continue
        text = (
            f"{checkpoint.url} has averages of the weights in {averages.path!r} "
            f"({plural(averages.count, 'tensor')}), which are not taken. "
        )
        text += (
            f"To take those: entry={averages.path!r}."
            if averages.names
            else "They have no names, only the order of the model's parameters: to take those, put "
            "them into the model where it was trained (ema.copy_to(model.parameters())), and save "
            "its state_dict()."
        )
        yield Finding("averages-left-behind", "note", averages.path, text)


def _of_averages(words: Iterable[str]) -> list[str]:
    return sorted(filter(is_of_averages, set(words)))


def _fronts_of_averages(keys: Iterable[str], separator: str) -> list[str]:
    """What stands before all names of averages, with what a wrapper puts there: `ema.module`."""
    fronts: set[str] = set()
    for key in keys:
        first, _, rest = key.partition(separator)
        if is_of_averages(first):
            fronts.update(key[: -len(plain) - 1] for plain in without_fronts(rest) if plain)
    return sorted(fronts)


def _average_of(
    key: str, located: Located, fronts: Sequence[str], ends: Sequence[str]
) -> tuple[str, str] | None:
    """The average of a tensor, if there is one, and the rule by which averages are taken.

    Args:
        key: Of the tensor.
        located: Where all are.
        fronts: What averages are called before all names.
        ends: What they are called behind a tensor's name.
    """
    for ending in ends:
        if (name := f"{bare_name(key)}/{ending}") in located.unused:
            return name, rf"[(r'(.+)', r'\1/{ending}')]"
    separator = located.finder.conventions.separator
    first, _, rest = key.partition(separator)
    for model in fronts:
        if first == model.partition(separator)[0]:
            continue
        for name in (f"{model}{separator}{key}", f"{model}{separator}{rest}"):
            if name in located.unused:
                return name, f"{{'/': {f'{model}{separator}'!r}}}"
        for called in (key, rest):  # a buffer of a module has no separator in its name
            name = f"{model}{separator}{called.replace(separator, '')}"
            if called.count(separator) and name in located.unused:
                return name, f"{{{key!r}: {name!r}, ...}}"
    return None
