"""Names proposed for the variables of a model that find nothing in a checkpoint by themselves.

Layers are matched, not single tensors: a kernel goes where its bias goes. In rounds, each with what
the ones before left over:

    1.  layers whose tensors have names that TensorFlow gives to a layer of that type, and shapes
        that fit under its layout
    2.  layers beside which the shapes alone fit, one to one
    3.  single tensors of a shape that fits

Within a round the pairs whose names are most alike are taken first; between pairs that are equally
alike the order of the layers decides, and the suggestion says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from torch_warmstart.catalog import Catalog, Fit, Tensor, fits_shape, natural
from torch_warmstart.errors import PlanError, SettingsError
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.layouts import IDENTITY, Form
from torch_warmstart.names import Finder
from torch_warmstart.renames import file_renames
from torch_warmstart.selection import select, spread_over_modules
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.similarity import KINDS_OF_LAYERS, Scores, alikeness, shared_words, tokens_of
from torch_warmstart.suggestions import Confidence, Suggestion, Suggestions
from torch_warmstart.systematic import Move, find_rules
from torch_warmstart.tf_layers import is_uncounted_in_tf, tf_forms
from torch_warmstart.variables import Owner, Variable, model_variables

_MARGIN = 0.02  # of alikeness; what is nearer to each other is as good
_ALIKE, _SOMEWHAT_ALIKE = 0.45, 0.2
_CANDIDATES = 24  # looked at for each layer at first
_ALTERNATIVES = 4  # shown
_ORDER = 1e-3  # how much the order counts: less than any difference between names
_MANY = 3  # layers of one kind that agree

_TF_LEAVES = {
    "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "embeddings",
    "recurrent_kernel",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Tensors of one torch module, of which nothing is found; or a single one."""

    name: str  # what is compared with names of the checkpoint
    tensors: tuple[tuple[Owner, Variable], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a layer could be in the checkpoint."""

    name: str  # what is compared with names of the model
    fits: tuple[Fit, ...]  # one a tensor of the layer
    path: str | None = None  # of the layer, if its tensors are called as TensorFlow calls them

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(tensor.spec.key for fit in self.fits for tensor in fit.tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A layer and where it is proposed to be."""

    layer: Layer
    place: Place
    confidence: Confidence
    reason: str
    alternatives: tuple[Place, ...]
    by_rank: bool = False  # whether numbers of layers were taken for ranks


PlacesOf = Callable[[Layer], list[Place]]


def suggest_for_model(
    model: torch.nn.Module, settings: WarmStartSettings, checkpoint: Checkpoint
) -> Suggestions:
    """Suggestions for what settings select of a model and do not rename.

    Raises PlanError if they select nothing, or not what they should.
    """
    variables = model_variables(model)
    settings = spread_over_modules(settings, variables)
    chosen, problems = select(settings, variables)
    if problems:
        raise PlanError("Names cannot be suggested for these settings:", problems)
    # Rules that are wrong are a plan's business.
    renames, _ = file_renames(
        settings.var_name_to_prev_var_name, variables, {id(variable) for variable in variables}
    )
    return suggest(Finder(checkpoint, variables), variables, {id(v) for v in chosen}, set(renames))


def suggest(
    finder: Finder, variables: Sequence[Variable], wanted: set[int], renamed: set[int]
) -> Suggestions:
    """Suggestions for variables that find nothing.

    Args:
        finder: Of the checkpoint.
        variables: All of the model's; slots follow their variables and are left out.
        wanted: Ids of those that are selected; the others help to recognise their layers.
        renamed: Ids of those that the user has renamed already.
    """
    model = [variable for variable in variables if variable.slot is None]
    found, lost = _sort_out(finder, model, renamed)
    catalog = Catalog.of(finder.checkpoint, {key for keys in found.values() for key in keys})
    matches = _match(finder, catalog, lost)
    items = _items(finder, matches, lost, wanted)
    proposed = {key for match in matches for key in match.place.keys}
    left = (t.name for t in catalog.tensors if t.spec.key not in proposed)
    moves = list(_moves(matches, catalog.separator))
    free = [variable for variable in model if id(variable) not in renamed]
    return Suggestions(
        items=tuple(items),
        rules=tuple(find_rules(finder, free, found, moves, items)),
        unused=tuple(left),
        url=finder.checkpoint.url,
        num_found=sum(id(variable) in wanted for variable in model) - len(items),
    )


def _sort_out(
    finder: Finder, variables: Sequence[Variable], renamed: set[int]
) -> tuple[dict[int, tuple[str, ...]], list[Variable]]:
    """The keys of what is found, by id of the variable, and the variables that are not."""
    found: dict[int, tuple[str, ...]] = {}
    lost = []
    for variable in variables:
        owner = variable.owners[0]
        if id(variable) in renamed or is_uncounted_in_tf(owner.module, owner.leaf):
            continue
        try:
            source = finder.find(variable)
        except SettingsError:  # several answer: they are all candidates
            source = None
        if source is None:
            lost.append(variable)
        else:
            found[id(variable)] = tuple(spec.key for spec in source.specs)
    return found, lost


def _match(finder: Finder, catalog: Catalog, lost: Sequence[Variable]) -> list[Match]:
    """The matches of all rounds, each layer once."""
    matches: list[Match] = []
    claimed: set[str] = set()
    left = _layers(lost)
    for places_of in (_named_places(finder, catalog), _shaped_places(finder, catalog)):
        matched = _round(left, places_of, claimed)
        matches += matched
        done = {id(match.layer) for match in matched}
        left = [layer for layer in left if id(layer) not in done]
    singles = [
        Layer(owner.name, ((owner, variable),))
        for layer in left
        for owner, variable in layer.tensors
    ]
    return matches + _round(singles, _single_places(finder, catalog), claimed)


def _layers(variables: Sequence[Variable]) -> list[Layer]:
    layers: dict[str, list[tuple[Owner, Variable]]] = {}
    for variable in variables:
        owner = variable.owners[0]
        layers.setdefault(owner.path, []).append((owner, variable))
    return [Layer(path, tuple(tensors)) for path, tensors in layers.items()]


# -- where a layer could be ------------------------------------------------------------------------


def _named_places(finder: Finder, catalog: Catalog) -> PlacesOf:
    """Layers whose tensors have the names that they have in a layer of that type."""
    known: dict[object, list[Place]] = {}

    def places_of(layer: Layer) -> list[Place]:
        key = _signature(finder, layer)
        if key not in known:
            fits = [
                catalog.fits(_forms(finder, owner), variable.shape)
                for owner, variable in layer.tensors
            ]
            common = [base for base in fits[0] if all(base in fit for fit in fits)]
            common.sort(key=natural)
            places = [Place(base, tuple(fit[base] for fit in fits), base) for base in common]
            known[key] = _each_once(filter(_is_of_different_tensors, places))
        return known[key]

    return places_of


def _shaped_places(finder: Finder, catalog: Catalog) -> PlacesOf:
    """Groups of as many tensors as the layer has, of shapes that fit in one way only."""
    known: dict[object, list[Place]] = {}

    def places_of(layer: Layer) -> list[Place]:
        if len(layer.tensors) == 1:
            return []
        key = _signature(finder, layer)
        if key not in known:
            known[key] = [
                Place(parent, fits)
                for parent, tensors in catalog.by_parent.items()
                if len(tensors) == len(layer.tensors)
                and (fits := _only_way(finder, layer, tensors)) is not None
            ]
        return known[key]

    return places_of


def _only_way(finder: Finder, layer: Layer, tensors: Sequence[Tensor]) -> tuple[Fit, ...] | None:
    """The tensors in the order of the layer's, if their shapes leave no choice."""
    fits = []
    for owner, variable in layer.tensors:
        fitting = [f for t in tensors if (f := _fit_alone(finder, owner, variable, t)) is not None]
        if len(fitting) != 1:
            return None
        fits += fitting
    place = Place("", tuple(fits))
    return place.fits if _is_of_different_tensors(place) else None


def _single_places(finder: Finder, catalog: Catalog) -> PlacesOf:
    """Tensors that fit alone, whatever their names, unless those are for something else."""
    known: dict[object, list[Place]] = {}

    def places_of(layer: Layer) -> list[Place]:
        ((owner, variable),) = layer.tensors
        key = _signature(finder, layer)
        if key not in known:
            own = {n for form in _forms(finder, owner) for names in form.names for n in names}
            known[key] = [
                Place(tensor.name, (fit,))
                for tensor in catalog.tensors
                if tensor.leaf not in _TF_LEAVES - own
                and (fit := _fit_alone(finder, owner, variable, tensor)) is not None
            ]
        return known[key]

    return places_of


def _fit_alone(finder: Finder, owner: Owner, variable: Variable, tensor: Tensor) -> Fit | None:
    """A tensor as a variable: laid out as its module's, or if only that fits, as it is."""
    forms = [f for f in _forms(finder, owner) if f.refusal is None and len(f.names) == 1]
    if len(variable.shape) > 1 or not forms:
        forms.append(Form(((owner.leaf,),), IDENTITY))
    for form in forms:
        if fits_shape(form, [tensor.spec], variable.shape):
            return Fit((tensor,), form)
    return None


def _each_once(places: Iterable[Place]) -> list[Place]:
    """Without second paths to the same tensors: a cell is a layer's, and one by itself."""
    found: dict[frozenset[str], Place] = {}
    for place in places:
        found.setdefault(place.keys, place)
    return list(found.values())


def _is_of_different_tensors(place: Place) -> bool:
    """Whether no tensor is used for two that torch keeps apart, except as parts of a layout."""
    used = [(frozenset(fit.names), fit.form.part) for fit in place.fits]
    return len(set(used)) == len(used)


def _forms(finder: Finder, owner: Owner) -> tuple[Form, ...]:
    if finder.checkpoint.family == "torch":
        return (Form(((owner.leaf,),)),)
    return tf_forms(owner.module, owner.leaf)


def _signature(finder: Finder, layer: Layer) -> object:
    """Equal for layers that fit the same places."""
    return tuple(
        (
            owner.leaf,
            variable.shape,
            tuple((f.names, f.layout.name, f.part, f.refusal) for f in _forms(finder, owner)),
        )
        for owner, variable in layer.tensors
    )


# -- which of them ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """Layers that fit the same places, and how alike the names of each pair are."""

    layers: list[Layer]
    places: list[Place]
    scores: Scores = field(init=False)  # [layers, places]
    by_words: Scores = field(init=False)  # the same without numbers
    by_rank: bool = field(init=False)  # whether numbers are compared by their rank

    def __post_init__(self) -> None:
        ours = [tokens_of(layer.name) for layer in self.layers]
        theirs = [tokens_of(place.name) for place in _with_first_numbers(self.places)]
        numbers = [
            {t for tokens in side for t in tokens if t.isdecimal()} for side in (ours, theirs)
        ]
        self.by_rank = not {int(n) for n in numbers[0]} <= {int(n) for n in numbers[1]}
        if self.by_rank:
            ours, theirs = _ranked(ours), _ranked(theirs)
        self.scores = alikeness(ours, theirs)
        self.by_words = alikeness(_without_numbers(ours), _without_numbers(theirs))

    def with_order(self) -> Scores:
        """The scores with a little for pairs that are at the same place in their order."""
        rows, columns = (np.arange(n, dtype=np.float32) for n in self.scores.shape)
        same: Scores = 1 - np.abs(rows[:, None] - columns[None, :]) / max(self.scores.shape)
        scores: Scores = self.scores + _ORDER * same
        return scores


def _round(layers: Sequence[Layer], places_of: PlacesOf, claimed: set[str]) -> list[Match]:
    """The best pairs first, until no layer has a place left; their keys are claimed."""
    groups: dict[int, tuple[list[Layer], list[Place]]] = {}
    for layer in layers:
        places = places_of(layer)
        groups.setdefault(id(places), ([], places))[0].append(layer)
    scored = []
    for members, places in groups.values():
        free = [place for place in places if not place.keys & claimed]
        if free:
            scored.append(_Group(members, free))
    chosen: list[tuple[_Group, int, int]] = []
    done: set[int] = set()
    for group, row, column in _best_first(scored):
        layer, place = group.layers[row], group.places[column]
        if id(layer) not in done and not place.keys & claimed:
            done.add(id(layer))
            claimed |= place.keys
            chosen.append((group, row, column))
    return _confirmed([_judge(*pair) for pair in chosen])


def _best_first(groups: Sequence[_Group]) -> Iterator[tuple[_Group, int, int]]:
    """Pairs by their score: first the likeliest of each layer, then whatever else there is."""
    likeliest, others = [], []
    for group in groups:
        scores = group.with_order()
        ranked = np.argsort(-scores, axis=1, kind="stable")
        few = ranked[:, :_CANDIDATES]
        for row in range(len(group.layers)):
            likeliest += [(float(scores[row, at]), group, row, int(at)) for at in few[row]]
        others.append((group, ranked[:, _CANDIDATES:]))
    likeliest.sort(key=lambda pair: -pair[0])
    for _, group, row, column in likeliest:
        yield group, row, column
    for group, rest in others:
        for row in range(len(group.layers)):
            yield from ((group, row, int(at)) for at in rest[row])


def _judge(group: _Group, row: int, column: int) -> Match:
    """How sure a pair is, and what would do as well."""
    layer, place = group.layers[row], group.places[column]
    confidence, reason = _confidence(group, row, column)
    score = float(group.scores[row, column])
    near = np.argsort(-group.scores[row], kind="stable")[: _ALTERNATIVES + 1]
    others = [int(at) for at in near if at != column]
    # Where the order decides, whatever else fits would do; else what is nearly as much alike.
    if confidence != "low":
        others = [at for at in others if group.scores[row, at] > score - 2 * _MARGIN]
    shown = () if confidence == "high" else tuple(group.places[at] for at in others)
    return Match(layer, place, confidence, reason, shown[:_ALTERNATIVES], group.by_rank)


def _confidence(group: _Group, row: int, column: int) -> tuple[Confidence, str]:
    layer, place = group.layers[row], group.places[column]
    score, words_score = float(group.scores[row, column]), float(group.by_words[row, column])
    of_type = "by name and shape" if place.path is not None else "by shape"
    words = shared_words(tokens_of(layer.name), tokens_of(place.name))
    names = f"names agree in {', '.join(words)}" if words else "names share nothing"
    if len(group.layers) == len(group.places) == 1:
        agree = f"; {names}" if words else ""
        return _confidence_of_the_only(layer, place, score), f"only this fits {of_type}{agree}"
    if score < _best_rival(group.scores, row, column) + _MARGIN or not words:
        return "low", f"several fit {of_type}, only their order decides; {names}"
    by_number = words_score < _best_rival(group.by_words, row, column) + _MARGIN
    if by_number and not set(words) - KINDS_OF_LAYERS:
        return "low", f"several fit {of_type}, only their numbers decide; {names}"
    if by_number and group.by_rank:
        as_many = len(group.layers) == len(group.places)
        level: Confidence = "medium" if as_many and words_score >= 1.5 * _ALIKE else "low"
        return level, f"fits {of_type}, by its rank, for numbers differ; {names}"
    if score < _SOMEWHAT_ALIKE:
        return "low", f"fits {of_type}, and so do others; {names}"
    sure = _ALIKE if place.path is not None else 1.5 * _ALIKE
    return "high" if score >= sure else "medium", f"fits {of_type}; {names}"


def _best_rival(scores: Scores, row: int, column: int) -> float:
    """The highest score of another pair of the same layer, or of the same place."""
    in_row, in_column = np.delete(scores[row], column), np.delete(scores[:, column], row)
    return max(float(in_row.max(initial=-1)), float(in_column.max(initial=-1)))


def _confidence_of_the_only(layer: Layer, place: Place, score: float) -> Confidence:
    """How sure it is that two are meant for each other because nothing else fits either."""
    tells = _says_much(layer) or bool(shared_words(tokens_of(layer.name), tokens_of(place.name)))
    if not tells:
        return "low"
    return "high" if place.path is not None or score >= 1.5 * _ALIKE else "medium"


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
        kinds.setdefault((_kind(match.layer.name), _kind(match.place.name)), []).append(match)
    confirmed = []
    for match in matches:
        alike = kinds[_kind(match.layer.name), _kind(match.place.name)]
        agree = len(alike) >= _MANY and all(m.confidence in ("high", "medium") for m in alike)
        if match.confidence == "medium" and agree and not match.by_rank:
            reason = f"{match.reason}; so do others of the kind"
            confirmed.append(Match(match.layer, match.place, "high", reason, ()))
        else:
            confirmed.append(match)
    return confirmed


def _kind(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _without_numbers(names: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[token for token in tokens if not token.isdecimal()] for tokens in names]


def _with_first_numbers(places: Sequence[Place]) -> list[Place]:
    """Places with the number that Keras leaves out for the first: `dense` beside `dense_1`."""
    numbered = {re.sub(r"_\d+$", "", p.name) for p in places if re.search(r"_\d+$", p.name)}
    return [Place(f"{p.name}_0", p.fits, p.path) if p.name in numbered else p for p in places]


def _ranked(names: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Names with each number as its rank among those at that place in names that begin alike."""
    seen: dict[tuple[str, ...], set[int]] = {}
    for tokens in names:
        for at, token in enumerate(tokens):
            if token.isdecimal():
                seen.setdefault(tuple(tokens[:at]), set()).add(int(token))
    ranks = {begin: {n: k for k, n in enumerate(sorted(found))} for begin, found in seen.items()}
    return [
        tuple(
            str(ranks[tuple(tokens[:at])][int(token)]) if token.isdecimal() else token
            for at, token in enumerate(tokens)
        )
        for tokens in names
    ]


# -- what comes of it ------------------------------------------------------------------------------


def _moves(matches: Sequence[Match], separator: str) -> Iterator[Move]:
    for match in matches:
        if match.place.path is not None:
            owned = {owner.name: owner.leaf for owner, _ in match.layer.tensors}
            yield Move(match.layer.name, match.place.path.replace(separator, "/"), owned)


def _items(
    finder: Finder, matches: Sequence[Match], lost: Sequence[Variable], wanted: set[int]
) -> list[Suggestion]:
    """A suggestion for each variable that is wanted, in the model's order."""
    proposed: Mapping[int, tuple[Match, int, Owner]] = {
        id(variable): (match, at, owner)
        for match in matches
        for at, (owner, variable) in enumerate(match.layer.tensors)
    }
    items = []
    for variable in lost:
        if id(variable) not in wanted:
            continue
        if id(variable) not in proposed:
            items.append(Suggestion(variable.name, (), "none", "nothing of its shape is left"))
            continue
        match, at, owner = proposed[id(variable)]
        fit = match.place.fits[at]
        others = tuple(place.fits[at].names for place in match.alternatives)
        layout = _layout_to_name(_forms(finder, owner), fit)
        reason = match.reason + ("; not transposed, by its shape" if layout else "")
        items.append(Suggestion(owner.name, fit.names, match.confidence, reason, others, layout))
    return items


def _layout_to_name(forms: Sequence[Form], fit: Fit) -> str | None:
    """The layout that must be named because the module's own is another one."""
    usual = [form for form in forms if form.refusal is None]
    if any(form.layout is fit.form.layout for form in usual) or fit.form.layout is not IDENTITY:
        return None
    return IDENTITY.name
