"""How the rows of a variable have changed: `VocabInfo`, `ClipOrPad` and `SegmentInfo`.

Names, order and defaults of a `VocabInfo`'s positional fields are TensorFlow's
(`tf.compat.v1.train.VocabInfo`); additions are keyword-only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, get_args

import torch

from torch_warmstart.dtypes import as_python
from torch_warmstart.errors import SettingsError, is_number, is_whole, plural, shown_value
from torch_warmstart.values import Form

# A path or URL, the entries themselves, or an object that has a vocabulary: what
# `Vocabulary.load` takes. Whoever reads it looks what it is.
VocabSource = Any
Initializer = Callable[..., Any]
Forms = str | Sequence[str] | Mapping[str, str | Sequence[str]]

ALL_ENTRIES = -1
_NO_COUNT = 1 << 62
_MAKERS = "torch_warmstart.init"  # whose functions make initialisers, and are none
# Why OOV rows are not taken where there are not as many of them.
OOV_BY_NUMBER = (
    "An entry's bucket is its hash modulo their number, so old OOV rows mean nothing in the new "
    "variable: leave it at 0."
)
KEEP = "keep"


@dataclass(frozen=True, slots=True)
class FromCheckpoint:
    """The old vocabulary that the checkpoint holds; `["name"]`: that of a layer or table."""

    name: str | None = None

    def __getitem__(self, name: str) -> FromCheckpoint:
        if not isinstance(name, str) or not name:
            raise SettingsError(
                f"FROM_CHECKPOINT takes the name of a layer or table, not {shown_value(name)}."
            )
        return FromCheckpoint(name)

    def __repr__(self) -> str:
        return "FROM_CHECKPOINT" + (f"[{self.name!r}]" if self.name else "")


FROM_CHECKPOINT = FromCheckpoint()


def is_unnamed(source: object) -> bool:
    """Whether it is `FROM_CHECKPOINT` without a name."""
    return isinstance(source, FromCheckpoint) and source.name is None


@dataclass(frozen=True)
class VocabInfo:
    """How the vocabulary behind one axis of a variable has changed.

    Row i of the new variable takes the row that its entry had in the old one. Entries the old
    vocabulary does not have, and the OOV rows, are filled by `backup_initializer`.

    Args:
        new_vocab: What `Vocabulary.load` takes: path or URL of a file with one entry a line, or of
            a tokenizer's; a sequence or array of str, bytes or int; a column that exports Arrow; a
            mapping of entry to row; a lookup layer or tokenizer; a `Vocabulary`.
        new_vocab_size: How many of its rows are used, from the first; -1 for all. The variable
            must have exactly this many rows, and `num_oov_buckets` more. Of a tokenizer it may be
            more than there are: the further rows are padding.
        num_oov_buckets: Out-of-vocabulary rows of the new variable, after the vocabulary's; 0 where
            the vocabulary has its own, as Keras's layers have.
        old_vocab: As `new_vocab`, for the vocabulary the checkpoint was trained with. By default
            `FROM_CHECKPOINT`, the one that the checkpoint itself holds.
        old_vocab_size: How many of its rows were used, from the first; -1 for all.
        backup_initializer: What fills rows that have no old row. None: zeros, as in TensorFlow.
            "keep": what the model holds already. A callable: it gets a tensor of the variable's
            full shape, so that fan-based initialisers of `torch.nn.init` are right, and fills it
            in place or returns another one of the same shape. One of `tws.init`, or a function of
            `tws.NewRows`: it is told of the new rows and makes only those.
        axis: Which axis of the *torch* variable the vocabulary is for; negative counts from the
            end. The rows of an embedding and the classes of `nn.Linear.weight` are axis 0.
        old_num_oov_buckets: How many OOV rows the old variable had. 0 (TensorFlow's behaviour):
            the new OOV rows are initialised. None: they are copied if both vocabularies state
            theirs, with one count and, of several, one hash. Otherwise it must equal the number of
            the new ones, which `num_oov_buckets` or the new vocabulary says, since an entry's
            bucket is its hash modulo their number, and they are copied.
        forms: In which forms entries are written, if those of one side are not those of the other:
            "byte_level" (`Ġx`, bytes as letters), "sentencepiece" (`▁x`, `<0x0A>`), "wordpiece"
            (`##x`), "casefold"; one, or several, one after the other. A mapping tells the sides
            apart: {"new": "byte_level", "old": ["sentencepiece", "casefold"]}. Entries that are
            alike then are the same entry; several new ones may take one old row.
        min_found: Which part of the new entries must at least be in the old vocabulary, or back
            from a fallback, from 0 to 1; if fewer are, the plan is refused.
        fallback: Where rows of entries come from that are back: a list of pairs, an older
            checkpoint and the vocabulary it had (`FROM_CHECKPOINT`: that beside it or in it),
            newest first. An entry that `old_vocab` does not have takes its row, and its slots,
            from the first of them that has it. The checkpoint is read by the settings that this
            stands in; one whose names or form differ is a `WarmStartSettings` of its own.
        min_frequency: Of a table that keeps its ids: only those seen at least as often.
        since_version: Of a table that keeps its ids: only those updated at this step or later.
        where: Of a table that keeps its ids: a function of its columns ("key", "frequency",
            "version": int64 of one length) that returns a bool tensor: which ids to take.
        generator: Passed to `backup_initializer` as `generator=`, for reproducible rows. It
            advances with each use: a second warm start with it draws other rows.

    Raises:
        SettingsError: a field has an impossible value.
    """

    new_vocab: VocabSource
    new_vocab_size: int = ALL_ENTRIES
    num_oov_buckets: int = 0
    old_vocab: VocabSource | FromCheckpoint = FROM_CHECKPOINT
    old_vocab_size: int = ALL_ENTRIES
    backup_initializer: Initializer | Literal["keep"] | None = None
    axis: int = 0
    _: KW_ONLY
    old_num_oov_buckets: int | None = None
    forms: Forms | None = None
    min_found: float = 0.0
    fallback: Sequence[tuple[Any, VocabSource | FromCheckpoint]] = ()
    min_frequency: int | None = None
    since_version: int | None = None
    where: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _take_numbers_of_numpy(self)
        for name in ("new_vocab", "old_vocab"):
            _check_vocab_source(name, getattr(self, name))
        for name in ("new_vocab_size", "old_vocab_size"):
            _check_vocab_size(name, getattr(self, name))
        _check_int("num_oov_buckets", self.num_oov_buckets, minimum=0)
        if self.old_num_oov_buckets is not None:
            _check_int("old_num_oov_buckets", self.old_num_oov_buckets, minimum=0)
        _check_share("min_found", self.min_found)
        for name in ("min_frequency", "since_version"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), minimum=0)
        object.__setattr__(self, "fallback", _checked_fallback(self.fallback))
        if self.where is not None and not callable(self.where):
            raise SettingsError(f"VocabInfo: where is a function, not {shown_value(self.where)}.")
        self.forms_of("new"), self.forms_of("old")  # checks them
        _check_int("axis", self.axis)
        # With 0 the new vocabulary may have its own: they are counted when it is read.
        if self.num_oov_buckets and self.old_num_oov_buckets not in (None, 0, self.num_oov_buckets):
            raise SettingsError(
                f"VocabInfo: old_num_oov_buckets={self.old_num_oov_buckets} and num_oov_buckets="
                f"{self.num_oov_buckets} differ. {OOV_BY_NUMBER}"
            )
        _check_initializer(self)

    @property
    def has_filter(self) -> bool:
        """Whether it asks for some ids of a table only."""
        return any(v is not None for v in (self.min_frequency, self.since_version, self.where))

    def forms_of(self, side: Literal["new", "old"]) -> tuple[Form, ...]:
        """The forms that entries of a side are written in."""
        said = self.forms
        if isinstance(said, Mapping):
            if not set(said) <= {"new", "old"}:
                raise SettingsError(f"VocabInfo: forms has the sides 'new' and 'old', not {said}.")
            said = said.get(side)
        if said is None:
            return ()
        given: Any = said
        listed: tuple[Form, ...] = tuple(given) if isinstance(given, list | tuple) else (given,)
        known = get_args(Form)
        if not all(isinstance(form, str) and form in known for form in listed):
            raise SettingsError(f"VocabInfo: forms are {', '.join(known)}, not {said!r:.60}.")
        return listed


@dataclass(frozen=True)
class ClipOrPad:
    """Rows by position, where sizes have changed and no vocabulary tells which row is which.

    It stands where a `VocabInfo` does. Rows that both variables have are copied, further old ones
    dropped, further new ones filled. Only the user can know that row i still means what it meant.

    Args:
        axis: Which axis of the *torch* variable has another size; negative counts from the end.
        backup_initializer: What fills rows that have no old row, as in `VocabInfo`.
        generator: Passed to `backup_initializer` as `generator=`.

    Raises:
        SettingsError: a field has an impossible value.
    """

    axis: int = 0
    backup_initializer: Initializer | Literal["keep"] | None = None
    _: KW_ONLY
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _take_numbers_of_numpy(self)
        _check_int("axis", self.axis, kind="ClipOrPad")
        _check_initializer(self)


@dataclass(frozen=True)
class SegmentInfo:
    """Columns of features that lie one after the other, where features come, go or change.

    It stands where a `VocabInfo` does, for the first layer behind a concatenation. Columns go by
    the name of their feature, wherever it begins now and began then; those of features that the
    checkpoint does not have are filled.

    Args:
        new_segments: Feature name to its number of columns, in the order of the new variable; or to
            a `VocabInfo`, where the columns are those of a one-hot or multi-hot feature: each goes
            to that of the same entry, and there are as many as the vocabulary describes.
        old_segments: The same of the checkpoint's variable: each feature's number of columns.
            TensorFlow's `input_layer` and `DenseFeatures` sort features by name:
            `dict(sorted(widths.items()))`.
        axis: Which axis of the *torch* variable the columns are along; that of inputs is 1.
        backup_initializer: What fills columns that have no old one, as in `ClipOrPad`.
        generator: Passed to `backup_initializer` as `generator=`.

    Raises:
        SettingsError: a field has an impossible value, or a feature had another number of columns
            and no `VocabInfo` says which is which.

    Example:
        >>> tws.SegmentInfo({"age": 1, "city": 16, "device": 8}, {"age": 1, "city": 16, "os": 8})
        SegmentInfo(new_segments={'age': 1, 'city': 16, 'device': 8}, ...)
    """

    new_segments: Mapping[str, int | VocabInfo]
    old_segments: Mapping[str, int]
    axis: int = 1
    backup_initializer: Initializer | Literal["keep"] | None = None
    _: KW_ONLY
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _take_numbers_of_numpy(self)
        for name in ("new_segments", "old_segments"):
            segments = getattr(self, name)
            _check_segments(name, segments, may_change=name == "new_segments")
            own = {feature: as_python(width) for feature, width in segments.items()}
            object.__setattr__(self, name, own)  # later changes to theirs do nothing
        for feature, width in self.new_segments.items():
            _check_one_width(feature, width, self.old_segments.get(feature))
        _check_int("axis", self.axis, kind="SegmentInfo")
        _check_initializer(self)


def _check_segments(name: str, segments: object, *, may_change: bool) -> None:
    if not isinstance(segments, Mapping) or not segments:
        raise SettingsError(
            f"SegmentInfo: {name} is a mapping of feature to its number of columns, in their "
            f"order, not {'an empty one' if isinstance(segments, Mapping) else repr(segments)}."
        )
    for feature, said in segments.items():
        width = as_python(said)
        if not isinstance(feature, str) or not feature:
            raise SettingsError(f"SegmentInfo: {name}: a feature has a name, not {feature!r:.60}.")
        if isinstance(width, VocabInfo) and may_change:
            _check_inner(feature, width)
        elif isinstance(width, VocabInfo):
            raise SettingsError(
                f"SegmentInfo: old_segments has the number of columns that {feature!r} had; its "
                "VocabInfo stands in new_segments."
            )
        else:
            _check_int(f"the number of columns of {feature!r}", width, 1, kind="SegmentInfo")


def _check_inner(feature: str, info: VocabInfo) -> None:
    """A feature's VocabInfo says which column is which, and nothing else."""
    for field in ("backup_initializer", "generator", "fallback", "axis"):
        if getattr(info, field) not in (None, (), 0):
            are = "is for rows" if field == "fallback" else "stands in the SegmentInfo, for all"
            raise SettingsError(
                f"SegmentInfo: the VocabInfo of {feature!r} says which column is which; {field} "
                f"{are}."
            )
    if info.has_filter:
        raise SettingsError(
            f"SegmentInfo: {feature!r}: min_frequency, since_version and where are for tables that "
            "keep their ids."
        )


def _check_one_width(feature: str, width: int | VocabInfo, old: int | None) -> None:
    if old is None:
        return
    if not isinstance(width, VocabInfo):
        if width != old:
            raise SettingsError(
                f"SegmentInfo: {feature!r} had {old:,} columns and has {width:,}: which is which "
                f"only its vocabularies tell. Write {{{feature!r}: VocabInfo(new_vocab, "
                "old_vocab=...)}, or give it another name in new_segments, to begin anew."
            )
    elif is_unnamed(width.old_vocab):
        raise SettingsError(
            f"SegmentInfo: the VocabInfo of {feature!r} needs old_vocab: nothing beside a "
            "checkpoint says which of the columns a vocabulary is for."
        )


AnyVocabInfo = VocabInfo | ClipOrPad | SegmentInfo
INFO_TYPES = (VocabInfo, ClipOrPad, SegmentInfo)
Infos = AnyVocabInfo | Sequence[AnyVocabInfo]  # of one axis, or of several


def infos_of(infos: Infos | None) -> tuple[AnyVocabInfo, ...]:
    """What is said of a variable, of each axis that changes; nothing is none."""
    if infos is None:
        return ()
    return (infos,) if isinstance(infos, INFO_TYPES) else tuple(infos)


def asks_for_entries(info: AnyVocabInfo) -> bool:
    """Whether it says that a part of its entries is found (`min_found`)."""
    inner = info.new_segments.values() if isinstance(info, SegmentInfo) else (info,)
    return any(isinstance(one, VocabInfo) and one.min_found > 0 for one in inner)


def check_infos(name: str, value: object) -> None:
    """Raises SettingsError unless it is an info, or a list of infos of different axes."""
    if isinstance(value, INFO_TYPES):
        return
    if not isinstance(value, list | tuple) or not value:
        raise SettingsError(f"{name} is for {what_infos_are()}; found {shown_value(value)}.")
    for one in value:
        if not isinstance(one, INFO_TYPES):
            kind = type(one).__name__  # a list of entries, most likely
            raise SettingsError(f"{name} is for {what_infos_are()}; its list has a {kind}.")
    twice = axis_of_two([one.axis for one in value])
    if twice is not None:
        raise SettingsError(f"{name}: two of its list are for axis {twice}; an axis has one.")
    _check_one_is_named(name, value)


def axis_of_two(axes: Sequence[int]) -> int | None:
    """The axis of which two infos of a list speak, which is an error; None: of no axis do two."""
    return next((axis for axis in axes if axes.count(axis) > 1), None)


def _check_one_is_named(name: str, infos: Sequence[AnyVocabInfo]) -> None:
    """Beside a checkpoint stands one vocabulary for a tensor; it does not say of which axis."""
    vocabs = [info for info in infos if isinstance(info, VocabInfo)]
    open_ones = [info for info in vocabs if is_unnamed(info.old_vocab)]
    if vocabs[1:] and open_ones:
        raise SettingsError(
            f"{name}: of two vocabularies each needs its old_vocab (axis {open_ones[0].axis} has "
            "none): what lies beside a checkpoint does not say of which axis it is."
        )


def what_infos_are() -> str:
    """For messages."""
    return "a VocabInfo, a ClipOrPad, a SegmentInfo or a list of these"


def _check_vocab_source(name: str, source: object) -> None:
    """Refuses what holds no entries or has no order, before anything is read."""
    if source is None or isinstance(
        source, bytes | bytearray | int | float | complex | set | frozenset | Iterator
    ):
        raise SettingsError(
            f"VocabInfo: {name} is a path or URL, or a sequence, array or column of str, bytes or "
            "int, or a mapping of entry to row, or an object that has a vocabulary; "
            f"not a {type(source).__name__}."
        )
    if isinstance(source, str) and not source:
        raise SettingsError(f"VocabInfo: {name} is an empty path.")
    if isinstance(source, FromCheckpoint) and name == "new_vocab":
        raise SettingsError("VocabInfo: new_vocab cannot be FROM_CHECKPOINT: that is the old one.")


def _checked_fallback(value: object) -> tuple[tuple[Any, Any], ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    pairs = tuple(value) if is_list and isinstance(value, Sequence) else (None,)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or pair[0] is None:
            raise SettingsError(
                "VocabInfo: fallback is a list of pairs, a checkpoint and the vocabulary it had: "
                "[('last_week.pt', FROM_CHECKPOINT)]."
            )
        _check_vocab_source("a vocabulary of fallback", pair[1])
    return tuple((pair[0], pair[1]) for pair in pairs if pair is not None)


def _check_share(name: str, value: object) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise SettingsError(f"VocabInfo: {name} is a part, from 0 to 1, not {shown_value(value)}.")


def _check_vocab_size(name: str, size: object) -> None:
    _check_int(name, size, minimum=ALL_ENTRIES)
    if size == 0:
        raise SettingsError(f"VocabInfo: {name} is 0. Use -1 for all entries of the vocabulary.")


def _take_numbers_of_numpy(info: VocabInfo | ClipOrPad | SegmentInfo) -> None:
    for field in fields(info):
        value = getattr(info, field.name)
        if as_python(value) is not value:
            object.__setattr__(info, field.name, as_python(value))


def _check_int(
    name: str, value: object, minimum: int | None = None, *, kind: str = "VocabInfo"
) -> None:
    if not is_whole(value):
        raise SettingsError(f"{kind}: {name} must be an int, not {shown_value(value)}.")
    if minimum is not None and value < minimum:
        raise SettingsError(f"{kind}: {name} is {value}; it must be at least {minimum}.")
    if value >= _NO_COUNT:  # sums of two are still counts of 64 bits
        raise SettingsError(f"{kind}: {name} is {value}, and no table is that large.")


def _check_initializer(info: VocabInfo | ClipOrPad | SegmentInfo) -> None:
    initializer, generator, kind = info.backup_initializer, info.generator, type(info).__name__
    if generator is not None and not isinstance(generator, torch.Generator):
        raise SettingsError(f"{kind}: generator is a torch.Generator, not {generator!r:.60}.")
    if initializer is None or (isinstance(initializer, str) and initializer == KEEP):
        if generator is not None:
            raise SettingsError(f"{kind}: a generator is of no use without a backup_initializer.")
        return
    if not callable(initializer):
        raise SettingsError(
            f"{kind}: backup_initializer is None (zeros), 'keep', one of tws.init such as "
            "init.mean(), or a callable such as torch.nn.init.normal_, not "
            f"{shown_value(initializer)}."
        )
    if getattr(initializer, "__module__", None) == _MAKERS:
        called = f"init.{getattr(initializer, '__name__', '')}"
        raise SettingsError(f"{kind}: {called} makes an initialiser: write {called}(...).")
    if generator is not None and not _takes_generator(initializer):
        raise SettingsError(
            f"{kind}: a generator is given, but backup_initializer takes no argument 'generator'."
        )


def too_few_found(found: int, entries: int, wanted: float, have: str) -> str:
    """That fewer new entries than `min_found` asks for have an old row; "": enough do, of none all.

    Args:
        found: How many have one.
        entries: Of how many.
        wanted: Which part of them is asked for.
        have: What to say of those: `are in the old vocabulary`.
    """
    share = found / entries if entries else 1.0
    if share >= wanted:
        return ""
    return (
        f"{found:,} of {plural(entries, 'new entry')} ({share:.1%}) {have}, and "
        f"min_found={wanted:g} asks for {wanted:.1%}."
    )


def takes_new_rows(initializer: object) -> bool:
    """Whether a callable is told of the new rows, rather than given a whole tensor to fill.

    Those of `tws.init` say so; of others the annotation of their first parameter does.
    """
    if isinstance(initializer, type) or not callable(initializer):
        return False
    known = getattr(initializer, "takes_new_rows", None)
    return _is_annotated(initializer) if known is None else known is True


def _is_annotated(function: Callable[..., Any]) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    annotation = None if first is None else first.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] == "NewRows"


def _takes_generator(function: Callable[..., Any]) -> bool:
    if takes_new_rows(function):
        return True  # a seed is drawn from it
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    return "generator" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
