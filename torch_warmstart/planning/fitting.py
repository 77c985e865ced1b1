"""Whether and how tensors of a checkpoint become a variable: layout, shape, dtype, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from torch_warmstart.dtypes import CASTS, cast_is_lossy, is_integer
from torch_warmstart.errors import Finding, SettingsError, UnsupportedError, plural
from torch_warmstart.layouts import (
    IDENTITY,
    Form,
    is_of_a_part,
    is_same_but_ones,
    joined_form,
    original_of,
    shaped,
    squeeze,
    then,
)
from torch_warmstart.layouts.tensorflow import find_form, tf_forms
from torch_warmstart.model import TABLES, Shape, Variable
from torch_warmstart.names import Source, with_layout
from torch_warmstart.planning.plan import Cast
from torch_warmstart.planning.rows import why_not_by_position
from torch_warmstart.settings import (
    AnyVocabInfo,
    ClipOrPad,
    SegmentInfo,
    VocabInfo,
    axis_of_two,
    too_few_found,
)
from torch_warmstart.vocabularies import Remapping

_IS_FOR: dict[type, str] = {
    VocabInfo: "which the vocabulary is for",
    SegmentInfo: "which the features are along",
    ClipOrPad: "which is clipped or padded",
}
_OTHER_WAY_ADVICE = (
    "If a layer's kernel is laid out the other way there ([in, out], as TensorFlow, JAX and GPT-2 "
    "have it), say so: var_name_to_layout={name: 'transpose'}."
)
ON_MISMATCH_ADVICE = (
    "A variable that does not fit: leave it out of vars_to_warm_start, take its rows by position "
    "with a ClipOrPad in var_name_to_vocab_info, or keep what the model has with "
    "on_mismatch='keep'."
)
_NO_ROWS_ADVICE = (
    "A variable that does not fit: leave it out of vars_to_warm_start, or keep what the model has "
    "with on_mismatch='keep'."
)
# What tensors of several layers in one are called.
_FUSED = ("in_proj", "qkv", "c_attn", "query_key_value", "kv_proj", "gate_up", "wqkv", "w_pack")


class ProblemError(Exception):
    """What is wrong with one variable. The planner collects these; users never see one."""

    def __init__(self, code: str, variable: Variable, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.finding: Finding = Finding(code, "error", variable.name, text, hint)


def choose_layout(variable: Variable, source: Source, by_user: str | None) -> Source:
    """The source with the user's layout, if there is one; ProblemError if none works."""
    if by_user is not None:
        try:
            form = find_form(by_user, source.owner.module, source.owner.leaf)
        except SettingsError as error:
            text = f"var_name_to_layout: {variable.name}: {error}"
            raise ProblemError("layout-unknown", variable, text) from error
        if source.form.parts and form.layout.num_tf == 1:  # which is each one's
            parts, shapes = [form] * len(source.specs), [spec.shape for spec in source.specs]
            form = joined_form(source.owner.module, source.owner.leaf, parts, shapes)
        return with_layout(source, _of_a_part(form, source, variable, by_user))
    if source.form.refusal is not None:
        raise _refused(variable, source, source.form.refusal)
    is_number = variable.slot is None and not variable.shape and len(source.specs) == 1
    if is_number and source.specs[0].shape == (1,) and source.form.layout is IDENTITY:
        return with_layout(source, replace(source.form, layout=squeeze(1)))  # as torch takes it
    return source


def _of_a_part(form: Form, source: Source, variable: Variable, by_user: str) -> Form:
    """A user's layout that says which part is meant, with what the layer's own tensors need.

    Each kernel of those that TensorFlow keeps in one is a kernel, [in, out].
    """
    if not is_of_a_part(by_user) or source.form.layout is IDENTITY:
        return form
    for own in tf_forms(source.owner.module, source.owner.leaf):
        whole = then(form.layout, own.layout)
        if own.refusal is None and len(own.names) == 1 and own.layout is not IDENTITY:
            laid_out = replace(form, layout=whole)
            if with_layout(source, laid_out).shape == variable.shape:
                return laid_out
    return form


