"""Scenarios for `differential`, drawn at random: most are right, some in one place are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from differential import (
    Cut,
    Objects,
    Scenario,
    Selection,
    Shape,
    Stored,
    Variable,
    Vocab,
    part_count,
)
from hypothesis import strategies as st

# -- drawing: names, shapes, vocabularies ----------------------------------------------------------

SEGMENTS = ("a", "b", "ab", "w", "w1")
DTYPES = ("float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")
ODD_ENTRIES = (
    *(b"a", b"A", b"ab", b" ", b" a", b"a ", b"\t", b"a\tb", b"a\rb", b"a\r", b"\x0ba", b"\x00"),
    *(b"\xff", b"\x80a", b"\xef\xbb\xbfa", b"\xc3\xa9", b"e\xcc\x81", b"\xe2\x80\xa8", b"x" * 20),
)

variable_names = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3).map("/".join)
entries_of_vocabularies = st.sampled_from(ODD_ENTRIES) | st.integers(0, 30).map(lambda n: b"%d" % n)
seeds = st.integers(0, 2**16)


def sometimes(draw: st.DrawFn, percent: int) -> bool:
    return draw(st.integers(0, 99)) >= 100 - percent


@dataclass(frozen=True)
class Pair:
    """A variable, the tensor it came from (by whatever key), and how its vocabulary changed."""

    variable: Variable
    stored: Stored
    vocab: Vocab | None = None


@st.composite
def cuts(draw: st.DrawFn, shape: Shape) -> Cut | None:
    if not shape or not sometimes(draw, 30):
        return None
    axis = draw(st.sampled_from([0, 0, 0, len(shape) - 1]))
    return axis, draw(st.integers(1, 3))


@st.composite
def plain_pairs(draw: st.DrawFn, name: str) -> Pair:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    shape = () if sometimes(draw, 5) else shape
    dtype = draw(st.sampled_from(DTYPES)) if sometimes(draw, 15) else "float32"
    trainable = not sometimes(draw, 25)
    return Pair(
        Variable(name, shape, dtype, trainable, draw(cuts(shape))),
        Stored(name, shape, dtype, draw(cuts(shape)), draw(seeds)),
    )


@st.composite
def remapped_pairs(draw: st.DrawFn, name: str) -> Pair:
    vocab, old_lines = draw(vocabs())
    width = draw(st.integers(1, 3))
    old_size = old_lines + draw(st.sampled_from([0, 0, 1, 2]))
    sizes = [(old_size, width), (vocab.new_size + vocab.oov, width)]
    old_shape, new_shape = sizes if vocab.axis == 0 else [size[::-1] for size in sizes]
    trainable = not sometimes(draw, 15)
    cut = draw(cuts(new_shape))
    if cut is not None and not sometimes(draw, 10):
        cut = (0, cut[1])
    return Pair(
        Variable(name, new_shape, trainable=trainable, cut=cut),
        Stored(name, old_shape, cut=draw(cuts(old_shape)), seed=draw(seeds)),
        vocab,
    )


@st.composite
def vocabs(draw: st.DrawFn) -> tuple[Vocab, int]:
    """A change of vocabulary, and how many lines the old file has."""
    count = draw(st.integers(2, 9))
    entries = draw(st.lists(entries_of_vocabularies, min_size=count, max_size=count, unique=True))
    old, new = draw(some_of(entries)), draw(some_of(entries))
    axis = draw(st.sampled_from([0, 0, 1]))
    shorter = axis == 0 and sometimes(draw, 30)
    vocab = Vocab(
        new=draw(files_of(new)),
        new_size=draw(st.integers(1, len(new))) if sometimes(draw, 30) else len(new),
        old=draw(files_of(old)),
        old_size=draw(st.integers(1, len(old))) if shorter else -1,
        oov=draw(st.sampled_from([0, 0, 1, 2])),
        backup=draw(st.sampled_from([None, 3.0])),
        axis=axis,
    )
    return vocab, len(old)


def some_of(entries: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.permutations(entries).flatmap(
        lambda shuffled: st.integers(1, len(shuffled)).map(lambda count: shuffled[:count])
    )


@st.composite
def files_of(draw: st.DrawFn, entries: list[bytes]) -> bytes:
    ends = draw(st.sampled_from([[b""], [b""], [b"\r"], [b"", b"\r"]]))
    # An entry that ends with \r needs one more behind it: exactly one is dropped.
    lines = [
        entry + (b"\r" if entry.endswith(b"\r") else ends[at % len(ends)])
        for at, entry in enumerate(entries)
    ]
    return b"\n".join(lines) + draw(st.sampled_from([b"\n", b"\n", b""]))


# -- drawing: patterns -----------------------------------------------------------------------------

_LITERALS = (*SEGMENTS, "/", "w1/", "a/b", "v")
_ATOMS = (".", "[ab]", "[^/]", "[^w]", "[^0-9]", r"\w", r"\d", r"\W", r"\.", "(a|w1)", "(?:b|ab)/")
_QUANTIFIERS = ("", "", "", "*", "+", "?", "{2}")
_BEGINNINGS = (
    "",
    "",
    "",
    "^",
    r"\A",
    "(?!a)",
    "(?!.*b)",
    "(?=.*w)",
    "(?!.*w$)",
    "(?i)",
    ".*",
    ".*",
)
_ENDS = ("", "", "", "$", ":0", ":0$", "[^/]", "/", r"\b", r"\Z", ".*", ".*$", "(?<=b)")
_WHOLE = ("^((?!b).)*$", "^((?!/w).)*$", ".*[^1]$", "(", "a{", "^(?!.*(w|b/))")


@st.composite
def patterns(draw: st.DrawFn, names: list[str]) -> str:
    """A pattern that mostly takes something."""
    pattern = draw(any_patterns(names))
    if sometimes(draw, 8) or _takes_any(pattern, names):
        return pattern
    return f"{pattern}|{draw(st.sampled_from(names))}"


def _takes_any(pattern: str, names: list[str]) -> bool:
    try:
        return any(re.match(pattern, f"{name}:0") for name in names)
    except re.error:
        return False


@st.composite
def any_patterns(draw: st.DrawFn, names: list[str]) -> str:
    kind = draw(st.integers(0, 9))
    if kind < 4:
        return draw(st.sampled_from(names)) + draw(st.sampled_from(_ENDS))
    if kind == 4:
        return draw(st.sampled_from(_WHOLE))
    if kind == 5:
        return "|".join(draw(st.lists(st.sampled_from(names), min_size=2, max_size=2)))
    piece = st.tuples(
        st.sampled_from(_LITERALS) | st.sampled_from(_ATOMS), st.sampled_from(_QUANTIFIERS)
    ).map("".join)
    middle = "".join(draw(st.lists(piece, max_size=2)))
    return draw(st.sampled_from(_BEGINNINGS)) + middle + draw(st.sampled_from(_ENDS))


@st.composite
def selections(draw: st.DrawFn, names: list[str]) -> Selection:
    kind = draw(st.integers(0, 99))
    if kind < 12:  # and about a quarter of all: hypothesis often draws the simplest
        return ".*"
    if kind < 26:
        return [".*"]
    if kind < 40:
        return None
    if kind < 55:
        repeated = sometimes(draw, 10)
        chosen = st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=not repeated)
        return Objects(tuple(draw(chosen)))
    if kind < 98:
        count = draw(st.sampled_from([0, 1, 1, 2, 3]))
        texts = [draw(patterns(names)) for _ in range(count or 1)]
        return texts if count else texts[0]
    return draw(st.sampled_from(["", [], Objects(())]))


# -- drawing: keys, and all of it together ---------------------------------------------------------


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    names = draw(st.lists(variable_names, min_size=1, max_size=6, unique=True))
    pairs = [
        draw(remapped_pairs(name) if sometimes(draw, 70) else plain_pairs(name)) for name in names
    ]
    pairs = draw(with_other_keys(pairs))
    stored = {pair.stored.key: pair.stored for pair in pairs}
    for key in draw(st.lists(st.sampled_from(["global_step", "a/old", "z"]), max_size=2)):
        stored.setdefault(key, Stored(key, (), "int64", seed=1))
    scenario = Scenario(
        stored=tuple(stored.values()),
        variables=tuple(pair.variable for pair in pairs),
        selection=draw(selections(names)),
        vocabs={pair.variable.name: pair.vocab for pair in pairs if pair.vocab is not None},
        renames={
            pair.variable.name: pair.stored.key
            for pair in pairs
            if pair.stored.key != pair.variable.name
        },
        by_directory=draw(st.booleans()),
    )
    if not sometimes(draw, 5):
        scenario = without_unused_entries(scenario)
    if sometimes(draw, 50):
        for disturb in draw(st.lists(st.sampled_from(DISTURBANCES), min_size=1, max_size=2)):
            scenario = disturb(draw, scenario)
    return scenario


@st.composite
def with_other_keys(draw: st.DrawFn, pairs: list[Pair]) -> list[Pair]:
    """The same pairs, some of them under other names, swapped names or one name."""
    how = draw(st.sampled_from(["same", "same", "renamed", "swapped", "shared"]))
    if how == "renamed":
        chosen = draw(st.sets(st.integers(0, len(pairs) - 1), min_size=1))
        return [
            replace(pair, stored=replace(pair.stored, key=f"old/{pair.stored.key}"))
            if at in chosen
            else pair
            for at, pair in enumerate(pairs)
        ]
    if how == "swapped":
        keys = draw(st.permutations([pair.stored.key for pair in pairs]))
        return [
            replace(pair, stored=replace(pair.stored, key=key))
            for pair, key in zip(pairs, keys, strict=True)
        ]
    if how == "shared":
        one, other = (draw(st.integers(0, len(pairs) - 1)) for _ in range(2))
        shared = pairs[one].variable
        twin = replace(
            pairs[other].variable, shape=shared.shape, dtype=shared.dtype, cut=shared.cut
        )
        pairs = list(pairs)
        pairs[other] = Pair(twin, pairs[one].stored, pairs[one].vocab)
    return pairs


def without_unused_entries(scenario: Scenario) -> Scenario:
    """Drops what TensorFlow would refuse because the selection does not use it."""
    used = tf_selected(scenario) or set()
    return replace(
        scenario,
        vocabs={name: vocab for name, vocab in scenario.vocabs.items() if name in used},
        renames={name: key for name, key in scenario.renames.items() if name in used},
    )


def tf_items(variable: Variable) -> list[str]:
    """What TensorFlow matches patterns against."""
    if variable.cut is None:
        return [f"{variable.name}:0"]
    count = part_count(variable.shape, variable.cut)
    return [f"{variable.name}/part_{number}:0" for number in range(count)]


def tf_selected(scenario: Scenario) -> set[str] | None:
    """The variables of which TensorFlow selects at least a part; None for a bad pattern."""
    selection = scenario.selection
    if isinstance(selection, Objects):
        return set(selection.names)
    texts = selection if isinstance(selection, list) else [selection or ".*"]
    candidates = [v for v in scenario.variables if isinstance(selection, list) or v.trainable]
    try:
        return {
            v.name for v in candidates for t in texts if any(re.match(t, i) for i in tf_items(v))
        }
    except re.error:
        return None


# -- drawing: something that is wrong, or that the two sides may see differently -------------------

Disturbance = Callable[[st.DrawFn, Scenario], Scenario]


def _with_stored(scenario: Scenario, at: int, *stored: Stored) -> Scenario:
    others = list(scenario.stored)
    others[at : at + 1] = stored
    unique = {s.key: s for s in others}
    return replace(scenario, stored=tuple(unique.values()))


def _with_variable(scenario: Scenario, at: int, variable: Variable) -> Scenario:
    variables = list(scenario.variables)
    variables[at] = variable
    return replace(scenario, variables=tuple(variables))


def _stored_at(draw: st.DrawFn, scenario: Scenario) -> tuple[int, Stored]:
    at = draw(st.integers(0, len(scenario.stored) - 1))
    return at, scenario.stored[at]


def _other_shape(draw: st.DrawFn, shape: Shape) -> Shape:
    if not shape or sometimes(draw, 15):
        return (*shape, 1)
    axis = draw(st.integers(0, len(shape) - 1))
    size = max(1, shape[axis] + draw(st.sampled_from([-1, 1])))
    return (*shape[:axis], size, *shape[axis + 1 :])


def missing_tensor(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, _ = _stored_at(draw, scenario)
    return _with_stored(scenario, at) if len(scenario.stored) > 1 else scenario


def other_stored_shape(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    shape = _other_shape(draw, stored.shape)
    return _with_stored(scenario, at, replace(stored, shape=shape, cut=None))


def other_variable_shape(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at = draw(st.integers(0, len(scenario.variables) - 1))
    variable = scenario.variables[at]
    shape = _other_shape(draw, variable.shape)
    cut = variable.cut if len(shape) == len(variable.shape) else None
    return _with_variable(scenario, at, replace(variable, shape=shape, cut=cut))


def other_stored_dtype(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    return _with_stored(scenario, at, replace(stored, dtype=draw(st.sampled_from(DTYPES))))


def other_dtype_on_both_sides(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at = draw(st.integers(0, len(scenario.variables) - 1))
    variable, dtype = scenario.variables[at], draw(st.sampled_from(DTYPES))
    scenario = _with_variable(scenario, at, replace(variable, dtype=dtype))
    source = scenario.source(variable.name)
    if source is None:
        return scenario
    return _with_stored(scenario, scenario.stored.index(source), replace(source, dtype=dtype))


def other_rank_on_both_sides(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """A vocabulary of a vector, or of a tensor with three axes."""
    name = draw(st.sampled_from(sorted(scenario.vocabs) or [scenario.variables[0].name]))
    source = scenario.source(name)
    if source is None or name not in {v.name for v in scenario.variables}:
        return scenario
    variable = scenario.variable(name)
    wanted = draw(st.sampled_from([1, 3, 4]))
    at = scenario.variables.index(variable)
    scenario = _with_variable(
        scenario, at, replace(variable, shape=_of_rank(variable.shape, wanted), cut=None)
    )
    moved = replace(source, shape=_of_rank(source.shape, wanted), cut=None)
    scenario = _with_stored(scenario, scenario.stored.index(source), moved)
    return _moved_axis(draw, scenario, name, wanted)


def _of_rank(shape: Shape, rank: int) -> Shape:
    return shape[:1] if rank == 1 else (*shape, 2, 1, 3)[:rank]


def _moved_axis(draw: st.DrawFn, scenario: Scenario, name: str, rank: int) -> Scenario:
    if name not in scenario.vocabs or not sometimes(draw, 50):
        return scenario
    vocab = replace(scenario.vocabs[name], axis=draw(st.integers(-rank, rank - 1)))
    return replace(scenario, vocabs={**scenario.vocabs, name: vocab})


def key_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    other = replace(stored, key=draw(spellings(stored.key)), seed=stored.seed + 1)
    if any(s.key == other.key for s in scenario.stored):
        return scenario
    return _with_stored(scenario, at, *([stored, other] if sometimes(draw, 40) else [other]))


def entry_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    changed = {}
    for setting in ("vocabs", "renames"):
        entries = dict(getattr(scenario, setting))
        if entries:
            name = draw(st.sampled_from(sorted(entries)))
            entries[draw(spellings(name))] = entries.pop(name)
        changed[setting] = entries
    return replace(scenario, **changed)


def rename_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    return replace(
        scenario, renames={name: draw(spellings(key)) for name, key in scenario.renames.items()}
    )


def spellings(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{name}:0", name.replace("/", "."), name])


def unused_entry(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    name = draw(st.sampled_from(["zz", "a", "w1/part_0", *(v.name for v in scenario.variables)]))
    if sometimes(draw, 50):
        return replace(scenario, renames={name: name, **scenario.renames})
    return replace(scenario, vocabs={name: Vocab(b"x\n", 1, b"x\n"), **scenario.vocabs})


def no_source_name(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    name = draw(st.sampled_from([v.name for v in scenario.variables]))
    return replace(
        scenario, renames={**scenario.renames, name: draw(st.sampled_from(["", "zz", name]))}
    )


def other_vocab(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    if not scenario.vocabs:
        return scenario
    name = draw(st.sampled_from(sorted(scenario.vocabs)))
    vocab = scenario.vocabs[name]
    changed = draw(st.sampled_from(_VOCAB_CHANGES))(draw, vocab)
    return replace(scenario, vocabs={**scenario.vocabs, name: changed})


def _other_lines(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    line = draw(st.sampled_from([b"", b"\r", lines[0], lines[-1], b"x"]))
    if sometimes(draw, 50):
        return b"\n".join([*lines[:at], line, *lines[at:]])
    return b"\n".join([*lines[:at], line, *lines[at + 1 :]])


def _lines_behind(draw: st.DrawFn, vocab: Vocab) -> Vocab:
    """Lines that the sizes leave unused, good or bad."""
    which = draw(st.sampled_from(["new", "old"]))
    data = getattr(vocab, which).removesuffix(b"\n") + b"\n"
    changed = replace(vocab, **{which: data + draw(st.sampled_from([b"\n", b"\r\n", b"x", data]))})
    if which == "new" or vocab.axis != 0 or vocab.old_size != -1:
        return changed
    return replace(changed, old_size=data.count(b"\n"))


_VOCAB_CHANGES: tuple[Callable[[st.DrawFn, Vocab], Vocab], ...] = (
    _lines_behind,
    _lines_behind,
    lambda draw, vocab: replace(vocab, new=_other_lines(draw, vocab.new)),
    lambda draw, vocab: replace(vocab, new=_other_lines(draw, vocab.new)),
    lambda draw, vocab: replace(vocab, old=_other_lines(draw, vocab.old)),
    lambda draw, vocab: replace(vocab, new_size=vocab.new_size + draw(st.sampled_from([-1, 1]))),
    lambda draw, vocab: replace(vocab, new_size=-1),
    lambda draw, vocab: replace(vocab, old_size=draw(st.integers(-2, 9))),
    lambda draw, vocab: replace(vocab, oov=draw(st.integers(-1, 2))),
    lambda draw, vocab: replace(vocab, axis=draw(st.sampled_from([-2, -1, 0, 1, 2]))),
)


def repeated_entry(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """An entry twice in the new vocabulary, and perhaps in two parts of the variable."""
    names = sorted({v.name for v in scenario.variables} & {*scenario.vocabs})
    if not names:
        return scenario
    name = draw(st.sampled_from(names))
    variable, vocab = scenario.variable(name), scenario.vocabs[name]
    lines = vocab.new.split(b"\n")
    lines[max(0, vocab.new_size - 1)] = lines[0]
    changed = replace(vocab, new=b"\n".join(lines))
    scenario = replace(scenario, vocabs={**scenario.vocabs, name: changed})
    at = scenario.variables.index(variable)
    return _with_variable(
        scenario, at, replace(variable, cut=draw(st.sampled_from([(0, 2), None])))
    )


DISTURBANCES: tuple[Disturbance, ...] = (
    other_vocab,
    other_vocab,
    other_vocab,
    other_vocab,
    missing_tensor,
    other_stored_shape,
    other_variable_shape,
    other_stored_dtype,
    other_dtype_on_both_sides,
    other_rank_on_both_sides,
    key_in_another_spelling,
    entry_in_another_spelling,
    rename_in_another_spelling,
    unused_entry,
    no_source_name,
    repeated_entry,
)
