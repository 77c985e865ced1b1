"""What a user asks for: `WarmStartSettings` and `VocabInfo`, checked when they are made.

Names, order and defaults of the positional fields are TensorFlow's
(`tf.estimator.WarmStartSettings`, `tf.compat.v1.train.VocabInfo`); additions are keyword-only.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.settings.name_rules import RenameSetting, checked_renames, layouts_of
from torch_warmstart.storage import MAX_GAP, Storage

# A path or URL, the entries themselves, or an object that has a vocabulary: what
# `Vocabulary.load` takes. Whoever reads it looks what it is.
VocabSource = Any
Initializer = Callable[..., Any]
OnProblem = Literal["error", "keep"]
FORMS = ("byte_level", "sentencepiece", "wordpiece", "casefold")
Forms = str | Sequence[str] | Mapping[str, str | Sequence[str]]

ALL_ENTRIES = -1
KEEP = "keep"


@dataclass(frozen=True, slots=True)
class FromCheckpoint:
    """The old vocabulary that the checkpoint holds; `["name"]`: that of a layer or table."""

    name: str | None = None

    def __getitem__(self, name: str) -> FromCheckpoint:
        if not isinstance(name, str) or not name:
            raise SettingsError(
                f"FROM_CHECKPOINT takes the name of a layer or table, not {name!r}."
            )
        return FromCheckpoint(name)

    def __repr__(self) -> str:
        return "FROM_CHECKPOINT" + (f"[{self.name!r}]" if self.name else "")


FROM_CHECKPOINT = FromCheckpoint()


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
            must have exactly this many rows, and `num_oov_buckets` more.
        num_oov_buckets: Out-of-vocabulary rows of the new variable, after the vocabulary's; 0 where
            the vocabulary has its own, as Keras's layers have.
        old_vocab: As `new_vocab`, for the vocabulary the checkpoint was trained with. By default
            `FROM_CHECKPOINT`, the one that the checkpoint itself holds.
        old_vocab_size: How many of its entries were used; -1 for all.
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
            the new ones, since an entry's bucket is its hash modulo their number, and they are
            copied.
        forms: In which forms entries are written, if those of one side are not those of the other:
            "byte_level" (`Ġx`, bytes as letters), "sentencepiece" (`▁x`, `<0x0A>`), "wordpiece"
            (`##x`), "casefold"; one, or several, one after the other. A mapping tells the sides
            apart: {"new": "byte_level", "old": ["sentencepiece", "casefold"]}. Entries that are
            alike then are the same entry; several new ones may take one old row.
        min_found: Which part of the new entries must at least be in the old vocabulary, from 0 to
            1; if fewer are, the plan is refused.
        fallback: Where rows of entries come from that are back: a list of pairs, an older
            checkpoint and the vocabulary it had (`FROM_CHECKPOINT`: that beside it or in it),
            newest first. An entry that `old_vocab` does not have takes its row, and its slots,
            from the first of them that has it.
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
            raise SettingsError(f"VocabInfo: where is a function, not {self.where!r}.")
        self.forms_of("new"), self.forms_of("old")  # checks them
        _check_int("axis", self.axis)
        if self.old_num_oov_buckets not in (None, 0, self.num_oov_buckets):
            raise SettingsError(
                f"VocabInfo: old_num_oov_buckets={self.old_num_oov_buckets} and num_oov_buckets="
                f"{self.num_oov_buckets} differ. An entry's bucket is its hash modulo their "
                "number, so old OOV rows mean nothing in the new variable: leave it at 0."
            )
        _check_initializer(self.backup_initializer, self.generator)

    @property
    def has_filter(self) -> bool:
        """Whether it asks for some ids of a table only."""
        return any(v is not None for v in (self.min_frequency, self.since_version, self.where))

    def forms_of(self, side: Literal["new", "old"]) -> tuple[str, ...]:
        """The forms that entries of a side are written in."""
        said = self.forms
        if isinstance(said, Mapping):
            if not set(said) <= {"new", "old"}:
                raise SettingsError(f"VocabInfo: forms has the sides 'new' and 'old', not {said}.")
            said = said.get(side)
        listed = (said,) if isinstance(said, str) else tuple(said or ())
        if not set(listed) <= set(FORMS):
            raise SettingsError(f"VocabInfo: forms are {', '.join(FORMS)}, not {said!r}.")
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
        _check_int("axis", self.axis)
        _check_initializer(self.backup_initializer, self.generator)


AnyVocabInfo = VocabInfo | ClipOrPad
_INFO = (VocabInfo, ClipOrPad)
_INFOS = "var_name_to_vocab_info"
# By name, or for all names that a pattern matches; there it may be a function of the match.
VocabInfos = (
    Mapping[str, AnyVocabInfo]
    | Mapping[re.Pattern[str], AnyVocabInfo | Callable[[re.Match[str]], AnyVocabInfo | None]]
    | Mapping[Any, Any]  # both in one
)


@dataclass(frozen=True)
class WarmStartSettings:
    """Where to warm-start from, which variables, and how names and vocabularies have changed.

    Args:
        ckpt_to_initialize_from: A checkpoint: a path or URL (prefix, directory, file), a
            state_dict, a module, or an open checkpoint. None: what `load_planner` is given.
        vars_to_warm_start: Which variables. A str is a pattern (`re.match`) over *trainable*
            variables, the model's parameters; the default takes all of them. A list of str is
            patterns over *global* variables: parameters and persistent buffers. A list of tensors
            is exactly those parameters and buffers. None: only variables with a VocabInfo.
        var_name_to_vocab_info: Variable name to `VocabInfo` or `ClipOrPad`. A compiled pattern is
            for all selected variables whose whole name it matches; beside it stands one of these,
            or a function from the match to one of these, or to None. The name of a module
            stands for its own variables that have such an axis: weight and bias of a class head.
        var_name_to_prev_var_name: How names differ from the checkpoint's, beyond what is worked out
            (`a.weight` finds `a/kernel`). A mapping of variable name to key, or to a list of keys
            where torch's tensor is made of several; or of scope to scope, both with a dot or slash
            at the end ({"bert.": "model/bert/"}, "/" is the root). Or a sequence of pairs of a
            pattern for the whole name and its replacement, the first that matches counts. Or a
            function from a name to a key, a list of keys or None. Or `NameRules`, for all of these,
            as `load_rules` returns them, with the layouts among them; or `Suggestions`, of which
            those of high confidence are taken. A leaf may be torch's or TensorFlow's: `old.weight`
            finds `old/kernel`. A rule that is for no selected variable is an error.
        var_name_to_layout: Variable name to the layout change to apply instead of the one that its
            module type calls for: "identity" or "transpose".
        on_missing: "error", or "keep" variables that the checkpoint does not have as they are.
        on_mismatch: "error", or "keep" variables whose shape or dtype does not fit as they are, and
            take layers without what the model's are made without (`bias=False`).
        verify: Check what will be read against the checkpoint's checksums before the model changes.
        format: What the checkpoint is, where its content does not tell; see docs/formats.md.
        entry: Which mapping of a nested torch checkpoint is meant, as a path of keys: "model",
            "ema/model". None: the only one there is besides optimizer states.
        optimizer_entry: Which optimizer's state of a nested torch checkpoint is meant, as a path of
            keys: "optimizers/critic", "optimizer_states/0". None: all; a slot must be in only one.
        storage_options: Passed to fsspec for checkpoints and vocabularies that are URLs.
        filesystem: "fsspec", "gfile" (TensorFlow's own filesystems) or "auto".
        max_gap: Of a remote file, bytes between two ranges that are rather fetched for nothing
            than left out at the price of another request.
        mirror_dir: Where copies of what is fetched of remote files lie, while they are needed.
            None: where Python's `tempfile` says.
        mirror_limit: Bytes that these copies may take together. None: as much as there is room.

    In every name of a variable, `a/b` may be written for `a.b`.

    Raises:
        SettingsError: a field has an impossible value.
    """

    ckpt_to_initialize_from: Any
    vars_to_warm_start: str | list[str] | list[torch.Tensor] | None = ".*"
    var_name_to_vocab_info: VocabInfos | None = None
    var_name_to_prev_var_name: RenameSetting | None = None
    _: KW_ONLY
    var_name_to_layout: Mapping[str, str] | None = field(default=None)
    on_missing: OnProblem = "error"
    on_mismatch: OnProblem = "error"
    verify: bool = True
    format: str | None = None
    entry: str | None = None
    optimizer_entry: str | None = None
    storage_options: Mapping[str, Any] | None = None
    filesystem: Literal["auto", "fsspec", "gfile"] = "auto"
    max_gap: int = MAX_GAP
    mirror_dir: str | os.PathLike[str] | None = None
    mirror_limit: int | None = None

    @property
    def named_infos(self) -> dict[str, AnyVocabInfo]:
        """Of `var_name_to_vocab_info`, what is for a variable or module by its name."""
        infos: Mapping[Any, Any] = self.var_name_to_vocab_info or {}
        return {key: info for key, info in infos.items() if isinstance(key, str)}

    @property
    def pattern_infos(self) -> dict[re.Pattern[str], Any]:
        """Of the same, what is for all that a pattern matches."""
        infos: Mapping[Any, Any] = self.var_name_to_vocab_info or {}
        return {key: info for key, info in infos.items() if isinstance(key, re.Pattern)}

    @property
    def storage(self) -> Storage:
        """Where files come from, as these settings say."""
        options, limit = self.storage_options or {}, self.mirror_limit
        return Storage(options, self.filesystem, self.max_gap, self.mirror_dir, limit)

    def __post_init__(self) -> None:
        source = self.ckpt_to_initialize_from
        if isinstance(source, str | bytes) and not source:  # None: a load_planner's
            raise SettingsError("`ckpt_to_initialize_from` must be set in WarmStartSettings.")
        _check_selection(self.vars_to_warm_start)
        infos = _checked_infos(self.var_name_to_vocab_info)
        object.__setattr__(self, _INFOS, infos)
        layouts_by_name = _checked_mapping("var_name_to_layout", self.var_name_to_layout, str)
        object.__setattr__(self, "var_name_to_layout", layouts_by_name)
        renames = checked_renames(self.var_name_to_prev_var_name)
        object.__setattr__(self, "var_name_to_prev_var_name", renames)
        layouts = {**layouts_of(renames), **(self.var_name_to_layout or {})}
        object.__setattr__(self, "var_name_to_layout", layouts or self.var_name_to_layout)
        for name in ("on_missing", "on_mismatch"):
            if getattr(self, name) not in ("error", "keep"):
                raise SettingsError(f"{name} is 'error' or 'keep', not {getattr(self, name)!r}.")
        where = self.optimizer_entry
        if where is not None and not (isinstance(where, str) and where.strip("/")):
            raise SettingsError(
                "optimizer_entry is a path of keys in a nested checkpoint, such as 'optimizer' or "
                f"'optimizer_states/0', not {where!r}."
            )
        _ = self.storage  # checks its fields


def _check_selection(selection: object) -> None:
    if selection is None:
        return
    if isinstance(selection, str):
        if not selection:
            raise SettingsError(
                "vars_to_warm_start is an empty pattern. Use '.*' for all trainable variables, or "
                "None for only those with a VocabInfo (which is what TensorFlow makes of '')."
            )
        _compile(selection)
        return
    if not isinstance(selection, list):
        raise SettingsError(
            f"vars_to_warm_start must be a str, a list or None, not a {type(selection).__name__}."
        )
    if not selection:
        raise SettingsError("vars_to_warm_start is an empty list, which selects nothing.")
    if all(isinstance(item, str) for item in selection):
        for pattern in selection:
            _compile(pattern)
    elif not all(isinstance(item, torch.Tensor) for item in selection):
        found = sorted({type(item).__name__ for item in selection})
        raise SettingsError(
            "A list in vars_to_warm_start must be all str (patterns over global variables) or all "
            f"tensors of the model; found {', '.join(found)}."
        )


def _compile(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"vars_to_warm_start: {pattern!r} is not a regular expression: {error}."
        ) from error


def _checked_mapping(
    name: str, mapping: object, value_type: type | tuple[type, ...]
) -> dict[Any, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{name} must be a mapping, not a {type(mapping).__name__}.")
    for key, value in mapping.items():
        if not isinstance(key, str) or not isinstance(value, value_type) or value == "":
            raise SettingsError(
                f"{name} maps variable names (str) to {_named(value_type)}; found {key!r}: "
                f"{value!r}."
            )
    return dict(mapping)


def _checked_infos(mapping: object) -> dict[Any, Any]:
    """`var_name_to_vocab_info`, whose keys may be patterns too."""
    if not isinstance(mapping, Mapping):
        return _checked_mapping(_INFOS, mapping, _INFO)
    patterns = {key: value for key, value in mapping.items() if isinstance(key, re.Pattern)}
    for key, value in patterns.items():
        if not isinstance(key.pattern, str) or not (isinstance(value, _INFO) or callable(value)):
            raise SettingsError(
                f"{_INFOS}: the pattern {key.pattern!r} is for a VocabInfo, a ClipOrPad or a "
                f"function of its match that returns one; found {value!r}."
            )
    named = {key: value for key, value in mapping.items() if key not in patterns}
    _checked_mapping(_INFOS, named, _INFO)
    return dict(mapping)  # a copy: later changes to theirs have no effect


def _named(types: type | tuple[type, ...]) -> str:
    listed = types if isinstance(types, tuple) else (types,)
    return " or ".join(one.__name__ for one in listed)


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(f"VocabInfo: {name} is a part, from 0 to 1, not {value!r}.")


def _check_vocab_size(name: str, size: object) -> None:
    _check_int(name, size, minimum=ALL_ENTRIES)
    if size == 0:
        raise SettingsError(f"VocabInfo: {name} is 0. Use -1 for all entries of the vocabulary.")


def _check_int(name: str, value: object, minimum: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"VocabInfo: {name} must be an int, not {value!r}.")
    if minimum is not None and value < minimum:
        raise SettingsError(f"VocabInfo: {name} is {value}; it must be at least {minimum}.")


def _check_initializer(initializer: object, generator: torch.Generator | None) -> None:
    if initializer is None or initializer == KEEP:
        if generator is not None:
            raise SettingsError("VocabInfo: a generator is of no use without a backup_initializer.")
        return
    if not callable(initializer):
        raise SettingsError(
            "VocabInfo: backup_initializer is None (zeros), 'keep' or a callable such as "
            f"torch.nn.init.normal_, not {initializer!r}."
        )
    if generator is not None and not _takes_generator(initializer):
        raise SettingsError(
            "VocabInfo: a generator is given, but backup_initializer takes no argument 'generator'."
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
