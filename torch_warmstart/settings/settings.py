"""What a user asks for: `WarmStartSettings`, checked when they are made.

Names, order and defaults of the positional fields are TensorFlow's
(`tf.estimator.WarmStartSettings`); additions are keyword-only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, check_choice, shown_value
from torch_warmstart.settings.name_rules import RenameSetting, checked_renames, layouts_of
from torch_warmstart.settings.vocab_infos import Infos, check_infos, what_infos_are
from torch_warmstart.storage import MAX_GAP, Storage
from torch_warmstart.values import OnProblem, Opener

_INFOS = "var_name_to_vocab_info"
# By name, or for all names that a pattern matches; there it may be a function of the match.
VocabInfos = (
    Mapping[str, Infos]
    | Mapping[re.Pattern[str], Infos | Callable[[re.Match[str]], Infos | None]]
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
        var_name_to_vocab_info: Variable name to `VocabInfo`, `ClipOrPad` or `SegmentInfo`, or to a
            list of these where several axes change: a cell that is new along more than one of them
            is the first one's of the list. A compiled pattern is for all selected variables whose
            whole name it matches; beside it stands one of these, or a function from the match to
            one of these, or to None. The name of a module stands for its own variables that have
            such an axis: weight and bias of a class head.
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
            module type calls for: "identity", "transpose" or another name of docs/porting.md.
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
    filesystem: Opener = "auto"
    max_gap: int = MAX_GAP
    mirror_dir: str | os.PathLike[str] | None = None
    mirror_limit: int | None = None

    @property
    def named_infos(self) -> dict[str, Infos]:
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
        options, limit = self.storage_options, self.mirror_limit
        return Storage(options, self.filesystem, self.max_gap, self.mirror_dir, limit)

    def __post_init__(self) -> None:
        source = self.ckpt_to_initialize_from
        if isinstance(source, str | bytes) and not source:  # None: a load_planner's
            raise SettingsError("`ckpt_to_initialize_from` must be set in WarmStartSettings.")
        _check_selection(self.vars_to_warm_start)
        if isinstance(self.vars_to_warm_start, list):  # as checked, whatever becomes of theirs
            object.__setattr__(self, "vars_to_warm_start", self.vars_to_warm_start.copy())
        infos = _checked_infos(self.var_name_to_vocab_info)
        object.__setattr__(self, _INFOS, infos)
        layouts_by_name = _checked_layouts(self.var_name_to_layout)
        object.__setattr__(self, "var_name_to_layout", layouts_by_name)
        renames = checked_renames(self.var_name_to_prev_var_name)
        object.__setattr__(self, "var_name_to_prev_var_name", renames)
        layouts = {**layouts_of(renames), **(self.var_name_to_layout or {})}
        object.__setattr__(self, "var_name_to_layout", layouts or self.var_name_to_layout)
        for name in ("on_missing", "on_mismatch"):
            check_choice(name, getattr(self, name), OnProblem)
        for name, kind in (("verify", bool), ("format", str | None)):
            if not isinstance(getattr(self, name), kind):
                raise SettingsError(f"{name} cannot be {getattr(self, name)!r:.60}.")
        where = self.optimizer_entry
        if where is not None and not (isinstance(where, str) and where.strip("/")):
            raise SettingsError(
                "optimizer_entry is a path of keys in a nested checkpoint, such as 'optimizer' or "
                f"'optimizer_states/0', not {where!r:.60}."
            )
        _ = self.storage  # checks its fields


def _check_selection(selection: object) -> None:
    if selection is None:
        return
    if isinstance(selection, str):
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
    if not pattern:
        raise SettingsError(
            "vars_to_warm_start is or has an empty pattern. Use '.*' for all trainable variables, "
            "or None for only those with a VocabInfo (which is what TensorFlow makes of '')."
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"vars_to_warm_start: {pattern!r} is not a regular expression: {error}."
        ) from error


def _checked_layouts(mapping: object) -> dict[str, str]:
    name = "var_name_to_layout"
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{name} must be a mapping, not a {type(mapping).__name__}.")
    for key, value in mapping.items():
        if not isinstance(key, str) or not isinstance(value, str) or value == "":
            raise SettingsError(
                f"{name} maps variable names (str) to str; found {shown_value(key)}: "
                f"{shown_value(value)}."
            )
    return dict(mapping)


def _checked_infos(mapping: object) -> dict[Any, Any]:
    """`var_name_to_vocab_info`, whose keys may be patterns too."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{_INFOS} must be a mapping, not a {type(mapping).__name__}.")
    for key, value in mapping.items():
        is_pattern = isinstance(key, re.Pattern) and isinstance(key.pattern, str)
        if not is_pattern and not isinstance(key, str):
            raise SettingsError(
                f"{_INFOS} maps variable names (str) or compiled patterns to {what_infos_are()}; "
                f"found {shown_value(key)}."
            )
        if not (is_pattern and callable(value)):
            check_infos(f"{_INFOS}: {key.pattern if is_pattern else key!r}", value)
    # A copy: later changes to theirs, or to their lists, have no effect.
    return {k: tuple(v) if isinstance(v, list) else v for k, v in mapping.items()}