def shape_in_torch(variable: Variable, source: Source) -> Shape:
    """The shape of what the source becomes; ProblemError if it cannot, or its rank is another."""
    try:
        shape = source.shape
    except UnsupportedError as error:
        raise _refused(variable, source, str(error)) from error
    if shape is None or len(shape) != len(variable.shape):
        raise _mismatch(variable, source, shape)
    return shape


def check_shape(variable: Variable, source: Source) -> None:
    """Raises ProblemError unless the source has the variable's shape once its layout is changed."""
    shape = shape_in_torch(variable, source)
    if shape != variable.shape:
        raise _mismatch(variable, source, shape)


def choose_cast(variable: Variable, source: Source) -> Cast | None:
    """The change of dtype that is needed, or None; ProblemError if it is not one we make.

    TensorFlow never casts. Floating types are cast to each other, integers to wider ones, and
    whatever counts an optimizer's steps to what the optimizer counts them in.
    """
    new = variable.tensor.dtype
    if variable.slot is not None and not variable.shape and len(source.specs) > 1:
        old = _dtypes(variable, source)[0]  # a number that is worked out, not copied
        return None if old == new else Cast(old, new, lossy=False)
    old = _common_dtype(variable, source)
    if old == new:
        return None
    is_lossy = cast_is_lossy(old, new)
    if is_lossy is not None:
        return Cast(old, new, lossy=is_lossy)
    if variable.slot is not None and not variable.shape and is_integer(old):
        return Cast(old, new, lossy=False)
    raise ProblemError(
        "dtype-mismatch",
        variable,
        f"{variable.name} is {new}, but {keys_of(source)} in the checkpoint is {old}: {CASTS}.",
        _NO_ROWS_ADVICE,
    )


def check_readable(variable: Variable, source: Source) -> None:
    """Raises ProblemError if a tensor cannot be read; such a one may have no shape to compare."""
    for spec in source.specs:
        if spec.unreadable:
            text = f"{variable.name}: {spec.key!r} {spec.unreadable}."
            raise ProblemError("tensor-unreadable", variable, text)


def _dtypes(variable: Variable, source: Source) -> list[torch.dtype]:
    check_readable(variable, source)
    for spec in source.specs:
        if spec.dtype is None:
            raise ProblemError(
                "dtype-mismatch",
                variable,
                f"{variable.name}: {spec.key!r} is of type {spec.stored_dtype}, which no torch "
                "tensor holds.",
                _NO_ROWS_ADVICE,
            )
    return [spec.dtype for spec in source.specs if spec.dtype is not None]


def _common_dtype(variable: Variable, source: Source) -> torch.dtype:
    dtypes = _dtypes(variable, source)
    if len(set(dtypes)) > 1:
        raise ProblemError(
            "dtype-mismatch",
            variable,
            f"{variable.name} is made of {keys_of(source)}, which differ in dtype: "
            f"{' and '.join(str(dtype) for dtype in dtypes)}.",
            _NO_ROWS_ADVICE,
        )
    return dtypes[0]


def vocab_axis(variable: Variable, info: AnyVocabInfo) -> int:
    """The axis that a VocabInfo is for, counted from 0; ProblemError if the variable has none."""
    rank = len(variable.shape)
    if not -rank <= info.axis < rank:
        raise ProblemError(
            "vocab-axis",
            variable,
            f"{variable.name}: its {type(info).__name__} is for axis {info.axis}, but its shape is "
            f"{list(variable.shape)}.",
        )
    return info.axis % rank


def check_other_axes(
    variable: Variable, source: Source, infos: Sequence[AnyVocabInfo], axes: Sequence[int]
) -> list[int]:
    """The old sizes along some axes; ProblemError unless the other sizes are the variable's."""
    old, new = list(shape_in_torch(variable, source)), list(variable.shape)
    others = [axis for axis in range(len(new)) if axis not in axes and old[axis] != new[axis]]
    if others:
        listed = " and ".join(map(str, axes))
        for_them = "of which something is said" if axes[1:] else _IS_FOR[type(infos[0])]
        first = others[0]
        raise ProblemError(
            "shape-mismatch",
            variable,
            f"{variable.name}: apart from {'axis' if len(axes) == 1 else 'axes'} {listed}, "
            f"{for_them}, its shape {new} must equal that of {keys_of(source)}, {old}. If axis "
            f"{first} has changed too, write a list: [..., ClipOrPad(axis={first})].",
        )
    return [old[axis] for axis in axes]


