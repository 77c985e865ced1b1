"""Warm-start PyTorch models from TensorFlow checkpoints and torch states.

    import torch_warmstart as tws

    report = tws.warm_start(model, "path/to/model_dir")
    print(report)

See `warm_start`, `WarmStartSettings` and `VocabInfo`; docs/getting_started.md has worked examples.
"""

from torch_warmstart.api import (
    apply_plan,
    latest_checkpoint,
    list_variables,
    load_checkpoint,
    load_variable,
    plan_warm_start,
    suggest_names,
    warm_start,
)
from torch_warmstart.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    MissingDependencyError,
    MissingTensorError,
    PlanError,
    SettingsError,
    StorageError,
    UnsupportedError,
    VocabularyError,
    WarmStartError,
)
from torch_warmstart.formats.base import Checkpoint, TensorSpec
from torch_warmstart.gather import gather_rows
from torch_warmstart.plan import PlanItem, RowAccount, WarmStartPlan
from torch_warmstart.remapping import generate_vocab_remapping
from torch_warmstart.rename_rules import NameRules
from torch_warmstart.report import VariableAccount, WarmStartReport
from torch_warmstart.rules_file import load_rules
from torch_warmstart.settings import ClipOrPad, VocabInfo, WarmStartSettings
from torch_warmstart.suggestions import SuggestedRule, Suggestion, Suggestions, save_rules
from torch_warmstart.tf_compat import (
    init_from_checkpoint,
    load_and_remap_matrix,
    warmstart_embedding_matrix,
)
from torch_warmstart.verify import PortCheck, verify_port

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ClipOrPad",
    "CorruptCheckpointError",
    "MissingDependencyError",
    "MissingTensorError",
    "NameRules",
    "PlanError",
    "PlanItem",
    "PortCheck",
    "RowAccount",
    "SettingsError",
    "StorageError",
    "SuggestedRule",
    "Suggestion",
    "Suggestions",
    "TensorSpec",
    "UnsupportedError",
    "VariableAccount",
    "VocabInfo",
    "VocabularyError",
    "WarmStartError",
    "WarmStartPlan",
    "WarmStartReport",
    "WarmStartSettings",
    "apply_plan",
    "gather_rows",
    "generate_vocab_remapping",
    "init_from_checkpoint",
    "latest_checkpoint",
    "list_variables",
    "load_and_remap_matrix",
    "load_checkpoint",
    "load_rules",
    "load_variable",
    "plan_warm_start",
    "save_rules",
    "suggest_names",
    "verify_port",
    "warm_start",
    "warmstart_embedding_matrix",
]
