"""What a plan says besides its items: what stays behind, and what weights cannot carry over."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from torch_warmstart.errors import (
    Finding,
    MissingTensorError,
    SettingsError,
    and_others,
    listed,
    plural,
)
from torch_warmstart.layouts import (
    CONV_TRANSPOSE_FLAX,
    IDENTITY,
    TRANSPOSE,
    Layout,
    is_kept_by,
    original_of,
    other_orders,
    vector_of,
)
from torch_warmstart.layouts.tensorflow import is_called_as_cudnns, usual_cell
from torch_warmstart.model import TABLES, Variable, padding_row, positions_from
from torch_warmstart.new_rows import Mixed
from torch_warmstart.planning.checks import audit_norms, audit_port, find_other_columns
from torch_warmstart.planning.locating import Located, follow_rule
from torch_warmstart.planning.plan import (
    LAYER_FINDS_IT,
    NO_COUNTERPART,
    Audit,
    AxisChange,
    PlanItem,
    taken_keys,
)
from torch_warmstart.planning.renames import read_renames
from torch_warmstart.planning.rows import new_padding_rows
from torch_warmstart.planning.selection import selects_parameters_only
from torch_warmstart.settings import SegmentInfo, VocabInfo, WarmStartSettings
from torch_warmstart.vocabularies import Remapping

if TYPE_CHECKING:
    from torch_warmstart.formats import Checkpoint
    from torch_warmstart.layouts.tensorflow import Described
    from torch_warmstart.names import Finder

_WEIGHT = "weight"
_IN_FRONT = 2  # rows that layers put before the entries: a mask or padding, and OOV
_ORIGINALS = ("_orig", ".original")  # the ends of what torch computes a weight from


def notes_on(
    settings: WarmStartSettings,
    items: Sequence[PlanItem],
    located: Located,
    laid_out: Collection[Variable],
) -> Iterator[Finding]:
    """What is worth knowing about a plan without problems.

    `laid_out` are the variables whose layouts the user named.
    """
    if selects_parameters_only(settings):
        yield from _buffers_left_behind(settings, items, located)
    for item in items:
        for change in item.changes:
            if isinstance(change.vocab, SegmentInfo):
                yield from _on_segments(item, change.remapping)
            if isinstance(change.vocab, VocabInfo):
                yield from _on_rows(item.along(change), change.remapping, change.vocab)
                yield from _on_padding(item, change)
            if isinstance(change.fill, Mixed):
                from torch_warmstart.planning.rows import notes_on_new_rows

                yield from notes_on_new_rows(item.name, change.fill)
    yield from _positions_shifted(items)
    yield from find_other_columns(items, located)
    yield from _untold(items, located.finder)
    yield from _layouts_presumed(items, located.finder.checkpoint)
    if not located.finder.conventions.has_own_layers:
        yield from _orders_doubted(items, located, laid_out)
    yield from _norms_left_behind(items)
    lossy = [item.name for item in items if item.cast is not None and item.cast.lossy]
    if lossy:
        text = (
            f"Precision or range is lost in {plural(len(lossy), 'variable')} (such as "
            f"{lossy[0]!r}): the model's dtype is narrower than the checkpoint's."
        )
        yield Finding("lossy-cast", "note", lossy[0], text)


def _positions_shifted(items: Sequence[PlanItem]) -> Iterator[Finding]:
    """A table of positions that are counted from the padding row's number, which was another."""
    moved = [*_moved_padding(items)]
    positions = {
        positions_from(owner.path, owner.module): item
        for item in (items if moved else ())
        if item.state != "kept" and item.variable.slot is None
        for owner in item.variable.owners
    }
    for item, row, was in moved:
        if row in positions:
            name = positions[row].name
            text = (
                f"{name}: its rows are counted from the padding row's number, which is {row} in "
                f"{item.name} and was {was}: each position takes the row of another. Make the "
                f"model with pad_token_id={was}, and the vocabulary with its padding there."
            )
            yield Finding("positions-shifted", "warning", name, text)


