"""Which layer of a model is proposed to be which of a checkpoint, and how sure that is.

Layers are matched, not single tensors: a kernel goes where its bias goes. In rounds, each with what
the ones before left over:

    1.  layers whose tensors have names that TensorFlow gives to a layer of that type, and shapes
        that fit under its layout; first those that are several modules in torch, then single ones,
        then stacks of recurrent layers that are layers each in TensorFlow
    2.  layers beside which the shapes alone fit, one to one
    3.  single tensors of a shape that fits

Within a round the pairs whose names are most alike are taken first; between pairs that are equally
alike the order of the layers decides, and the suggestion says so.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_warmstart.model import Variable
from torch_warmstart.names import Finder
from torch_warmstart.suggesting.candidates import (
    Candidate,
    CandidatesOf,
    Layer,
    chained_candidates,
    compounds_of,
    layers_of,
    named_candidates,
    shaped_candidates,
    single_candidates,
    singles_of,
)
from torch_warmstart.suggesting.confidence import Confidence
from torch_warmstart.suggesting.numbering import (
    are_counted_through,
    numbers_in,
    places_in,
    ranked,
    with_first_numbers,
    without_numbers,
)
from torch_warmstart.suggesting.similarity import (
    ALIKE,
    KINDS_OF_LAYERS,
    MARGIN,
    Scores,
    against,
    alikeness,
    shared_words,
    spelling_of,
    tokens_of,
)
from torch_warmstart.suggesting.tensors import AvailableTensors
from torch_warmstart.values import frozen

_VERY_ALIKE, _SOMEWHAT_ALIKE = 0.675, 0.2  # as ALIKE
_CANDIDATES = 24  # looked at for each layer at first
_ALTERNATIVES = 4  # shown
_ORDER = 1e-3  # how much the order counts: less than any difference between names
_ROWS = 256  # of a matrix that are copied at a time
_MANY = 3  # layers of one kind that agree
_SAME_SIZE = 0.05  # how much the size along a vocabulary counts: less than another name


@frozen(eq=False)
class Match:
    """A layer and where it is proposed to be."""

    layer: Layer
    candidate: Candidate
    confidence: Confidence
    reason: str
    alternatives: tuple[Candidate, ...]
    by_rank: bool = False  # whether numbers of layers were taken for ranks


def match_layers(
    finder: Finder, available: AvailableTensors, lost: Sequence[Variable], *, num_found: int
) -> list[Match]:
    """The matches of all rounds, each tensor once.

    Args:
        finder: Of the checkpoint.
        available: Its tensors that nobody has.
        lost: The variables that find nothing.
        num_found: How many others find theirs.
    """
    matches: list[Match] = []
    claimed: set[str] = set()
    named = named_candidates(finder, available)
    left = layers_of(lost)
    matches += _round(compounds_of(finder, left), named, claimed, set())
    chained, shaped = chained_candidates(finder, available), shaped_candidates(finder, available)
    for candidates_of in (named, chained, shaped):
        left = _without(left, matches)
        matches += _round(left, candidates_of, claimed, _unsure(matches))
    singles = singles_of(_without(left, matches))
    matches += _round(singles, single_candidates(finder, available), claimed, _unsure(matches))
    alike = [match.layer for match in matches if _agree(match.layer, match.candidate)]
    num_alike = sum(len(layer.tensors) for layer in alike)  # but for what stands in front
    most_alike = num_found + num_alike > len(lost) - num_alike
    return [_left_over(match) for match in matches] if most_alike else matches


def _unsure(matches: Sequence[Match]) -> set[str]:
    """The keys of what may be another layer's."""
    return {key for m in matches if m.confidence == "low" for key in m.candidate.keys}


def _left_over(match: Match) -> Match:
    """Where names are as they were, what is left over of one kind (`dense`) may be old and new."""
    layer, candidate = match.layer, match.candidate
    is_told = set(_words(layer, candidate)) - KINDS_OF_LAYERS or _agree(layer, candidate)
    if match.confidence != "high" or is_told:
        return match
    return replace(
        match, confidence="medium", reason=f"{match.reason}; but most names are as they were"
    )


