"""Layers that a torch checkpoint keeps in another form than their weights: quantised, or adapted.

By the names of what stands for a weight, or lies beside it. A weight of which that is so is never
taken as if it were whole: its numbers want scales, or an adapter that was trained is added to them.
What a variable of the model is made of is no mark: then the model keeps the layer in the same form.
"""

from __future__ import annotations

import bisect
import fnmatch
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import Finding, Severity, and_others
from torch_warmstart.formats import Checkpoint
from torch_warmstart.layouts import IDENTITY, original_of
from torch_warmstart.model import ADAPTED, Variable
from torch_warmstart.names import Source
from torch_warmstart.planning.checks.adapters import ADAPTERS
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.wishes import Wishes
from torch_warmstart.values import frozen


@frozen
class _Form:
    """A way to keep a weight, and what tells it.

    `ends` are what may follow the weight's own name, `marks` names in the layer's folder; with `*`
    for any run of characters. Those of `narrow` tell it only of numbers of one byte, as scales are
    also called so where nothing is quantised.
    """

    code: str
    ends: tuple[str, ...]
    marks: tuple[str, ...]
    narrow: tuple[str, ...]
    what: str
    advice: str


_FORMS = (
    _Form(
        "weight-quantised",
        (
            *("_scale_inv", "_scale", "_scale_2", "_zero_point", "_packed", "_blocks", "_scales"),
            *("_format", "_global_scale", ".absmax", ".quant_map", ".nested_*", ".quant_state*"),
            *("._data", "._scale", "._shift"),
        ),
        ("SCB", "qweight", "qzeros", "W_q"),
        ("scale", "scales", "*_scale", "*scale_inv", "zero_point", "*zeros"),
        "is quantised in the checkpoint: its numbers are not the weight without their scales",
        "Save it dequantised, with the library that quantised it (transformers: "
        "model.dequantize()).",
    ),
    _Form(
        "weight-adapted",
        (),
        ("*lora_*", "adapter_*", *(f"{word}_*" for word in ADAPTERS)),
        (),
        "has an adapter beside it in the checkpoint, which is added to it or multiplied with it",
        "Merge it where it was trained (peft: model.merge_and_unload(); loralib: model.eval() "
        "before it is saved) and save that.",
    ),
    _Form(
        "weight-replaced",
        (),
        ("modules_to_save.*",),
        (),
        "was trained anew in the checkpoint, beside the original",
        "Name the trained one: var_name_to_prev_var_name.",
    ),
)
# What torch.nn.utils.parametrize computes a weight from, if the model computes none from it.
_COMPUTED = _Form(
    "weight-parametrized",
    (),
    (),
    (),
    "is computed in the checkpoint from what is kept there, and the file does not say how",
    "Save the weight itself, where it was trained "
    "(torch.nn.utils.parametrize.remove_parametrizations).",
)
_ORIGINAL_OF = re.compile(r"(?:^|[./])parametrizations[./]\w+[./]original$")
_SCALES = re.compile(r"scale|amax|dequant|_extra_state$", re.IGNORECASE)
# What modules call the scales of a weight, by its name; those of inputs are not among them.
_SCALES_OF = r"scales?|scale_inv|scale_{0}|{0}_(scales?|scale_inv|zero_points?)"
_HINT = (
    "A weight that the checkpoint keeps in another form: to take the numbers as they are all the "
    "same, say so by its layout, var_name_to_layout={...: 'identity'}."
)
# Folders that peft puts around what it adapts, or replaces.
_ORIGINAL = "original_module"
_AROUND = (ADAPTED, _ORIGINAL)


@frozen
class _Told:
    """A variable that the file has in another form."""

    variable: Variable
    form: _Form
    mark: str  # a key that tells it
    is_found: bool  # there are numbers that could be taken as they are