def _moved_padding(items: Iterable[PlanItem]) -> Iterator[tuple[PlanItem, int, int]]:
    """Tables whose padding row takes an old row of another number, with both."""
    for item in items:
        rows = next((change.remapping.rows for change in item.changes if change.axis == 0), None)
        if rows is not None:
            for row in {padding_row(owner.module) for owner in item.variable.owners}:
                if row is not None and (was := int(rows[row])) not in (row, -1):
                    yield item, row, was


def _layouts_presumed(items: Iterable[PlanItem], checkpoint: Checkpoint) -> Iterator[Finding]:
    """Square kernels of layers of which the file does not say what they are."""
    presumed = [item for item in items if item.is_layout_presumed and item.variable.slot is None]
    every = _made_for(presumed, (nn.RNNBase, nn.RNNCellBase))
    of_cudnn = [item for item in every if is_called_as_cudnns(item.keys)]
    if of_cudnn:
        layout = of_cudnn[0].layout.name
        yield _told_of_all(of_cudnn, _NO_FORGET_BIAS, layout, usual_cell(layout))
    cells = [item for item in every if item not in of_cudnn]
    if cells:
        layout, keys = cells[0].layout.name, listed(map(repr, cells[0].keys))
        whose = "TensorFlow 1's cells" if layout.startswith("tf1") else "Keras's"
        yield _told_of_all(cells, _GATES, layout, keys, whose)
    presumed = [item for item in presumed if item not in every]
    convolutions = [item for item in presumed if "conv" in item.layout.name]
    as_they_are = (IDENTITY.name, "joined")
    taken_as_is = [item for item in presumed if item.layout.name in as_they_are]
    tables = _made_for(taken_as_is, TABLES)
    untold = [item for item in taken_as_is if item not in tables]
    products = [item for item in presumed if item not in (*convolutions, *taken_as_is)]
    if tables:
        yield _told_of_all(tables, _AS_ROWS)
    if untold:
        name, begin = _square(untold, "nobody says where its outputs are")
        yield Finding("layout-presumed", "warning", name, f"{begin} {_AS_IN_TORCH.format(name)}")
    if products:
        name, begin = _square(products)
        text = (
            f"{begin} taken as that of a Dense, [in, out]. If it is one, say so: "
            f"var_name_to_layout={{{name!r}: 'transpose'}}; if it was an EinsumDense with the "
            f"outputs first ('ab,cb->ac'), {{{name!r}: 'identity'}}."
        )
        yield Finding("layout-presumed", "warning", name, text)
    told = [c for c in convolutions if checkpoint.layer_of(c.sources[0].key) is not None]
    yield from _convolutions_presumed(told, _NO_CLASS, _OF_ITS_CLASS)
    untold = [item for item in convolutions if item not in told]
    yield from _convolutions_presumed(untold, _NO_FRAMEWORK, _NOT_OF_FLAX)


def _made_for(items: Iterable[PlanItem], types: tuple[type[nn.Module], ...]) -> list[PlanItem]:
    return [item for item in items if item.owner and isinstance(item.owner.module, types)]


def _told_of_all(items: Sequence[PlanItem], text: str, *words: str) -> Finding:
    name = items[0].name
    whole = text.format(f"{name}{and_others(len(items))}", name, *words)
    return Finding("layout-presumed", "warning", name, whole)


def _convolutions_presumed(items: Sequence[PlanItem], unsaid: str, text: str) -> Iterator[Finding]:
    if items:
        name, begin = _square(items, unsaid)
        layout = items[0].layout.name
        said = f"If it is, say so: var_name_to_layout={{{name!r}: {layout!r}}}"
        text = text.format(said=said, name=name, flax=CONV_TRANSPOSE_FLAX.name)
        yield Finding("layout-presumed", "warning", name, f"{begin} {text}")