def vocab_axes(variable: Variable, infos: Sequence[AnyVocabInfo]) -> list[int]:
    """The axes that infos are for; ProblemError if there are none, or two are for one."""
    axes = [vocab_axis(variable, info) for info in infos]
    twice = axis_of_two(axes)
    if twice is not None:
        said = " and ".join(str(i.axis) for i, at in zip(infos, axes, strict=True) if at == twice)
        raise ProblemError(
            "vocab-axis",
            variable,
            f"{variable.name}: two of its list are for axis {twice} of its shape "
            f"{list(variable.shape)} (they say {said}); an axis has one.",
        )
    return axes


def check_share_found(variable: Variable, info: AnyVocabInfo, remapping: Remapping) -> None:
    """Raises ProblemError if fewer new entries have an old row than the settings ask for.

    Of a vocabulary with fallbacks that is asked when it is known what they have.
    """
    if isinstance(info, VocabInfo) and not info.fallback:
        found, entries = remapping.num_present, remapping.num_entries
        problem = why_too_few(variable, info, found, entries, remapping)
        if problem is not None:
            raise problem


def why_too_few(
    variable: Variable, info: VocabInfo, found: int, entries: int, remapping: Remapping
) -> ProblemError | None:
    """The problem that fewer new entries have an old row than the settings ask for; or None."""
    have = "are in the old vocabulary" + (", or back from a fallback" if info.fallback else "")
    problem = too_few_found(found, entries, info.min_found, have)
    if not problem:
        return None
    advice = remapping.other_reading or "Is old_vocab the right one?"
    return ProblemError("too-few-found", variable, f"{variable.name}: {problem} {advice}")


def check_new_rows(
    variable: Variable, info: AnyVocabInfo, remapping: Remapping, axis: int, old_size: int
) -> None:
    """Raises ProblemError unless the variable has exactly the rows that its info describes."""
    size, described = variable.shape[axis], len(remapping.rows)
    if size == described:
        return
    if isinstance(info, SegmentInfo):
        raise ProblemError(
            "vocab-size",
            variable,
            f"{variable.name} has size {size:,} along axis {axis}, but new_segments has "
            f"{plural(len(info.new_segments), 'feature')} of together {plural(described, 'column')}"
            ". Is a feature missing, or its width another?",
        )
    fitting = [at for at, length in enumerate(variable.shape) if length == described]
    empty = remapping.num_vacant
    vacant = f", {plural(empty, 'row')} without an entry" if empty else ""
    hint = f" (axis {fitting[0]} has that size)" if fitting else ""
    raise ProblemError(
        "vocab-size",
        variable,
        f"{variable.name} has size {size:,} along axis {axis}, but its VocabInfo describes "
        f"{described:,}{hint}: {described - remapping.num_oov - remapping.num_vacant:,} new "
        f"entries{vacant} and {plural(remapping.num_oov, 'OOV row')}."
        f"{_other_rows(remapping, size, old_size)}",
    )


def _is_header(remapping: Remapping) -> str:
    """That a line too many may be none of the entries."""
    if not remapping.header:
        return ""
    return f" {remapping.header}: pass the entries behind it as a sequence."


def _other_rows(remapping: Remapping, size: int, old_size: int) -> str:
    """Why a variable may have other rows than are described."""
    if len(remapping.rows) == old_size and size - remapping.num_old in (0, remapping.num_oov):
        return " It is the old variable that has so many: are new_vocab and old_vocab swapped?"
    if size <= len(remapping.rows):
        return _is_header(remapping)
    if remapping.is_padded:
        return f" If the further rows are padding, write new_vocab_size={size}."
    if remapping.num_oov:  # they stand behind what is padded
        return ""
    return (
        f" If the further rows are padding behind the others, pass Vocabulary.load(...).padded_to("
        f"{size}); if they stand in front (a mask, OOV rows), pass the layer that has them, or put "
        "them in front of new_vocab."
    )