def _without(layers: Sequence[Layer], matches: Sequence[Match]) -> list[Layer]:
    """The layers whose tensors have no match."""
    done = {owner.name for match in matches for owner, _ in match.layer.tensors}
    return [layer for layer in layers if done.isdisjoint(o.name for o, _ in layer.tensors)]


class _Agreeing:
    """Names, to count those that agree with another: `_agree` for many at once."""

    def __init__(self, named: Sequence[Layer] | Sequence[Candidate]) -> None:
        spellings = [spelling_of(each.name) for each in named]
        self._whole = Counter(spellings)
        self._ends = Counter(s[at:] for s in spellings for at in range(len(s)))

    def count(self, name: str) -> int:
        own = spelling_of(name)
        return self._ends[own] + sum(self._whole[own[at:]] for at in range(1, len(own)))


class _Rivals:
    """The highest score of another pair of the same layer, or of the same candidate."""

    def __init__(self, scores: Scores) -> None:
        self._of_layers, self._of_candidates = _two_best(scores), _two_best(scores.T)

    def best(self, row: int, column: int) -> float:
        """Of the rivals of a pair; -1 if it has none."""
        return max(_other(self._of_layers, row, column), _other(self._of_candidates, column, row))


_TwoBest = tuple[npt.NDArray[np.int64], Scores]  # where the best of a row is; best and second best


def _two_best(scores: Scores) -> _TwoBest:
    rows = np.arange(len(scores))
    where = scores.argmax(axis=1)
    best = scores[rows, where]
    second = np.full(len(scores), -1, scores.dtype)
    if scores.shape[1] > 1:
        for start in range(0, len(scores), _ROWS):  # each is copied
            part = slice(start, start + _ROWS)
            second[part] = np.partition(scores[part], -2, axis=1)[:, -2]
    return where, np.stack([best, second])