_NO_CLASS = "the file does not say of which class the layer is"
_OF_ITS_CLASS = (
    "taken as that of the class that torch's layer is of. {said}; a convolution and a transposed "
    "one compute different things from it."
)
_NO_FRAMEWORK = "the names do not tell Keras's tensors from Flax's"
_NOT_OF_FLAX = (
    "taken as Keras's, [..., out, in]. {said}; if it is Flax's, which runs the other way, "
    "{{{name!r}: {flax!r}}}, or put 'params/' in front of all names."
)
_NO_FORGET_BIAS = (
    "{0}: its cell is called as cuDNN's, which adds no forget_bias. If it was one, say so: "
    "var_name_to_layout={{{1!r}: {2!r}}}; if it was another cell that was called so, name the one "
    "that it added ({3!r})."
)
_GATES = (
    "{0}: {3} has no name of a cell's in Keras or TensorFlow 1, and nobody says in which order its "
    "gates are: it is taken as by {2!r}, in the order of {4}. If it is so, say so: "
    "var_name_to_layout={{{1!r}: {2!r}}}; if not, pass it with its gates in that order."
)
_AS_ROWS = (
    "{0} is square there, and no name says whether its rows or its columns are the entries: it is "
    "taken as it is. If they are the rows, say so: var_name_to_layout={{{1!r}: 'identity'}}; if "
    "the columns, as of T5's relative_attention_bias, {{{1!r}: 'transpose'}}."
)
_AS_IN_TORCH = (
    "taken as torch's, [out, in]. If it is, say so: var_name_to_layout={{{0!r}: 'identity'}}; if "
    "the original computed x @ w, with [in, out], {{{0!r}: 'transpose'}}."
)


def _orders_doubted(
    items: Sequence[PlanItem], located: Located, laid_out: Collection[Variable]
) -> Iterator[Finding]:
    """Weights of torch's names that fit in another order too, which others of the file have."""
    as_named = [
        item
        for item in items
        if item.state != "kept" and item.variable.slot is None
        if item.layout is IDENTITY and item.variable not in laid_out
    ]
    told: set[Variable] = set()
    for layout, evidence in _other_orders(items, located).items():
        doubted = [item for item in as_named if _may_be_in(layout, item, told)]
        if doubted:
            told.update(item.variable for item in doubted)
            yield _order_doubted(doubted, layout, evidence)
    square = [item for item in as_named if _may_be_in(TRANSPOSE, item, told)]
    beside = _kernels_left(square, items, located.finder) if square else {}
    for folder, evidence in beside.items():
        doubted = [item for item in square if _folder(item.keys[0]) == folder]
        yield _order_doubted(doubted, TRANSPOSE, evidence)


def _may_be_in(layout: Layout, item: PlanItem, told: Collection[Variable]) -> bool:
    if item.owner is None or item.is_layout_presumed or item.variable in told:
        return False
    is_another = layout in other_orders(item.owner.module)
    return is_another and is_kept_by(layout, item.sources[0].shape)


def _kernels_left(
    square: Iterable[PlanItem], items: Iterable[PlanItem], finder: Finder
) -> dict[str, str]:
    """By the folder of square weights: one beside them that is not taken, and is `x @ w`'s.

    Its bias shows it: GPT-2's `c_attn`, [n, 3n], lies beside its `c_proj`, [n, n].
    """
    folders = {_folder(item.keys[0]) for item in square}
    used = taken_keys(items)
    found: dict[str, str] = {}
    for key in finder.keys - used.keys():
        bias = f"{key.removesuffix(_WEIGHT)}bias"
        if not key.endswith(_WEIGHT) or _folder(key) not in folders or bias not in finder.keys:
            continue
        shape, outputs = finder.spec(key).shape, finder.spec(bias).shape
        if len(shape) == 2 and shape[0] != shape[1] and outputs == shape[1:]:
            evidence = f"{key!r} beside it is {list(shape)}, with a bias of {shape[1]}."
            found[_folder(key)] = min(evidence, found.get(_folder(key), evidence))
    return found