def find_altered(
    wishes: Wishes, decisions: Mapping[Variable, Decision], located: Located
) -> tuple[frozenset[Variable], list[Finding]]:
    """The variables whose weights are kept in another form, and what to say of them, once a form.

    An error where one would be taken, or is asked for and not found; a warning where it stays as it
    is. What has a layout of the user's is the user's word.
    """
    findings = [*_scales_kept(wishes, decisions)]
    if located.finder.conventions.has_own_layers:
        return frozenset(), findings
    found = list(_tell(wishes, decisions, located))
    for form in (*_FORMS, _COMPUTED):
        told = [each for each in found if each.form is form]
        bad = [each for each in told if _is_wrong(decisions[each.variable])]
        if bad:
            findings.append(_finding(bad, "error"))
        elif told:
            findings.append(_finding(told, "warning"))
    if not any(each.form.code == "weight-quantised" for each in found):
        findings += _scales_elsewhere(wishes, decisions, located)
    return frozenset(each.variable for each in found), findings


def _scales_kept(wishes: Wishes, decisions: Mapping[Variable, Decision]) -> Iterator[Finding]:
    """Numbers of one byte that are taken for a module which keeps its own scales for them."""
    taken = [v for v, decision in decisions.items() if v.slot is None and _is_taken(decision)]
    narrow = [v for v in taken if v.tensor.dtype.itemsize == 1 and v.tensor.dtype != torch.bool]
    narrow = [v for v in narrow if v.tensor.numel() > 1]  # one is a switch, FakeQuantize's
    if not narrow:
        return
    written = {(id(owner.module), owner.leaf) for v in taken for owner in v.owners}
    told: list[tuple[Variable, str]] = []
    for variable in narrow:
        module, leaf = variable.owners[0].module, variable.owners[0].leaf
        is_scale = re.compile(_SCALES_OF.format(re.escape(leaf))).fullmatch
        own = filter(is_scale, (*module._parameters, *module._buffers))
        kept = [name for name in own if (id(module), name) not in written]
        if kept and wishes[variable].layout is None:
            told.append((variable, kept[0]))
    if told:
        first, scale = told[0]
        text = (
            f"{first.name}{and_others(len(told))} is {dtype_name(first.tensor.dtype)} in the "
            f"model, whose module has {scale!r}, too, and that stays as it is: if it scales the "
            "numbers, the weight is another one. Take both from a checkpoint that has both, or "
            "quantise the model behind the warm start."
        )
        hint = f"To take the numbers alone: var_name_to_layout={{{first.name!r}: 'identity'}}."
        yield Finding("weight-quantised", "warning", first.name, text, hint)


def _scales_elsewhere(
    wishes: Wishes, decisions: Mapping[Variable, Decision], located: Located
) -> Iterator[Finding]:
    """Floating numbers of one byte that are taken, where the file has scales that nobody uses."""
    narrow: list[tuple[Variable, str]] = []
    for variable, decision in decisions.items():
        source = located.source(variable) if variable.slot is None else None
        if source is None or not _is_taken(decision) or wishes[variable].layout is not None:
            continue
        dtype = source.specs[0].dtype
        if dtype is not None and dtype.is_floating_point and dtype.itemsize == 1:
            narrow.append((variable, dtype_name(dtype)))
    if not narrow:
        return
    checkpoint = located.finder.checkpoint
    left = [k for k in (*checkpoint, *checkpoint.extra_states()) if k not in located.used]
    scales = [key for key in left if _SCALES.search(key)]
    if scales:
        first, name = narrow[0]
        text = (
            f"{first.name}{and_others(len(narrow))} is {name} in the checkpoint, which has "
            f"{scales[0]!r}, too, and nothing is made of that: if it scales the numbers, they are "
            "not the weight. Save it dequantised, with the library that quantised it."
        )
        yield Finding("weight-quantised", "warning", first.name, text, _HINT)


def _is_taken(decision: Decision) -> bool:
    return decision.problem is None and decision.item.state != "kept"


def _is_wrong(decision: Decision) -> bool:
    return decision.problem is not None or decision.item.state != "kept"


def _tell(
    wishes: Wishes, decisions: Mapping[Variable, Decision], located: Located
) -> Iterator[_Told]:
    checkpoint = located.finder.checkpoint
    folders = _Folders(checkpoint, located.unused)
    for variable, decision in decisions.items():
        if variable.slot is not None or (decision.is_open and decision.problem is None):
            continue
        if not wishes[variable].is_selected or wishes[variable].layout is not None:
            continue
        source = located.source(variable)
        if source is not None:
            keys, is_found = [spec.key for spec in source.specs], True
        else:
            fronts = [front.replace("/", ".") for front in located.finder.conventions.fronts]
            keys = [front + name for front in ("", *fronts) for name in variable.names]
            is_found = False
        told = next((t for key in keys if (t := _mark(folders, key, is_found=is_found))), None)
        if told is None:
            original = _original(folders, keys) if source is None else _computed_here_only(source)
            told = (_COMPUTED, original) if original else None
        if told is not None:
            yield _Told(variable, *told, is_found)


