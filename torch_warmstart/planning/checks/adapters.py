"""Adapters whose tensors do not lie in the folder of the layer that they change.

`fc_lora_A` beside `fc.weight`, `lora.fc.A`, `attn.processor.to_q_lora.down.weight` beside
`attn.to_q.weight`: whoever wrote these called them after the layer. So words of names are compared,
not folders. Adapters that lead to no layer of the checkpoint are said, too, once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from torch_warmstart.errors import Finding, and_others, plural
from torch_warmstart.layouts.tensorflow import is_optimizer_state
from torch_warmstart.model import Variable
from torch_warmstart.names import bare_name
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.wishes import Wishes

_Words = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+")
# What the tensors of adapters are called: peft's, and LyCORIS's.
ADAPTERS = ("lora", "loha", "hada", "lokr", "locon", "dora", "vera", "ia3", "oft", "boft")
_MARK = re.compile("lora[ab]|" + "|".join(ADAPTERS))
_HAS_MARK = re.compile(rf"(?:^|[\W_])(?:{_MARK.pattern})(?:$|[\W_])", re.IGNORECASE)
# A module of its own between layers, or behind one: it changes what follows, and no weight.
_CALLED_ADAPTER = re.compile(r"(?:^|[\W_])adapters?(?:$|[\W_\d])", re.IGNORECASE)
# Where models keep adapters together: words that are no layer's.
_KEPT_IN = frozenset({"adapter", "adapters", "processor"})
_FRONTS = frozenset({"base", "model", "module", "unet", "te", "te1", "te2", "transformer"})
# The parts of an adapter, which its layer's name does not go on with.
_PART = re.compile(
    r"[ab]|w[12]|[ab][12]|down|up|mid|in|out|alpha|scale|scaling|magnitude|vector|weight|kernel"
    r"|embedding|default|l"
)
_MOST = 32  # words of a name: no layer's has more
_HINT = (
    "Merge the adapter where it was trained and save that; or take the layer without it, by naming "
    "its layout in var_name_to_layout."
)


def find_adapters(
    wishes: Wishes,
    decisions: Mapping[Variable, Decision],
    located: Located,
    told: Collection[Variable],
) -> tuple[frozenset[Variable], list[Finding]]:
    """The variables whose layers have adapters elsewhere, and what to say, once for all of them.

    Args:
        wishes: What is asked of each.
        decisions: What would happen to them.
        located: Where they come from.
        told: Variables of whose adapters it is said already.
    """
    taken = [v for v, decision in decisions.items() if decision.item.state != "kept"]
    unused = list(_unused(located))
    keys = [key for key in unused if _HAS_MARK.search(key)]
    called = [key for key in unused if _CALLED_ADAPTER.search(key) and key not in keys]
    if not (keys or called) or all(v.slot is not None for v in taken):
        return frozenset(), []
    others = set(located.finder.checkpoint).difference(keys)
    folders = {_words(_folder(key)) for key in others}
    by_layer = {key: _layer_of(key, folders) for key in keys}
    marks = {layer: key for key, layer in reversed(by_layer.items()) if layer}
    found: dict[Variable, str] = {}
    for variable in taken:
        for folder in _folders_of(variable, located):
            mark = marks.get(_words(folder))
            if mark is not None and not mark.startswith((f"{folder}.", f"{folder}/")):
                found.setdefault(variable, mark)
    asked = {v: m for v, m in found.items() if v not in told and wishes[v].layout is None}
    if asked:
        return frozenset(asked), [_beside(asked)]
    strange = [key for key, layer in by_layer.items() if not layer] + called
    return frozenset(), [_left(strange)] if strange and not told else []


def _unused(located: Located) -> Iterator[str]:
    """The keys that no variable of the model is made of, and that are no optimizer's."""
    sources = (location.source for location in located.of_variable.values())
    used = {spec.key for source in sources if source is not None for spec in source.specs}
    for key in located.finder.checkpoint:
        if key not in used and not is_optimizer_state(bare_name(key)):
            yield key


def _folders_of(variable: Variable, located: Located) -> Iterator[str]:
    """Where the layer of a weight keeps its tensors; a bias is not what an adapter changes."""
    source = located.source(variable) if variable.slot is None else None
    if source is not None and source.owner.leaf != "bias":
        yield from dict.fromkeys(_folder(spec.key) for spec in source.specs)


def _folder(key: str) -> str:
    name = bare_name(key)
    return name[: max(name.rfind("."), name.rfind("/"), 0)]


def _words(name: str) -> _Words:
    return tuple(_WORD.findall(name.lower()))


def _layer_of(key: str, folders: Collection[_Words]) -> _Words:
    """The words of the longest name of a layer that an adapter's tensor is called after, or ().

    The layer's name begins it, but for what all names begin with; and behind it is the mark of the
    adapter, or nothing but what an adapter consists of.
    """
    words = _words(bare_name(key))[:_MOST]
    marks = [at for at, word in enumerate(words) if _MARK.fullmatch(word)]
    plain = [(at, w) for at, w in enumerate(words) if at not in marks and w not in _KEPT_IN]
    for start in range(len(plain)):
        for stop in range(len(plain), start, -1):
            name = tuple(word for _, word in plain[start:stop])
            is_marked = plain[stop - 1][0] + 1 in marks
            if name in folders and (is_marked or all(_PART.fullmatch(w) for _, w in plain[stop:])):
                return name
        if plain[start][1] not in _FRONTS:
            return ()
    return ()


def _beside(found: Mapping[Variable, str]) -> Finding:
    first, mark = next(iter(found.items()))
    text = (
        f"{first.name}{and_others(len(found))} has an adapter in the checkpoint, which is added to "
        f"it or multiplied with it: {mark!r} is called after its layer."
    )
    return Finding("weight-adapted", "error", first.name, text, _HINT)


def _left(keys: Collection[str]) -> Finding:
    first = next(iter(keys))
    more = f" and {plural(len(keys) - 1, 'other tensor')}" if len(keys) > 1 else ""
    text = (
        f"The checkpoint has {first!r}{more}, which by their names belong to adapters, and nobody "
        "can tell by them of which layers. What is taken is taken without them."
    )
    return Finding("adapter-left-behind", "warning", first, text, _HINT)