def _folder(key: str) -> str:
    """What the layer of a tensor lies in."""
    return key.replace("/", ".").rpartition(".")[0].rpartition(".")[0]


def _other_orders(items: Iterable[PlanItem], located: Located) -> dict[Layout, str]:
    """The orders of axes that weights of the file have, if not torch's, with one that has it.

    One that stays behind, as its shape is another one in the model, tells it as well as one that
    the user has had transposed.
    """
    found: dict[Layout, str] = {}
    remapped = {item.variable for item in items if item.changes}
    for item in items:
        if item.owner is not None and item.variable.slot is None and item.state != "kept":
            layout = item.layout
            if layout in other_orders(item.owner.module):
                so = "transposed" if layout.name == "transpose" else f"taken by {layout.name!r}"
                found.setdefault(layout, f"{item.name!r} is {so}.")
    for variable, location in located.of_variable.items():
        source = location.source
        if source is None or len(source.specs) > 1 or variable in remapped:
            continue
        there, here = source.specs[0].shape, variable.shape
        for layout in other_orders(source.owner.module) if there != here else ():
            if layout not in found and layout.shapes_in_torch([there]) == (here,):
                found[layout] = f"{variable.name!r} is {list(there)} there, and {list(here)} here."
    return found


def _order_doubted(doubted: Sequence[PlanItem], layout: Layout, evidence: str) -> Finding:
    name = doubted[0].name
    more = and_others(len(doubted))
    if len(doubted[0].variable.shape) == 2:
        are = "are square and are" if more else "is square and is"
        text = f"{name}{more} {are} {_AS_IN_TORCH.format(name)} {evidence}"
    else:
        have = "have" if more else "has"
        text = (
            f"{name}{more} {have} axes of one size, taken in torch's order. If that is right, say "
            f"so: var_name_to_layout={{{name!r}: 'identity'}}; if not, {{{name!r}: "
            f"{layout.name!r}}}. {evidence}"
        )
    return Finding("layout-presumed", "warning", name, text)


def _square(items: Sequence[PlanItem], unsaid: str = _NO_CLASS) -> tuple[str, str]:
    name = items[0].name
    others = and_others(len(items))
    have = "have square kernels" if others else "has a square kernel"
    return name, f"{name}{others} {have}, and {unsaid}: it is"


def _on_rows(item: PlanItem, remapping: Remapping, vocab: VocabInfo) -> Iterator[Finding]:
    """What is odd about a remapping; what follows a variable, its slots, repeats none of it."""
    if item.variable.slot is not None:
        return
    if remapping.finds_little:
        entries = remapping.num_entries
        text = (
            f"{item.name}: {remapping.num_present:,} of {plural(entries, 'new entry')} are in the "
            f"old vocabulary. {remapping.other_reading or 'Is old_vocab the right one?'}"
        )
        yield Finding("few-entries-found", "warning", item.name, text)
    yield from _on_files(item, remapping)
    if remapping.forms_unsaid and remapping.num_present:
        yield _forms_unsaid(item, remapping)
    yield from _forms_collide(item, remapping, vocab)
    if remapping.reach(item.old_size) == "longer":
        text = (
            f"{item.name}: the old vocabulary describes {plural(remapping.num_old, 'row')}, but "
            f"{' and '.join(map(repr, item.keys))} only has {item.old_size:,}: is it the "
            "vocabulary that it was trained with?"
        )
        yield Finding("old-vocab-longer", "warning", item.name, text)
    if item.old_rows_unused and vocab.old_num_oov_buckets is None:
        if vocab.num_oov_buckets:
            yield _oov_left_behind(item, vocab)
        elif item.old_rows_unused <= _IN_FRONT:
            yield _rows_unexplained(item, remapping)
    if remapping.num_oov_left:
        yield _oov_of_others(item, remapping)
    if remapping.num_in_front:
        yield _oov_in_front(item, remapping)
    if remapping.taken_by_others:
        yield _purposes_of_others(item, remapping)


