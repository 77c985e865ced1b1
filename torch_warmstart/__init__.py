"""Warm-start PyTorch models from TensorFlow checkpoints and torch states.

    import torch_warmstart as tws

    report = tws.warm_start(model, "path/to/model_dir")
    print(report)

See `warm_start`, `WarmStartSettings` and `VocabInfo`; docs/getting_started.md has worked examples.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# The public names by the module that each is imported from when it is first asked for, so that to
# import the package costs nothing. For whoever reads types, the same names stand below.
_NAMES_OF = {
    "api": (
        "apply_plan",
        "latest_checkpoint",
        "list_variables",
        "load_checkpoint",
        "load_variable",
        "plan_warm_start",
        "suggest_names",
        "warm_start",
    ),
    "errors": (
        "CheckpointError",
        "CheckpointNotFoundError",
        "CorruptCheckpointError",
        "MissingDependencyError",
        "MissingTensorError",
        "PartialWriteError",
        "PlanError",
        "SettingsError",
        "StorageError",
        "UnsupportedError",
        "VocabularyError",
        "WarmStartError",
        "WarmStartWarning",
    ),
    "formats.base": ("Checkpoint", "TensorSpec"),
    "execution.gather": ("gather_rows",),
    "planning.plan": ("PlanItem", "RowAccount", "WarmStartPlan"),
    "vocabularies.remapping": ("generate_vocab_remapping",),
    "settings.name_rules": ("NameRules",),
    "execution.report": ("VariableAccount", "WarmStartReport"),
    "settings.rules_file": ("load_rules",),
    "settings.settings": ("ClipOrPad", "VocabInfo", "WarmStartSettings"),
    "suggesting.suggestions": ("SuggestedRule", "Suggestion", "Suggestions", "save_rules"),
    "tensorflow_names": (
        "init_from_checkpoint",
        "load_and_remap_matrix",
        "warmstart_embedding_matrix",
    ),
    "proof.verify": ("PortCheck", "verify_port"),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605

if TYPE_CHECKING:
    from torch_warmstart.api import apply_plan as apply_plan
    from torch_warmstart.api import latest_checkpoint as latest_checkpoint
    from torch_warmstart.api import list_variables as list_variables
    from torch_warmstart.api import load_checkpoint as load_checkpoint
    from torch_warmstart.api import load_variable as load_variable
    from torch_warmstart.api import plan_warm_start as plan_warm_start
    from torch_warmstart.api import suggest_names as suggest_names
    from torch_warmstart.api import warm_start as warm_start
    from torch_warmstart.errors import CheckpointError as CheckpointError
    from torch_warmstart.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from torch_warmstart.errors import CorruptCheckpointError as CorruptCheckpointError
    from torch_warmstart.errors import MissingDependencyError as MissingDependencyError
    from torch_warmstart.errors import MissingTensorError as MissingTensorError
    from torch_warmstart.errors import PartialWriteError as PartialWriteError
    from torch_warmstart.errors import PlanError as PlanError
    from torch_warmstart.errors import SettingsError as SettingsError
    from torch_warmstart.errors import StorageError as StorageError
    from torch_warmstart.errors import UnsupportedError as UnsupportedError
    from torch_warmstart.errors import VocabularyError as VocabularyError
    from torch_warmstart.errors import WarmStartError as WarmStartError
    from torch_warmstart.errors import WarmStartWarning as WarmStartWarning
    from torch_warmstart.execution.gather import gather_rows as gather_rows
    from torch_warmstart.execution.report import VariableAccount as VariableAccount
    from torch_warmstart.execution.report import WarmStartReport as WarmStartReport
    from torch_warmstart.formats.base import Checkpoint as Checkpoint
    from torch_warmstart.formats.base import TensorSpec as TensorSpec
    from torch_warmstart.planning.plan import PlanItem as PlanItem
    from torch_warmstart.planning.plan import RowAccount as RowAccount
    from torch_warmstart.planning.plan import WarmStartPlan as WarmStartPlan
    from torch_warmstart.proof.verify import PortCheck as PortCheck
    from torch_warmstart.proof.verify import verify_port as verify_port
    from torch_warmstart.settings.name_rules import NameRules as NameRules
    from torch_warmstart.settings.rules_file import load_rules as load_rules
    from torch_warmstart.settings.settings import ClipOrPad as ClipOrPad
    from torch_warmstart.settings.settings import VocabInfo as VocabInfo
    from torch_warmstart.settings.settings import WarmStartSettings as WarmStartSettings
    from torch_warmstart.suggesting.suggestions import SuggestedRule as SuggestedRule
    from torch_warmstart.suggesting.suggestions import Suggestion as Suggestion
    from torch_warmstart.suggesting.suggestions import Suggestions as Suggestions
    from torch_warmstart.suggesting.suggestions import save_rules as save_rules
    from torch_warmstart.tensorflow_names import init_from_checkpoint as init_from_checkpoint
    from torch_warmstart.tensorflow_names import load_and_remap_matrix as load_and_remap_matrix
    from torch_warmstart.tensorflow_names import (
        warmstart_embedding_matrix as warmstart_embedding_matrix,
    )
    from torch_warmstart.vocabularies.remapping import (
        generate_vocab_remapping as generate_vocab_remapping,
    )
else:  # hidden from type checkers, to which every name would be one

    def __getattr__(name):
        """Imports a public name when it is first asked for."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # found there from now on
        return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