def check_old_rows(
    variable: Variable, source: Source, remapping: Remapping, axis: int, old_size: int
) -> None:
    """Raises ProblemError unless the old tensor has the rows that the old vocabulary stands for."""
    copied = remapping.num_oov_copied
    if remapping.leaves_oov_unclear(old_size):
        raise ProblemError(
            "oov-rows-unclear",
            variable,
            f"{variable.name}: {plural(remapping.num_old - copied, 'old entry')} "
            f"and {plural(copied, 'old OOV row')} make {plural(remapping.old_rows, 'row')}, but "
            f"{keys_of(source)} has {old_size:,} along axis {axis}: where its OOV rows are is "
            "unclear.",
        )
    if remapping.reach(old_size) == "too long":
        raise ProblemError(
            "old-vocab-too-long",
            variable,
            f"{variable.name}: the old vocabulary's entries reach to row "
            f"{remapping.old_rows - 1:,}, but {keys_of(source)} has only {plural(old_size, 'row')} "
            f"along axis {axis}. Is old_vocab the vocabulary it was trained with, and "
            f"old_vocab_size right?{_is_header(remapping)}",
        )


def check_parts(variable: Variable, info: AnyVocabInfo, axis: int, old_size: int) -> None:
    """Raises ProblemError where rows by position would be those of another gate or group."""
    if isinstance(info, ClipOrPad) and old_size != variable.shape[axis]:
        why = why_not_by_position(variable, axis, old_size)
        if why:
            raise ProblemError("rows-of-parts", variable, why)


def keys_of(source: Source) -> str:
    """The keys of a source, for messages."""
    return " and ".join(repr(spec.key) for spec in source.specs)


def _refused(variable: Variable, source: Source, reason: str) -> ProblemError:
    layout = source.form.layout
    if layout is not IDENTITY:
        nevertheless = "if it is right nevertheless, say so by the layout that it would have"
    else:
        nevertheless = "if the checkpoint has it as torch does, say so"
    advice = "Leave it out of vars_to_warm_start."
    if variable.slot is not None:  # which a pattern does not leave out
        advice = "on_mismatch='keep' leaves the state of its parameter as it is."
    if _can_be_named(source) and (layout is not IDENTITY or len(source.specs) == 1):
        advice = (
            f"Leave it out of vars_to_warm_start, or {nevertheless}: "
            f"var_name_to_layout={{{variable.name!r}: {layout.name!r}}}."
        )
    return ProblemError(
        "layout-refused",
        variable,
        f"{variable.name} cannot be taken from {keys_of(source)}: {reason}. {advice}",
    )


def _can_be_named(source: Source) -> bool:
    """Whether settings can name its layout; that of slots which cannot follow has no name."""
    try:
        find_form(source.form.layout.name, source.owner.module, source.owner.leaf)
    except SettingsError:
        return False
    return True


def _mismatch(variable: Variable, source: Source, in_torch: Shape | None) -> ProblemError:
    """The problem, with advice that fits its cause; what would be wrong if followed is not said."""
    cause = _norm_along(variable, source) or _cause(variable, source)
    text = _shapes_differ(variable, source)
    if not cause and in_torch and len(in_torch) == len(variable.shape):
        differing = [axis for axis, size in enumerate(variable.shape) if size != in_torch[axis]]
        each = (why_not_by_position(variable, axis, in_torch[axis]) for axis in differing)
        cause = next(filter(None, each), "")
    if cause:
        return ProblemError("shape-mismatch", variable, f"{text} {cause}", _NO_ROWS_ADVICE)
    if in_torch is None or len(in_torch) != len(variable.shape):  # then no rows of it fit, either
        return ProblemError("shape-mismatch", variable, text, _NO_ROWS_ADVICE)
    advice = [_by_layout(variable, source), _by_vocabulary(variable, in_torch), ON_MISMATCH_ADVICE]
    return ProblemError("shape-mismatch", variable, text, "\n".join(filter(None, advice)))