def _on_padding(item: PlanItem, change: AxisChange) -> Iterator[Finding]:
    """An entry that has come into the row for no input, as into any that is free."""
    for row in new_padding_rows(item.variable, change.remapping, change.axis):
        entry = change.remapping.taken_from_padding.get(row)
        if entry is not None:
            text = (
                f"{item.name}: row {row:,} is the padding_idx of its module, which never trains "
                f"it, and in the new vocabulary it is the row of {entry}: update_vocabulary gives "
                "away what has no entry. If it is for no input, say so of the vocabulary of "
                "before: dataclasses.replace(vocabulary, special={**vocabulary.special, 'mask': "
                f"range({row}, {row + 1})}})."
            )
            yield Finding("padding-row-taken", "warning", item.name, text)


def _on_files(item: PlanItem, remapping: Remapping) -> Iterator[Finding]:
    """What is odd about the files that vocabularies are in."""
    if remapping.other_encoding:
        text = f"{item.name}: {remapping.other_encoding}"
        yield Finding("encodings-differ", "warning", item.name, text)
    if remapping.header:
        text = (
            f"{item.name}: {remapping.header}, and is taken as an entry that has a row. If it has "
            "none, each entry takes the row of its neighbour. Pass the entries as a sequence, with "
            "it or without."
        )
        yield Finding("header-as-entry", "warning", item.name, text)


def _forms_unsaid(item: PlanItem, remapping: Remapping) -> Finding:
    """WordPiece's `the` begins a word, and takes the row that byte-level BPE has within one."""
    text = (
        f"{item.name}: the two vocabularies write tokens in different forms, and only equal bytes "
        "count: a token that begins a word may take the row of one within words. Say "
        f"{remapping.forms_unsaid}."
    )
    return Finding("forms-unsaid", "warning", item.name, text)


def _such_as(count: int, shown: str) -> str:
    return f"{'such as ' if count > 1 else ''}{shown}."


def _forms_collide(item: PlanItem, remapping: Remapping, vocab: VocabInfo) -> Iterator[Finding]:
    """Old entries that become alike, and new ones that take one old row."""
    if remapping.num_collisions:
        text = (
            f"{item.name}: forms={vocab.forms!r} make "
            f"{plural(remapping.num_collisions, 'old entry')} the same as another one, which takes "
            f"its place unless it is written the same: "
            f"{_such_as(remapping.num_collisions, remapping.collision)}"
        )
        yield Finding("forms-collide", "note", item.name, text)
    if remapping.num_sharing:
        verb = "takes" if remapping.num_sharing == 1 else "take"
        text = (
            f"{item.name}: by forms={vocab.forms!r} {plural(remapping.num_sharing, 'new entry')} "
            f"{verb} an old row that another one takes, too: "
            f"{_such_as(remapping.num_sharing, remapping.shared)}"
        )
        yield Finding("forms-collide", "note", item.name, text)


def _rows_unexplained(item: PlanItem, remapping: Remapping) -> Finding:
    """So few that they may as well be padding, a mask or OOV rows in front of the others."""
    extra = plural(item.old_rows_unused, "row")
    text = (
        f"{item.name}: {' and '.join(map(repr, item.keys))} has {extra} more than the old "
        f"vocabulary has ({remapping.num_old:,}), taken to stand behind the others. If they stand "
        "in front (padding or OOV, as in Keras), each entry takes the row of a neighbour: put what "
        "they are in front of old_vocab, ['', '[UNK]', ...]. old_num_oov_buckets=0 says that they "
        "are behind."
    )
    return Finding("old-rows-unexplained", "warning", item.name, text)


