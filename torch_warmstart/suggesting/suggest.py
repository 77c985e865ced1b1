"""Names proposed for the variables of a model that find nothing in a checkpoint by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import PlanError, SettingsError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.layouts import IDENTITY, Form
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
from torch_warmstart.model import TABLES, Owner, Shape, Variable, model_variables
from torch_warmstart.names import Finder
from torch_warmstart.planning import by_variable, read_renames, select, written_out
from torch_warmstart.settings import WarmStartSettings, infos_of
from torch_warmstart.suggesting.confidence import Confidence
from torch_warmstart.suggesting.matching import Match, match_layers
from torch_warmstart.suggesting.rules import Move, find_rules
from torch_warmstart.suggesting.stacked import stacked_items
from torch_warmstart.suggesting.suggestions import Suggestion, Suggestions
from torch_warmstart.suggesting.tensors import AvailableTensors, Fit

_MOST = 5_000  # variables of a model for which an error proposes rules


def suggest_for_model(
    model: torch.nn.Module, settings: WarmStartSettings, checkpoint: Checkpoint
) -> Suggestions:
    """Suggestions for what settings select of a model and do not rename.

    Raises PlanError if they select nothing, or not what they should.
    """
    variables = model_variables(model)
    settings = written_out(settings, variables)
    chosen, problems = select(settings, variables)
    if problems:
        raise PlanError("Names cannot be suggested for these settings:", problems)
    # Rules that are wrong are a plan's business.
    every = frozenset(variables)
    renames, _ = read_renames(settings.var_name_to_prev_var_name, variables, every)
    finder = Finder(checkpoint, variables, frozenset(renames))
    free = _free_axes(settings, variables)
    return suggest(finder, variables, frozenset(chosen), frozenset(renames), free)


def with_proposals(
    error: PlanError, model: torch.nn.Module, settings: WarmStartSettings, checkpoint: Checkpoint
) -> PlanError:
    """A plan's error with rules for a file that does not say what its layers are called.

    They cannot be found any other way. A model of very many variables gets none: an error is to
    come at once.
    """
    is_asked = any(problem.code == "layers-without-names" for problem in error.problems)
    if not is_asked or len(model_variables(model)) > _MOST:
        return error
    try:
        lines = suggest_for_model(model, settings, checkpoint).proposals()
    except SettingsError:  # which the plan's error tells
        return error
    if not lines:
        return error
    hint = "\n  ".join(["Rules that suggest_names() proposes; look at each:", *lines])
    problems = [
        replace(problem, hint=hint) if problem.code == "layers-without-names" else problem
        for problem in error.problems
    ]
    return PlanError(str(error).partition("\n")[0], problems)


def _free_axes(
    settings: WarmStartSettings, variables: Sequence[Variable]
) -> dict[Variable, frozenset[int]]:
    """The axes along which a vocabulary may have changed: their sizes are no evidence."""
    setting = "var_name_to_vocab_info"
    entries, _ = by_variable(settings.named_infos, setting, variables, variables)
    free = {v: {info.axis for info in infos_of(entry.value)} for v, entry in entries.items()}
    for variable in variables:
        if any(isinstance(owner.module, TABLES) for owner in variable.owners):
            free.setdefault(variable, set()).add(0)
    return {v: frozenset(axis % len(v.shape) for axis in axes) for v, axes in free.items()}


def suggest(
    finder: Finder,
    variables: Sequence[Variable],
    wanted: Collection[Variable],
    renamed: Collection[Variable],
    free_axes: Mapping[Variable, frozenset[int]],
) -> Suggestions:
    """Suggestions for variables that find nothing.

    Args:
        finder: Of the checkpoint.
        variables: All of the model's; slots follow their variables and are left out.
        wanted: Those that are selected; the others help to recognise their layers.
        renamed: Those that the user has renamed already.
        free_axes: The axes of each along which sizes say nothing.
    """
    model = [variable for variable in variables if variable.slot is None]
    found, lost = _sort_out(finder, model, renamed)
    available = AvailableTensors.of(
        finder.checkpoint, {key for keys in found.values() for key in keys}, free_axes
    )
    matches = match_layers(finder, available, lost, num_found=len(found))
    proposed = {key for match in matches for key in match.candidate.keys}
    named = {variable for match in matches for _, variable in match.layer.tensors}
    nowhere = [variable for variable in lost if variable not in named]
    unsure = {t.spec.shape for t in available.tensors if t.is_stored and t.spec.key not in proposed}
    stacked = stacked_items(finder, available, nowhere, proposed)
    items = [
        stacked.get(variable, item)
        for variable, item in _items(finder, matches, lost, wanted, unsure)
    ]
    rows = {name for item in stacked.values() for name in item.names}
    left = (t.name for t in available.tensors if {t.spec.key, t.name}.isdisjoint(proposed | rows))
    moves = list(_moves(matches, available.separator))
    free = [variable for variable in model if variable not in renamed]
    return Suggestions(
        items=tuple(items),
        rules=tuple(find_rules(finder, free, found, moves, items)),
        unused=tuple(left),
        url=finder.checkpoint.url,
        num_found=sum(variable in wanted for variable in model) - len(items),
    )


def _sort_out(
    finder: Finder, variables: Sequence[Variable], renamed: Collection[Variable]
) -> tuple[dict[Variable, tuple[str, ...]], list[Variable]]:
    """The keys of each variable that is found, and the variables that are not."""
    found: dict[Variable, tuple[str, ...]] = {}
    lost = []
    for variable in variables:
        owner = variable.owners[0]
        if variable in renamed or is_uncounted_in_tf(owner.module, owner.leaf):
            continue
        try:
            source = finder.find(variable)
        except SettingsError:  # several answer: all of them may be meant
            source = None
        if source is None:
            lost.append(variable)
        else:
            found[variable] = tuple(spec.key for spec in source.specs)
    return found, lost


def _moves(matches: Sequence[Match], separator: str) -> Iterator[Move]:
    for match in matches:
        if match.candidate.path is not None:
            yield Move(match.layer.name, match.candidate.path.replace(separator, "/"))


def _items(
    finder: Finder,
    matches: Sequence[Match],
    lost: Sequence[Variable],
    wanted: Collection[Variable],
    unsure: Collection[Shape],
) -> Iterator[tuple[Variable, Suggestion]]:
    """Each variable that is wanted with what is suggested for it, in the model's order.

    `unsure` are the shapes of tensors that are left, and of which only where they lie is known.
    """
    proposed: Mapping[Variable, tuple[Match, int, Owner]] = {
        variable: (match, at, owner)
        for match in matches
        for at, (owner, variable) in enumerate(match.layer.tensors)
    }
    for variable in lost:
        if variable not in wanted:
            continue
        if variable not in proposed:
            why = _why_nothing(finder, variable)
            if variable.shape in unsure:
                why = "the file does not say which of a layer's tensors is which"
            yield variable, Suggestion(variable.name, (), "none", why)
            continue
        match, at, owner = proposed[variable]
        fit = match.candidate.fits[at]
        rivals = (candidate.fits[at].names for candidate in match.alternatives)
        others = tuple(names for names in dict.fromkeys(rivals) if names != fit.names)
        layout = _layout_to_name(finder.forms(owner), fit)
        is_resized = fit.shape != variable.shape
        spec = fit.tensors[0].spec
        is_open = len(fit.tensors) == 1 and finder.is_open(owner, fit.form, spec)
        is_table = isinstance(owner.module, TABLES)
        remarks = [
            match.candidate.remark,
            _said_of(layout),
            "of another size, so a VocabInfo must say which row is which" if is_resized else "",
            _EITHER_WAY.format("entries" if is_table else "outputs") if is_open else "",
        ]
        reason = "; ".join(filter(None, [match.reason, *remarks]))
        confidence: Confidence = "low" if is_open else match.confidence
        yield (
            variable,
            Suggestion(owner.name, fit.names, confidence, reason, others, layout),
        )


_EITHER_WAY = "square, so it may have its {} first or last, which nobody says"


def _said_of(layout: str | None) -> str:
    if layout is None:
        return ""
    if layout == IDENTITY.name:
        return "not transposed, by its shape"
    return f"as {layout}, by its shape"


def _why_nothing(finder: Finder, variable: Variable) -> str:
    """Why nothing is proposed: a part of a cell has no shape of its own in TensorFlow."""
    forms = [f for f in finder.forms(variable.owners[0]) if f.refusal is None]
    if forms and all(len(form.names) > 1 or not form.names[0] for form in forms):
        return "no layer is left whose tensors make it"
    return "nothing of its shape is left"


def _layout_to_name(forms: Sequence[Form], fit: Fit) -> str | None:
    """The layout that must be named because the module's own is another one."""
    usual = [form for form in forms if form.refusal is None]
    if any(form.layout.name == fit.form.layout.name for form in usual):
        return None
    return fit.form.layout.name
