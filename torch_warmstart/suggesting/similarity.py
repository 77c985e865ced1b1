"""How alike names of layers are, for many names at once.

A name becomes a set of features: its words (`attn` and `attention` are one), pairs of words, the
numbers with the word before them, and the beginnings of words. Two names are as alike as they share
features (Dice's coefficient, each feature with its weight).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from torch_warmstart.names import MAX_DIGITS

Scores = npt.NDArray[np.float32]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d{1,18}")
_SAME = {
    word: words[0]
    for words in (
        ("attention", "attn", "att"),
        ("batch", "bn"),
        ("bias", "beta", "biase"),
        ("conv", "convolution", "convd"),
        ("dense", "fc", "linear", "lin"),
        ("embedding", "emb", "embed"),
        ("feed", "ff", "ffn"),
        ("key", "k"),
        ("norm", "normalization", "layernorm", "batchnorm", "ln"),
        ("output", "out"),
        ("position", "pos", "positional"),
        ("projection", "proj"),
        ("query", "q"),
        ("value", "v"),
        ("weight", "kernel", "gamma", "w"),
    )
    for word in words
}
# Words that say what a layer is, not which.
KINDS_OF_LAYERS = frozenset(
    ("batch", "bias", "block", "conv", "dense", "embedding", "layer", "norm", "weight")
)
# Words of which another of the same line is something else: a layer of a decoder is none of an
# encoder, however alike they are.
_APART: tuple[tuple[frozenset[str], ...], ...] = tuple(
    tuple(frozenset(words.split()) for words in line.split("|"))
    for line in (
        "encoder enc|decoder dec",
        "query|key|value",
        "in input|output",
        "up|down",
        "left|right",
        "forward fw fwd|backward bw bwd",
        "source src|target tgt",
        "user|item",
        "actor policy|critic value",
        "generator gen|discriminator disc",
        "first|second|third|last",
        "mean mu|variance var logvar std",
        "real|imag",
        "train|test",
    )
)
# Words that make something else of what stands beside them, if only one of two names has them.
_TURNING = frozenset(
    (
        *("target", "teacher", "ema", "average", "averaged", "avg", "momentum"),
        *("pre", "post", "before", "after", "inverse", "reverse"),
        *("aux", "auxiliary"),
    )
)
ALIKE = 0.45  # names that are less so are hardly of one tensor
MARGIN = 0.02  # what is nearer to each other is as good
_WORD_WEIGHT, _PAIR_WEIGHT, _NUMBER_WEIGHT = 1.0, 0.5, 1.0
_PARTS = 20  # of a weight of 1: all weights are whole numbers of them
_FEW = 16  # a feature of fewer than one in so many pairs is added pair by pair
_BEGINNINGS = {1: 0.15, 3: 0.25}  # characters of a word: weight


@functools.lru_cache(maxsize=65536)
def tokens_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name, in lower case, synonyms and plurals as one word."""
    return tuple(_canonical(_token(word)) for word in _WORD.findall(name))


def _token(word: str) -> str:
    """In lower case; of digits that nobody counts to, a word."""
    return f"n{word}" if len(word) > MAX_DIGITS and word.isdecimal() else word.lower()


@functools.lru_cache(maxsize=65536)
def spelling_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name as they are written, in lower case: no synonyms."""
    tokens = map(_token, _WORD.findall(name))
    return tuple(str(int(token)) if token.isdecimal() else token for token in tokens)


def _canonical(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss") and word != "bias":
        word = word[:-1]
    return _SAME.get(word, word)


def features_of(tokens: Sequence[str]) -> dict[str, float]:
    """What a name of these tokens has, with weights."""
    features: dict[str, float] = {}
    last = ""
    for token in tokens:
        if token.isdecimal():
            features[f"{last}#{int(token)}"] = _NUMBER_WEIGHT
            features[f"#{int(token)}"] = _NUMBER_WEIGHT
            continue
        features[token] = _WORD_WEIGHT
        if last:
            features[f"{last} {token}"] = _PAIR_WEIGHT
        for length, weight in _BEGINNINGS.items():
            features[f"{token[:length]}..."] = weight
        last = token
    return features


def alikeness(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> Scores:
    """How alike names are, each of ours (as tokens) with each of theirs: 0 to 1, [ours, theirs]."""
    features = [[features_of(tokens) for tokens in side] for side in (ours, theirs)]
    # Weights are whole parts: sums of them are exact, in whatever order they are added.
    weights = {
        feature: round(weight * _PARTS)
        for side in features
        for name in side
        for feature, weight in name.items()
    }
    sizes = [np.array([sum(map(weights.__getitem__, name)) for name in side]) for side in features]
    first, second = (_names_by_feature(side) for side in features)
    both = [feature for feature in first if feature in second]
    size = len(ours) * len(theirs)
    common = [f for f in both if len(first[f]) * len(second[f]) * _FEW > size]
    weighted = _as_matrix(first, common, len(ours)) * np.array([weights[f] for f in common])
    shared: Scores = weighted.astype(np.float32) @ _as_matrix(second, common, len(theirs)).T
    for feature in set(both).difference(common):  # such as numbers: in few names each
        shared[np.ix_(first[feature], second[feature])] += weights[feature]
    for row, own in enumerate(sizes[0]):  # in place: with many names, all at once is gigabytes
        shared[row] = 2 * shared[row] / np.maximum(own + sizes[1], 1).astype(np.float32)
    return shared


def shared_words(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The words that two names (as tokens) have in common, in order, each once."""
    common = set(theirs)
    return [token for token in dict.fromkeys(ours) if token in common and not token.isdecimal()]


def against(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What in two names (as tokens) says that they are two things; "" if nothing does."""
    first, second = set(ours), set(theirs)
    for line in _APART:
        here, there = ([n for n, w in enumerate(line) if w & side] for side in (first, second))
        if here and there and set(here).isdisjoint(there):
            words = [min(line[at] & side) for at, side in ((here[0], first), (there[0], second))]
            return f"{words[0]!r} is not {words[1]!r}"
    turning = sorted((first ^ second) & _TURNING)
    return f"only one of them says {turning[0]!r}" if turning else ""


def _names_by_feature(side: Sequence[dict[str, float]]) -> dict[str, list[int]]:
    """The positions of the names that have a feature, by the feature."""
    found: dict[str, list[int]] = {}
    for at, name in enumerate(side):
        for feature in name:
            found.setdefault(feature, []).append(at)
    return found


def _as_matrix(side: dict[str, list[int]], features: Sequence[str], size: int) -> Scores:
    """Which of `size` names has which of the features: 1 or 0, [names, features]."""
    matrix: Scores = np.zeros((size, len(features)), np.float32)
    for column, feature in enumerate(features):
        matrix[side[feature], column] = 1
    return matrix