def _best_columns(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Where the best of a vector are, best first; of equal ones those that come first."""
    if len(scores) > count:
        at = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        return at[np.argsort(-scores[at], kind="stable")[:count]]
    return np.argsort(-scores, kind="stable")


class _Alike:
    """How alike names are of which many are the same, such as those without their numbers."""

    def __init__(self, ours: Sequence[tuple[str, ...]], theirs: Sequence[tuple[str, ...]]) -> None:
        first, second = _by_last(ours), _by_last(theirs)
        self._scores = alikeness([*first], [*second])
        self._rivals = _Rivals(self._scores)
        self._at = [[at[name] for name in side] for at, side in ((first, ours), (second, theirs))]
        self._counts = Counter(self._at[0]), Counter(self._at[1])

    def score(self, row: int, column: int) -> float:
        return float(self._scores[self._at[0][row], self._at[1][column]])

    def best_rival(self, row: int, column: int) -> float:
        """The highest score of another pair of the same layer, or of the same candidate."""
        one, other = self._at[0][row], self._at[1][column]
        best = self._rivals.best(one, other)
        has_twin = self._counts[0][one] > 1 or self._counts[1][other] > 1
        return max(best, self.score(row, column)) if has_twin else best


def _by_last(names: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Each name once, in the order in which they come last, and its place among them."""
    found = dict.fromkeys(reversed(names))
    return {name: at for at, name in enumerate(reversed(found))}


def _other(of: _TwoBest, row: int, column: int) -> float:
    """The best of a row beside one column."""
    where, values = of
    return float(values[1 if where[row] == column else 0, row])


@dataclass
class _Group:
    """Layers that have the same candidates, and how alike the names of each pair are."""

    layers: list[Layer]
    candidates: list[Candidate]
    is_rest: bool  # whether others that would fit are taken by what may not be theirs
    scores: Scores = field(init=False)  # [layers, candidates]
    by_words: _Alike = field(init=False)  # the same without numbers
    is_plain: npt.NDArray[np.bool_] = field(init=False)  # no size and no leaf speaks against it
    by_rank: bool = field(init=False)  # whether numbers are compared by their rank
    by_order: bool = field(init=False)  # whether the order of all layers is all there is

    def __post_init__(self) -> None:
        ours = [tokens_of(layer.name) for layer in self.layers]
        theirs = [tokens_of(n) for n in with_first_numbers([p.name for p in self.candidates])]
        numbers = [
            {t for tokens in side for t in tokens if t.isdecimal()} for side in (ours, theirs)
        ]
        self.by_rank = not {int(n) for n in numbers[0]} <= {int(n) for n in numbers[1]}
        if self.by_rank:
            ours, theirs = ranked(ours), ranked(theirs)
        self.by_order = len(ours) == len(theirs) and are_counted_through(ours, theirs)
        same = self._of_same_size()
        self.is_plain = same & ~np.array([candidate.is_foreign for candidate in self.candidates])
        self.scores = alikeness(ours, theirs)
        if not same.all():
            self.scores = self.scores + _SAME_SIZE * same
        self.by_words = _Alike(without_numbers(ours), without_numbers(theirs))

    def _of_same_size(self) -> npt.NDArray[np.bool_]:
        """The pairs whose sizes agree along vocabularies too."""
        known: dict[object, int] = {}
        shapes = (
            [tuple(v.shape for _, v in layer.tensors) for layer in self.layers],
            [tuple(fit.shape for fit in candidate.fits) for candidate in self.candidates],
        )
        ours, theirs = (
            np.array([known.setdefault(shape, len(known)) for shape in side]) for side in shapes
        )
        same: npt.NDArray[np.bool_] = ours[:, None] == theirs[None, :]
        return same

    def may_be(self, row: int, column: int) -> bool:
        """Whether it is plain, or names agree in what sizes and the tensor's own name do not."""
        layer, candidate = self.layers[row], self.candidates[column]
        if self.is_plain[row, column]:
            return True
        return bool(set(_words(layer, candidate)) - KINDS_OF_LAYERS) or _agree(layer, candidate)

    @functools.cached_property
    def agreeing(self) -> tuple[_Agreeing, _Agreeing]:
        """The layers' names, and the candidates', by how they end."""
        return _Agreeing(self.layers), _Agreeing(self.candidates)

    @functools.cached_property
    def has_same_numbers(self) -> bool:
        """Whether both are numbered alike, each once, from the same number on."""
        ours = [numbers_in(layer.name) for layer in self.layers]
        theirs = [numbers_in(candidate.name) for candidate in self.candidates]
        return not self.by_rank and len(set(ours)) == len(ours) and sorted(ours) == sorted(theirs)

    @functools.cached_property
    def rivals(self) -> _Rivals:
        """Of each pair by its score."""
        return _Rivals(self.scores)

    def with_order(self, row: int) -> npt.NDArray[np.float64]:
        """A layer's scores with a little for what is at the same position in the order."""
        scores: npt.NDArray[np.float64] = self.scores[row].astype(np.float64)
        if self.by_order:
            scores[row] += 1
        else:
            columns = np.arange(len(scores), dtype=np.float32)
            same = 1 - np.abs(np.float32(row) - columns) / max(self.scores.shape)
            scores += _ORDER * same
        return scores


def _round(
    layers: Sequence[Layer],
    candidates_of: CandidatesOf,
    claimed: set[str],
    unsure: Collection[str],
) -> list[Match]:
    """The best pairs first, until no layer has a candidate left; their keys are claimed.

    `unsure` are the keys that are claimed, and may be of another layer.
    """
    groups: dict[int, tuple[list[Layer], list[Candidate]]] = {}
    for layer in layers:
        candidates = candidates_of(layer)
        groups.setdefault(id(candidates), ([], candidates))[0].append(layer)
    scored = []
    for members, candidates in groups.values():
        free = [candidate for candidate in candidates if not candidate.keys & claimed]
        if free:
            is_rest = any(not candidate.keys.isdisjoint(unsure) for candidate in candidates)
            scored.append(_Group(members, free, is_rest))
    chosen: list[tuple[_Group, int, int]] = []
    done: set[int] = set()
    for group, row, column in _best_first(scored, done):
        layer, candidate = group.layers[row], group.candidates[column]
        is_free = id(layer) not in done and not candidate.keys & claimed
        if is_free and group.may_be(row, column):
            done.add(id(layer))
            claimed |= candidate.keys
            chosen.append((group, row, column))
    return _confirmed([_judge(*pair) for pair in chosen])


def _best_first(
    groups: Sequence[_Group], done: Collection[int]
) -> Iterator[tuple[_Group, int, int]]:
    """Pairs by their score: first the likeliest of each layer, then whatever else there is.

    `done` are the ids of layers that have found theirs meanwhile.
    """
    likeliest = []
    for group in groups:
        for row in range(len(group.layers)):
            scores = group.with_order(row)
            few = _best_columns(scores, _CANDIDATES)
            likeliest += [(float(scores[at]), group, row, int(at)) for at in few]
    likeliest.sort(key=lambda pair: -pair[0])
    for _, group, row, column in likeliest:
        yield group, row, column
    for group in groups:
        for row, layer in enumerate(group.layers):
            if id(layer) not in done:
                order = np.argsort(-group.with_order(row), kind="stable")
                plain = (int(at) for at in order[_CANDIDATES:] if group.is_plain[row, at])
                yield from ((group, row, at) for at in plain)


def _judge(group: _Group, row: int, column: int) -> Match:
    """How sure a pair is, and what would do as well."""
    layer, candidate = group.layers[row], group.candidates[column]
    confidence, reason = _confidence(group, row, column)
    doubt = against(tokens_of(layer.name), tokens_of(candidate.name)) if candidate.name else ""
    if not doubt and confidence == "high" and _is_another_of_its_kind(layer, candidate):
        doubt = "their numbers differ"
    if doubt and confidence != "low":
        confidence, reason = "low", f"{reason}; but {doubt}"
    score = float(group.scores[row, column])
    near = _best_columns(group.scores[row], _ALTERNATIVES + 1)
    others = [int(at) for at in near if at != column]
    # Where the order decides, whatever else fits would do; else what is nearly as much alike.
    if confidence != "low":
        others = [at for at in others if group.scores[row, at] > score - 2 * MARGIN]
    shown = () if confidence == "high" else tuple(group.candidates[at] for at in others)
    return Match(layer, candidate, confidence, reason, shown[:_ALTERNATIVES], group.by_rank)


def _confidence(group: _Group, row: int, column: int) -> tuple[Confidence, str]:
    layer, candidate = group.layers[row], group.candidates[column]
    score = float(group.scores[row, column])
    of_type = "by name and shape" if candidate.is_named else "by shape"
    words = _words(layer, candidate)
    names = f"names agree in {', '.join(words)}" if words else "names share nothing"
    if len(group.layers) == len(group.candidates) == 1:
        agree = f"; {names}" if words else ""
        if group.is_rest:
            return "low", f"only this is left of several that fit {of_type}{agree}"
        return _confidence_of_the_only(layer, candidate, score), f"only this fits {of_type}{agree}"
    if _agree(layer, candidate) and _is_only_one_to_agree(group, row, column):
        return "high", f"fits {of_type}; {names}"
    return _confidence_of_the_best(group, row, column, words)


def _confidence_of_the_best(
    group: _Group, row: int, column: int, words: Sequence[str]
) -> tuple[Confidence, str]:
    """How sure a pair is that is the best of several."""
    candidate = group.candidates[column]
    score, words_score = float(group.scores[row, column]), group.by_words.score(row, column)
    of_type = "by name and shape" if candidate.is_named else "by shape"
    names = f"names agree in {', '.join(words)}" if words else "names share nothing"
    is_close = score < group.rivals.best(row, column) + MARGIN
    if is_close or not words or group.by_order:
        return "low", f"several fit {of_type}, only their order decides; {names}"
    by_number = words_score < group.by_words.best_rival(row, column) + MARGIN
    if by_number and not numbers_in(group.layers[row].name):
        return "low", f"several fit {of_type}, only their sizes decide; {names}"
    if by_number and not set(words) - KINDS_OF_LAYERS:
        agrees = group.has_same_numbers
        why = "and its numbers agree" if agrees else "only their numbers decide"
        several = f"fits {of_type}" if agrees else f"several fit {of_type}"
        return "medium" if agrees else "low", f"{several}, {why}; {names}"
    if by_number and group.by_rank:
        as_many = len(group.layers) == len(group.candidates)
        level: Confidence = "medium" if as_many and words_score >= _VERY_ALIKE else "low"
        return level, f"fits {of_type}, by its rank, for numbers differ; {names}"
    if score < _SOMEWHAT_ALIKE:
        return "low", f"fits {of_type}, and so do others; {names}"
    sure = ALIKE if candidate.is_named else _VERY_ALIKE
    return "high" if score >= sure else "medium", f"fits {of_type}; {names}"


def _agree(layer: Layer, candidate: Candidate) -> bool:
    """Whether names are the same but for punctuation and what stands in front of one."""
    ours, theirs = spelling_of(layer.name), spelling_of(candidate.name)
    short, long = sorted((ours, theirs), key=len)
    return bool(set(short) - {t for t in short if t.isdecimal()}) and long[-len(short) :] == short


def _is_only_one_to_agree(group: _Group, row: int, column: int) -> bool:
    layers, candidates = group.agreeing
    in_row = candidates.count(group.layers[row].name)
    return in_row == layers.count(group.candidates[column].name) == 1


def _is_another_of_its_kind(layer: Layer, candidate: Candidate) -> bool:
    """Whether names end alike from the name of a list on, but for a number in it.

    What is left over of a stack is no layer of another number. Numbers that are part of a word
    (`norm2`, `batch_normalization_1`) begin where they like.
    """
    if places_in(layer.name) == places_in(candidate.name):
        return False
    sides = tokens_of(layer.name)[::-1], tokens_of(candidate.name)[::-1]
    is_other = False
    for ours, theirs in zip(*sides, strict=False):
        if ours.isdecimal() and theirs.isdecimal():
            is_other = is_other or int(ours) != int(theirs)
        elif ours != theirs:
            return False
        elif is_other:
            return True
    return is_other


def _confidence_of_the_only(layer: Layer, candidate: Candidate, score: float) -> Confidence:
    """How sure it is that two are meant for each other because nothing else fits either."""
    if not _words(layer, candidate):
        return "medium" if _says_much(layer) else "low"
    return "high" if candidate.is_named or score >= _VERY_ALIKE else "medium"


def _words(layer: Layer, candidate: Candidate) -> list[str]:
    """The words that both names have."""
    return shared_words(tokens_of(layer.name), tokens_of(candidate.name))


def _says_much(layer: Layer) -> bool:
    """Whether shapes tell a layer from most others: vectors and tiny tensors are everywhere."""
    return any(
        len(variable.shape) > 1 and min(variable.shape) > 1 and max(variable.shape) > 4
        for _, variable in layer.tensors
    )


def _confirmed(matches: Sequence[Match]) -> list[Match]:
    """Medium matches that many of their kind agree with are sure: the same words, other numbers."""
    kinds: dict[tuple[str, str], list[Match]] = {}
    for match in matches:
        kinds.setdefault((_kind(match.layer.name), _kind(match.candidate.name)), []).append(match)
    agreeing = {
        kind: len(alike) >= _MANY and all(m.confidence in ("high", "medium") for m in alike)
        for kind, alike in kinds.items()
    }
    confirmed = []
    for match in matches:
        agree = agreeing[_kind(match.layer.name), _kind(match.candidate.name)]
        words = set(_words(match.layer, match.candidate)) - KINDS_OF_LAYERS
        agree = agree and not match.by_rank and bool(words)
        if match.confidence == "medium" and agree:
            reason = f"{match.reason}; so do others of the kind"
            confirmed.append(Match(match.layer, match.candidate, "high", reason, ()))
        else:
            confirmed.append(match)
    return confirmed


def _kind(name: str) -> str:
    return re.sub(r"\d+", "#", name)