def _oov_of_others(item: PlanItem, remapping: Remapping) -> Finding:
    left, count = remapping.num_oov_left, remapping.num_oov
    what = (
        f"the new vocabulary has {plural(count, 'OOV row')}"
        if left != count
        else "the new vocabulary's are chosen by another hash, or by one that is not known"
    )
    are = "is" if left == 1 else "are"
    text = (
        f"{item.name}: the old vocabulary's {plural(left, 'OOV row')} {are} left behind, as {what}"
        ": other entries would share each of them. old_num_oov_buckets=0 says that it is meant."
    )
    return Finding("oov-rows-left-behind", "note", item.name, text)


def _oov_in_front(item: PlanItem, remapping: Remapping) -> Finding:
    """As of a lookup table that Keras exports, which does not say what its first rows are for."""
    are = "is" if remapping.num_in_front == 1 else "are"
    text = (
        f"{item.name}: {plural(remapping.num_in_front, 'row')} of no entry in front of the old "
        f"vocabulary's {are} left behind, and the new OOV rows begin anew. If they were OOV rows "
        "(or a mask's), pass the layer that has them as old_vocab; old_num_oov_buckets=0 says that "
        "it is meant."
    )
    return Finding("oov-rows-left-behind", "note", item.name, text)


def _purposes_of_others(item: PlanItem, remapping: Remapping) -> Finding:
    """As where the old tokenizer pads with its end of text, and the new one has a token for it."""
    named = remapping.taken_by_others.items()
    rows = listed(f"row {row:,} ({name})" for name, row in named)
    begin = "begins as a new one" if len(named) == 1 else "begin as new ones"
    text = (
        f"{item.name}: {rows} {begin}: what the old tokenizer has for that is another token's row "
        "besides, which that token takes."
    )
    return Finding("purpose-shared", "note", item.name, text)


def _on_segments(item: PlanItem, remapping: Remapping) -> Iterator[Finding]:
    """Features, or entries of one, that are hardly found."""
    if item.variable.slot is None and (remapping.finds_little or remapping.other_reading):
        columns = remapping.num_entries
        text = (
            f"{item.name}: {remapping.num_present:,} of {plural(columns, 'new column')} are of a "
            f"feature and an entry of before. {remapping.other_reading or 'Are they its features?'}"
        )
        yield Finding("few-entries-found", "warning", item.name, text)
    if item.variable.slot is None:
        yield from _on_files(item, remapping)


def _oov_left_behind(item: PlanItem, vocab: VocabInfo) -> Finding:
    extra, buckets = item.old_rows_unused, vocab.num_oov_buckets
    then = (
        f"old_num_oov_buckets={buckets} copies them"
        if extra == buckets
        else f"they mean nothing among {buckets}, as an entry's bucket depends on their number"
    )
    text = (
        f"{item.name}: {plural(extra, 'row')} behind the old vocabulary's "
        f"{'is' if extra == 1 else 'are'} left behind, and the new OOV rows begin anew. If they "
        f"were OOV rows, {then}."
    )
    return Finding("oov-rows-left-behind", "note", item.name, text)


def _norms_left_behind(items: Sequence[PlanItem]) -> Iterator[Finding]:
    """Weights that a spectral norm divides, which is estimated by the model's own vectors."""
    kept = []
    for item in items:
        if item.state == "kept" and item.reason in (NO_COUNTERPART, LAYER_FINDS_IT):
            owner = item.variable.owners[0]
            vector = vector_of(owner.module, owner.leaf)
            if vector is not None:
                kept.append((item.name, id(owner.module), vector.weight))
    if not kept:
        return
    taken = set()
    for owner in (item.variable.owners[0] for item in items if item.state != "kept"):
        original = original_of(owner.module, owner.leaf)
        if original is not None and original.is_divided:
            taken.add((id(owner.module), original.leaf))
    left = [name for name, module, weight in kept if (module, weight) in taken]
    if left:
        text = (
            f"Weights are taken that a spectral norm divides, and {plural(len(left), 'vector')} by "
            f"which it is estimated (such as {left[0]!r}) stay the model's: in eval mode they are "
            "divided by another norm. Run the model in training mode some times before it is used."
        )
        yield Finding("norm-left-behind", "warning", left[0], text)