def _computed_here_only(source: Source) -> str:
    """The key of a tensor that the checkpoint computes a weight from, and the model does not."""
    is_whole = source.form.layout is IDENTITY and len(source.specs) == 1
    key = source.specs[0].key
    is_original = is_whole and _ORIGINAL_OF.search(key) is not None
    is_computed_here = original_of(source.owner.module, source.owner.leaf) is not None
    return key if is_original and not is_computed_here else ""


def _original(folders: _Folders, keys: Iterable[str]) -> str:
    """What the checkpoint has for a weight that is not there, and computes it from; or ""."""
    for key in keys:
        folder, dot, leaf = key.rpartition(".")
        original = f"{folder}{dot}parametrizations.{leaf}.original"
        if original in folders:
            return original
    return ""


def _mark(folders: _Folders, key: str, *, is_found: bool) -> tuple[_Form, str] | None:
    """The form that a key is kept in, and a key that tells it."""
    if folders.are_empty:
        return None
    folder, _, leaf = key.rpartition(".")
    parent, _, last = folder.rpartition(".")
    searched = (folder, parent) if last in _AROUND else (folder,)
    is_narrow = is_found and folders.is_narrow(key)
    for form in _FORMS:
        is_whole = form.code == "weight-replaced"  # all of the layer
        if (is_found and last != _ORIGINAL) if is_whole else leaf == "bias":
            continue
        for place in searched:
            keys = folders.marks(place, leaf, form, is_narrow=is_narrow)
            mark = next((each for each in keys if each != key), None)
            if mark is not None:
                return form, mark
    return None


def _finding(told: Sequence[_Told], severity: Severity) -> Finding:
    first, form = told[0], told[0].form
    name = first.variable.name
    text = f"{name}{and_others(len(told))} {form.what}: it has {first.mark!r}. {form.advice}"
    hint = _HINT if any(each.is_found for each in told) else ""
    return Finding(form.code, severity, name, text, hint)


@functools.cache  # of the few that the forms have, for each weight of a model
def _pattern_of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(name) for name in names) or "(?!)")


class _Folders:
    """A checkpoint's keys that no variable is made of, by their folders."""

    def __init__(self, checkpoint: Checkpoint, unused: Iterable[str]) -> None:
        self._checkpoint = checkpoint
        self._sorted = sorted(unused)
        self._known: dict[tuple[str, str, bool], list[str]] = {}

    def __contains__(self, key: str) -> bool:
        at = bisect.bisect_left(self._sorted, key)
        return self._sorted[at : at + 1] == [key]

    @property
    def are_empty(self) -> bool:
        return not self._sorted

    def marks(self, folder: str, leaf: str, form: _Form, *, is_narrow: bool) -> Iterator[str]:
        """The keys that tell of a weight in a folder that it is kept in a form."""
        start = f"{folder}.{leaf}" if folder else leaf
        yield from self._matching(start, form.ends)
        asked = folder, form.code, is_narrow
        if asked not in self._known:
            names = (*form.marks, *(form.narrow if is_narrow else ()))
            self._known[asked] = list(self._matching(f"{folder}." if folder else "", names))
        yield from self._known[asked]

    def _matching(self, start: str, names: tuple[str, ...]) -> Iterator[str]:
        """The keys that begin like this and go on with one of the names, or a folder of one."""
        wanted = _pattern_of(names)
        for at in range(bisect.bisect_left(self._sorted, start), len(self._sorted)):
            key = self._sorted[at]
            if not key.startswith(start):
                return
            rest = key[len(start) :]
            if wanted.match(rest) or wanted.match(rest[:1] + rest[1:].partition(".")[0]):
                yield key

    def is_narrow(self, key: str) -> bool:
        """Whether a tensor's numbers are of one byte, as quantised ones are."""
        dtype = self._checkpoint.spec(key).dtype
        return dtype is not None and dtype.itemsize == 1