def _cause(variable: Variable, source: Source) -> str:
    """Why tensors do not fit, where their shapes tell; or ""."""
    if len(source.specs) != 1:
        return _cause_of_projections(source)
    (spec,) = source.specs
    ours, theirs = variable.shape, spec.shape
    if 0 in theirs and 0 not in ours:
        return (
            f"{spec.key!r} is empty there, as DeepSpeed's ZeRO-3 leaves a parameter whose values "
            "are in other files: run its zero_to_fp32.py, and pass what that writes."
        )
    if ours and variable.slot is None and is_same_but_ones(theirs, ours):
        layout = shaped(*ours).name
        return (
            "Only axes of size 1 differ. If it is what is meant, say so: "
            f"var_name_to_layout={{{variable.name!r}: {layout!r}}}."
        )
    is_table = isinstance(source.owner.module, TABLES)
    if is_table or not ours or len(ours) != len(theirs) or ours[1:] != theirs[1:]:
        return ""
    times = theirs[0] / max(ours[0], 1)
    leaf_or_layer = "".join(spec.key.replace("/", ".").split(".")[-2:]).lower()
    is_fused = any(word in leaf_or_layer for word in _FUSED)
    if times == 3 or (is_fused and times > 1):
        return (
            f"It is {times:g} times as long along axis 0, as where several layers lie one behind "
            "the other in one tensor (query, key and value of an attention). Its first rows would "
            "fill all of them alike: split it, and pass each part by its name."
        )
    return ""


def _cause_of_projections(source: Source) -> str:
    """That query, key and value differ in size, as they do not in one weight for all."""
    shapes = [spec.shape for spec in source.specs]
    if not isinstance(source.owner.module, nn.MultiheadAttention) or len({*shapes}) == 1:
        return ""
    if len({shape[0] for shape in shapes}) > 1:
        return (
            "Keys and values have other heads than queries, as in grouped-query attention, which "
            "nn.MultiheadAttention does not have: repeat theirs (tensor.repeat_interleave), and "
            "pass that."
        )
    return "Keys or values are of another width: make the layer with its kdim and vdim."


def _norm_along(variable: Variable, source: Source) -> str:
    """That it is the `g` of a weight norm along another axis; or ""."""
    owner = variable.owners[0]
    original = original_of(owner.module, owner.leaf)
    if original is None or original.part != "g" or len(source.specs) != 1:
        return ""
    there, here = _dim_of_norm(source.specs[0].shape), _dim_of_norm(variable.shape)
    if there == here or "" in (there, here):
        return ""
    return (
        f"It is the norm of a weight_norm(dim={there}) there, and of dim={here} here: make the "
        f"layer with dim={there}, or warm-start it before weight_norm is put on it."
    )


def _dim_of_norm(shape: Shape) -> str:
    """The `dim` of a weight norm, by its norm's shape; "" where that leaves it open."""
    along = [axis for axis, size in enumerate(shape) if size > 1]
    return "None" if not shape else str(along[0]) if along else ""


def _shapes_differ(variable: Variable, source: Source) -> str:
    layout = source.form.layout
    how = "" if layout is IDENTITY else f", to be changed by {layout.name!r}"
    have = "have" if len(source.specs) > 1 else "has"
    found = " and ".join(str(list(spec.shape)) for spec in source.specs)
    return (
        f"{variable.name} has shape {list(variable.shape)}, but {keys_of(source)} in the "
        f"checkpoint {have} {found}{how}."
    )


def _by_layout(variable: Variable, source: Source) -> str:
    """What to do if it is a kernel that is laid out the other way, which nothing in the file says.

    A table is not: its rows are looked up, whoever wrote it.
    """
    is_table = isinstance(source.owner.module, TABLES)
    if is_table or source.form.layout is not IDENTITY or len(source.specs) != 1:
        return ""
    ours, theirs = variable.shape, source.specs[0].shape
    if len(ours) != 2 or tuple(theirs) != ours[::-1]:
        return ""
    return _OTHER_WAY_ADVICE


def _by_vocabulary(variable: Variable, in_torch: Shape | None) -> str:
    """What to do if it is a vocabulary that has changed, which it can be if one axis differs."""
    if in_torch is None or len(variable.shape) != len(in_torch):
        return ""
    differing = [dim for dim, size in enumerate(variable.shape) if size != in_torch[dim]]
    if len(differing) != 1:
        return ""
    return (
        f"If a vocabulary behind axis {differing[0]} has changed, describe the change by a "
        "VocabInfo in var_name_to_vocab_info."
    )