def _buffers_left_behind(
    settings: WarmStartSettings, items: Iterable[PlanItem], located: Located
) -> Iterator[Finding]:
    """Unselected buffers the checkpoint has: in TensorFlow a silent loss of accuracy."""
    buffers = [item.variable for item in items if item.variable.kind == "buffer"]
    by_rule = _there_by_rules(settings, buffers, located)
    left = [b.name for b in buffers if b in by_rule or located.is_there(b)]
    if left:
        text = (
            f"{plural(len(left), 'buffer')} that the checkpoint has (such as {left[0]!r}) stay as "
            "they are, because a pattern given as a str selects parameters only. "
            f"{_write_a_list(settings)}"
        )
        yield Finding("buffers-left-behind", "warning", left[0], text)


def _there_by_rules(
    settings: WarmStartSettings, buffers: Sequence[Variable], located: Located
) -> set[Variable]:
    """Those that the user's rules would find, had they been selected with their parameters."""
    if settings.var_name_to_prev_var_name is None:
        return set()
    found = set()
    renames, _ = read_renames(settings.var_name_to_prev_var_name, buffers, frozenset(buffers))
    for buffer, rename in renames.items():
        with contextlib.suppress(SettingsError, MissingTensorError):
            follow_rule(located.finder, buffer, rename)
            found.add(buffer)
    return found


def _write_a_list(settings: WarmStartSettings) -> str:
    return f"To take them too, write a list: vars_to_warm_start=[{settings.vars_to_warm_start!r}]."


def audits_of(
    model: torch.nn.Module, items: Iterable[PlanItem], finder: Finder
) -> tuple[Audit, ...]:
    """What to compare by hand, where TensorFlow's weights come into a model, or plain ones."""
    if not finder.conventions.has_own_layers:
        owners = [item.owner for item in items if _is_made_plain(item)]
        return audit_norms({owner.path: owner.module for owner in owners if owner is not None})
    layouts, described = _layers_of(items, finder)
    is_of_keras = finder.conventions.has_keras_defaults
    return audit_port(model, layouts, described, has_keras_defaults=is_of_keras)


def _is_made_plain(item: PlanItem) -> bool:
    """Whether what a weight is computed from comes from a weight of the checkpoint's."""
    if item.owner is None or item.state == "kept" or item.variable.slot is not None:
        return False
    return item.owner.leaf.endswith(_ORIGINALS) and not item.keys[0].endswith(_ORIGINALS)


def _layers_of(
    items: Iterable[PlanItem], finder: Finder
) -> tuple[dict[torch.nn.Module, list[str]], dict[torch.nn.Module, Described]]:
    """The layouts of each module that is filled, and what the file says of its layer."""
    from torch_warmstart.planning.locating import describe, layer_of_module

    layouts: dict[torch.nn.Module, list[str]] = {}
    described: dict[torch.nn.Module, Described] = {}
    for item in items:
        if item.state != "kept" and item.owner and item.variable.slot is None:
            module = item.owner.module
            layouts.setdefault(module, []).append(item.layout.name)
            layer = finder.checkpoint.layer_of(item.sources[0].key)
            if layer is not None:
                described.setdefault(module, describe(layer_of_module(layer, module)))
    return layouts, described


def _untold(items: Sequence[PlanItem], finder: Finder) -> Iterator[Finding]:
    """What the file does not say of a layer, and would matter if it were not as it seems."""
    if not finder.conventions.has_own_layers:
        return
    paths = {item.owner.module: item.owner.path for item in items if item.owner is not None}
    layouts, described = _layers_of(items, finder)
    if not described:
        return
    from torch_warmstart.planning.checks import untold

    found: dict[tuple[str, str], list[str]] = {}
    for module, layer in described.items():
        for difference in untold(module, layer, layouts[module]):
            found.setdefault(difference, []).append(paths[module])
    for difference, names in found.items():
        yield Finding("setting-untold", "note", names[0], str(Audit(tuple(names), *difference)))
