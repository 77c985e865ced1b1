"""Which tensors of a TensorFlow checkpoint are slots, and of which variables.

One walk over all keys, when the first slot is asked for. The names of slots, where `V` is a
variable's key and `S` the variable scope in which `minimize()` ran:

V/Adam, S/V/Adam                tf.compat.v1.train
V/<tail of V/part_0>/Adam       the same, of a partitioned variable: slot_creator.py cuts a name
                                where V/part_0 would end if S were not in front of it, so that the
                                tail is as long as S: V/t_0/Adam, V/part_0/Adam, V/s/part_0/Adam
V/adam_m                        BERT
V_slot_vr                       Mesh TensorFlow
P/Adam/V/m, P/Adam/m/V          Keras, before 2.11 and after, where names are keys
P/adam/V_momentum               Keras 3 in HDF5, with _ for each slash of V

In an object-based checkpoint the graph tells.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch_warmstart.formats import (
    ATTRIBUTE_SUFFIX,
    AVERAGE,
    Checkpoint,
    GraphOptimizer,
    class_of,
)
from torch_warmstart.layouts.tensorflow import (
    ALL_VARIABLES,
    BERT_WORDS,
    COUNTS,
    GLOBAL_STEP,
    GRADIENT_SUMS,
    KERAS_FOLDERS,
    KERAS_WORDS,
    MESH_SLOT,
    POWER,
    TF1_OPTIMIZERS,
    TF1_SLOT,
    kind_of_name,
    kind_of_words,
    quantity,
    split_ending,
)
from torch_warmstart.slots.tensorflow.rules import BERT, KERAS, TF1
from torch_warmstart.values import frozen

_PART = re.compile(r"/part_\d+$")
_MANGLED = re.compile(r".*/.*?(\d+)")
_LEGACY_RMSPROP = "rms"  # its slot; since Keras 2.11 it is called velocity
_PRODUCTS = ("momentum_cache", "_u_product")
_KERAS_H5 = "optimizer_weights/"
# Lists of a Keras optimizer: the model's own variables, their averages, sums of gradients.
_NO_SLOTS = frozenset(("_trainable_variables", "_model_variables_moving_average", GRADIENT_SUMS))


@frozen
class Kept:
    """What one optimizer kept for one variable, and for all."""

    kind: str
    writer: str
    slots: Mapping[str, str]  # quantity: key
    name: str  # what the optimizer is called
    count: str | None = None  # key of its count of steps
    powers: tuple[tuple[str, int], ...] = ()  # keys of powers of beta 1 or 2
    product: str | None = None  # key of Nadam's product of momentums
    is_legacy: bool = False  # one of Keras's before 2.11, of a kind that has changed since

    @property
    def is_named_otherwise(self) -> bool:
        """Whether the kind follows from what is kept, not from the name."""
        return kind_of_name(self.name) is None


@dataclass(slots=True)
class _Walk:
    """What a walk over the keys has found so far, by head of the key."""

    tf1: dict[tuple[str, str], dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    bert: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    mesh: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    keras: dict[tuple[str, str], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    powers: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))


class SlotIndex:
    """The slots of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def of(self, key: str) -> Sequence[Kept]:
        """What optimizers kept for the variable of a key."""
        return self._by_variable.get(key, ())

    @property
    def has_tied(self) -> bool:
        """Whether there are slots of variables that are known."""
        return bool(self._by_slot)

    def meaning(self, key: str) -> tuple[Kept, str] | None:
        """The optimizer and the quantity that a tensor is a slot of."""
        return self._by_slot.get(key)

    @functools.cached_property
    def untied(self) -> Sequence[str]:
        """Keys of what may be an optimizer's slots, of variables that are not known."""
        return [
            key
            for name, key in self._keys.items()
            if key not in self._by_slot
            and key not in self._no_slots
            and self._checkpoint.spec(key).shape
            and (_is_in_an_optimizer(name) or self._is_kept_with_a_variable(name))
        ]

    @functools.cached_property
    def _no_slots(self) -> set[str]:
        """The keys of what an optimizer keeps for variables besides its slots."""
        optimizers = self._checkpoint.graph_optimizers()
        listed = [words for optimizer in optimizers for words in optimizer.slots.values()]
        return {key for words in listed for word, key in words.items() if word in _NO_SLOTS}

    def named_for(self, key: str, quantities: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """The untied keys whose names say that they are a variable's: kept with it, one only.

        Not those whose names say that they are something else than these quantities. What has a
        number for a name is nobody's as far as that tells.
        """
        head = key.removesuffix(":0") + "/"
        found = {each.removesuffix(":0"): each for each in self.untied}
        words = {name.removeprefix(head): name for name in found if name.startswith(head)}
        wanted = {*quantities}
        return [
            found[name]
            for word, name in words.items()
            if "/" not in word and (not _means(word, kinds) or _means(word, kinds) & wanted)
        ]

    def _is_kept_with_a_variable(self, name: str) -> bool:
        head, _, last = name.rpartition("/")
        if head not in self._keys or last == AVERAGE:
            return False
        specs = [self._checkpoint.spec(self._keys[each]) for each in (name, head)]
        return specs[0].shape == specs[1].shape

    @functools.cached_property
    def global_step(self) -> str | None:
        """The key of the only global step."""
        names = {name.removesuffix(ATTRIBUTE_SUFFIX): key for name, key in self._keys.items()}
        if GLOBAL_STEP in names:
            return names[GLOBAL_STEP]
        found = [key for name, key in names.items() if name.endswith("/" + GLOBAL_STEP)]
        return found[0] if len(found) == 1 else None

    @functools.cached_property
    def powers(self) -> Mapping[str, int]:
        """The keys of all powers of betas: 1 or 2."""
        return {
            key: int(match[2])
            for name, key in self._keys.items()
            if (match := POWER.fullmatch(name))
        }

    @functools.cached_property
    def _keys(self) -> Mapping[str, str]:
        """Key by name; a Saver fed with tensor names writes `:0` behind them."""
        return {key.removesuffix(":0"): key for key in self._checkpoint}

    @functools.cached_property
    def _by_slot(self) -> Mapping[str, tuple[Kept, str]]:
        return {
            key: (kept, name)
            for listed in self._by_variable.values()
            for kept in listed
            for name, key in kept.slots.items()
        }

    @functools.cached_property
    def _by_variable(self) -> Mapping[str, Sequence[Kept]]:
        found: dict[str, list[Kept]] = defaultdict(list)
        optimizers = self._checkpoint.graph_optimizers()
        for variable, kept in (
            *(pair for optimizer in optimizers for pair in _of_graph(optimizer)),
            *self._of_names(),
        ):
            found[variable].append(kept)
        return dict(found)

    # -- by name -----------------------------------------------------------------------------------

    def _of_names(self) -> Iterator[tuple[str, Kept]]:
        walk = _Walk()
        for name, key in self._keys.items():
            self._file(walk, name, key)
        known = set()
        by_name = (
            *(self._tf1(walk), self._bert(walk), self._mesh(walk)),
            *(self._keras(walk), self._keras3()),
        )
        for variable, kept in itertools.chain.from_iterable(by_name):
            known.add(variable)
            yield self._keys[variable], kept
        for variable, kept in self._custom(walk):
            if variable not in known:
                yield self._keys[variable], kept

    def _file(self, walk: _Walk, name: str, key: str) -> None:
        head, _, last = name.rpartition("/")
        if match := POWER.fullmatch(name):
            walk.powers[match[1] or ""].append((key, int(match[2])))
        elif head and (match := TF1_SLOT.fullmatch(last)):
            walk.tf1[head, match[1]][int(match[2] or 0)] = key
        elif head and last in BERT_WORDS:
            walk.bert[head][BERT_WORDS[last]] = key
        elif (match := MESH_SLOT.fullmatch(name)) and match[1] in self._keys:
            walk.mesh[match[1]][match[2]] = key
        elif head and not KERAS_WORDS.isdisjoint(name.split("/")):
            self._file_keras(walk, name, key)
        elif head in self._keys:
            walk.others[head].append(last)

    def _file_keras(self, walk: _Walk, name: str, key: str) -> None:
        head, _, last = name.rpartition("/")
        owner = self._owner(head) if last in KERAS_WORDS else None
        if owner and owner != head:
            walk.keras[owner, head.removesuffix(f"/{owner}")][last] = key
            return
        owner = self._owner(head.partition("/")[2] + "/" + last)
        before, _, word = name.removesuffix(f"/{owner}").rpartition("/")
        if owner and word in KERAS_WORDS:
            walk.keras[owner, before][word] = key

    def _tf1(self, walk: _Walk) -> Iterator[tuple[str, Kept]]:
        for (head, name), keys in walk.tf1.items():
            owner, scope = self._owner_of_slot(head)
            if owner is None:
                continue
            kind, by_count = TF1_OPTIMIZERS[name]
            powers = _powers_of(walk, scope) if kind in ("Adam", "Adamax") else ()
            in_order = [keys[number] for number in sorted(keys)]
            for quantities, group in _instances(in_order, by_count):
                slots = dict(zip(quantities, group, strict=False))
                yield owner, Kept(kind, TF1, slots, name, powers=powers)

    def _bert(self, walk: _Walk) -> Iterator[tuple[str, Kept]]:
        for head, slots in walk.bert.items():
            owner = self._owner(head)
            if owner:
                yield owner, Kept("Adam", BERT, slots, "Adam")

    def _mesh(self, walk: _Walk) -> Iterator[tuple[str, Kept]]:
        for owner, words in walk.mesh.items():
            shape = self._checkpoint.spec(self._keys[owner]).shape
            slots = {_factor_of(word, shape): key for word, key in words.items()}
            yield owner, Kept("Adafactor", TF1, slots, "Adafactor")

    def _keras(self, walk: _Walk) -> Iterator[tuple[str, Kept]]:
        for (owner, path), words in walk.keras.items():
            name = path.rpartition("/")[2]
            count = self._first(path, COUNTS)
            kind = kind_of_name(name) or (kind_of_words(list(words)) if count else None)
            if kind:
                product = self._first(path, _PRODUCTS)
                slots = _quantities(kind, words)
                is_legacy = _LEGACY_RMSPROP in words
                yield owner, Kept(kind, KERAS, slots, name, count, (), product, is_legacy)

    def _keras3(self) -> Iterator[tuple[str, Kept]]:
        """The optimizer of Keras 3 in an HDF5 file."""
        found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for name, key in self._keys.items():
            path, _, last = name.rpartition("/")
            kind = kind_of_name(path.rpartition("/")[2]) if name.startswith(_KERAS_H5) else None
            split = split_ending(kind, last) if kind else None
            if split and len(owners := self._flat_names.get(split[0], ())) == 1:
                found[owners[0], path][split[1]] = key
        for (owner, path), slots in found.items():
            name = path.rpartition("/")[2]
            # One that is wrapped counts where it would if it were not.
            count = self._first(f"{_KERAS_H5}{name}", COUNTS)
            yield owner, Kept(kind_of_name(name) or "", KERAS, slots, name, count)

    @functools.cached_property
    def _flat_names(self) -> Mapping[str, Sequence[str]]:
        """The variables by their names with underscores for slashes."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._keys:
            if not name.startswith(_KERAS_H5):
                found[name.replace("/", "_")].append(name)
        return found

    def _custom(self, walk: _Walk) -> Iterator[tuple[str, Kept]]:
        """Adam under another name: only Adam has powers of both betas, and two slots."""
        if {number for _, number in self.powers.items()} != {1, 2}:
            return
        for head, names in walk.others.items():
            key = self._keys[head]
            pairs = [n for n in names if f"{n}_1" in names and self._are_alike(key, head, n)]
            if len(pairs) == 1:
                slots = {"m": self._keys[f"{head}/{pairs[0]}"]}
                slots["v"] = self._keys[f"{head}/{pairs[0]}_1"]
                yield head, Kept("Adam", TF1, slots, pairs[0], powers=_powers_of(walk, ""))

    def _are_alike(self, key: str, head: str, name: str) -> bool:
        keys = (self._keys[f"{head}/{name}"], self._keys[f"{head}/{name}_1"])
        return {self._checkpoint.spec(k).shape for k in keys} == {self._checkpoint.spec(key).shape}

    def _first(self, path: str, names: Sequence[str]) -> str | None:
        """The key of the first of these names at a path or, as Keras 2.11 has it, beside it."""
        for folder in (path, path.rpartition("/")[0]):
            for name in names:
                found = self._keys.get(f"{folder}/{name}" if folder else name)
                if found:
                    return found
        return None

    def _owner_of_slot(self, head: str) -> tuple[str | None, str | None]:
        """Whose slot it is that begins like this, and in what scope it was made, if that shows."""
        if head in self._keys:
            return head, ""
        mangled = self._owner_of_mangled(head)
        if mangled:
            return mangled, None
        name = _PART.sub("", head)
        owner = self._owner(name)
        return owner, name.removesuffix(owner).removesuffix("/") if owner else None

    def _owner_of_mangled(self, head: str) -> str | None:
        match = _MANGLED.fullmatch(head)
        at = len(head)
        while match and (at := head.rfind("/", 0, at)) > 0:
            if head[:at] in self._keys and f"{head[:at]}/part_{match[1]}".endswith(head[at + 1 :]):
                return head[:at]
        return None

    def _owner(self, name: str) -> str | None:
        """The longest name of a tensor that a name ends with, a slash before it or nothing."""
        while name and name not in self._keys:
            name = name.partition("/")[2]
        return name or None


def _instances(
    keys: Sequence[str], by_count: Mapping[int, tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
    """Quantities and keys of each optimizer of one name that a variable has had."""
    size = len(keys) if len(keys) in by_count else min(by_count)
    for start in range(0, len(keys), size):
        yield by_count[size], keys[start : start + size]


def _factor_of(word: str, shape: Sequence[int]) -> str:
    """Which of Keras's factors one of Mesh TensorFlow's is: `vr` has no axis of the larger size."""
    if word not in ("vr", "vc") or len(shape) != 2:
        return word
    return "c" if (word == "vr") == (shape[0] >= shape[1]) else "r"


def _powers_of(walk: _Walk, scope: str | None) -> tuple[tuple[str, int], ...]:
    """The powers made in a scope; all there are where that does not tell."""
    if scope is not None and scope in walk.powers:
        return tuple(walk.powers[scope])
    return tuple(power for found in walk.powers.values() for power in found)


def _quantities(kind: str, words: Mapping[str, str]) -> dict[str, str]:
    found = {quantity(kind, word): key for word, key in words.items()}
    return {name: key for name, key in found.items() if name is not None}


def _means(word: str, kinds: Sequence[str]) -> set[str]:
    """The quantities that a word stands for in optimizers of these kinds."""
    return {name for kind in kinds if (name := quantity(kind, word)) is not None}


def _is_in_an_optimizer(name: str) -> bool:
    """Whether a name is that of what an optimizer keeps, and not of what it only refers to."""
    parts = name.split("/")
    return parts[0] in KERAS_FOLDERS and _NO_SLOTS.isdisjoint(parts)


# -- by the graph ----------------------------------------------------------------------------------


def _of_graph(optimizer: GraphOptimizer) -> Iterator[tuple[str, Kept]]:
    attributes = optimizer.attributes
    count = next((attributes[name] for name in COUNTS if attributes.get(name)), None)
    product = next((attributes[name] for name in _PRODUCTS if attributes.get(name)), None)
    powers = ((attributes.get("beta1_power"), 1), (attributes.get("beta2_power"), 2))
    name, writer = _name_in_graph(optimizer, count), KERAS if count else TF1
    kind = kind_of_name(name) or kind_of_words(_words(optimizer)) or name
    name = name or kind
    if writer == TF1 and kind == "SGD":  # the slot of TensorFlow 1's Momentum has the same name
        kind = "Momentum"
    for variable, listed in optimizer.slots.items():
        words = {word: key for word, key in listed.items() if word not in _NO_SLOTS}
        if not words:
            continue
        known = tuple((key, number) for key, number in powers if key)
        slots = _quantities(kind, words)
        is_legacy = writer == KERAS and _LEGACY_RMSPROP in words
        yield variable, Kept(kind, writer, slots, name, count, known, product, is_legacy)


def _words(optimizer: GraphOptimizer) -> list[str]:
    """What an optimizer calls its slots; of lists also those that are empty."""
    if ALL_VARIABLES in optimizer.attributes:
        return [name for name in optimizer.attributes if name in KERAS_WORDS]
    return list(dict.fromkeys(word for words in optimizer.slots.values() for word in words))


def _name_in_graph(optimizer: GraphOptimizer, count: str | None) -> str:
    """An optimizer's name: `Adam` in Adam/iter and adam/iteration, Adam/m/V, V/Adam; or nothing.

    A slot is called m/V where an optimizer makes its variables outside of its own scope, as a
    LossScaleOptimizer does with those of the one it wraps.
    """
    counted = optimizer.full_names.get(count or "", "").split("/")
    if len(counted) > 1:
        return counted[-2]
    slots = [key for words in optimizer.slots.values() for key in words.values()]
    parts = optimizer.full_names.get(slots[0], "").split("/") if slots else [""]
    if not count:
        return class_of(parts[-1])
    return "" if {parts[0], parts[-1]} & KERAS_WORDS else parts[0]
