# The public names, a line each: the one place where they stand. `__init__.py` reads it, and so do
# type checkers. A name comes from a folder or a module beside this file, never from inside one.

from .api import apply_plan as apply_plan
from .api import latest_checkpoint as latest_checkpoint
from .api import list_variables as list_variables
from .api import load_checkpoint as load_checkpoint
from .api import load_variable as load_variable
from .api import plan_warm_start as plan_warm_start
from .api import suggest_names as suggest_names
from .api import warm_start as warm_start
from .entries import Vocabulary as Vocabulary
from .errors import CheckpointError as CheckpointError
from .errors import CheckpointNotFoundError as CheckpointNotFoundError
from .errors import CorruptCheckpointError as CorruptCheckpointError
from .errors import Finding as Finding
from .errors import MissingDependencyError as MissingDependencyError
from .errors import MissingTensorError as MissingTensorError
from .errors import PartialWriteError as PartialWriteError
from .errors import PlanError as PlanError
from .errors import SettingsError as SettingsError
from .errors import StorageError as StorageError
from .errors import UnsupportedError as UnsupportedError
from .errors import VocabularyError as VocabularyError
from .errors import WarmStartError as WarmStartError
from .errors import WarmStartWarning as WarmStartWarning
from .execution import VariableAccount as VariableAccount
from .execution import WarmStartReport as WarmStartReport
from .execution import gather_rows as gather_rows
from .formats import Checkpoint as Checkpoint
from .formats import TensorSpec as TensorSpec
from .planning import PlanItem as PlanItem
from .planning import RowAccount as RowAccount
from .planning import WarmStartPlan as WarmStartPlan
from .proof import PortCheck as PortCheck
from .proof import verify_port as verify_port
from .settings import FROM_CHECKPOINT as FROM_CHECKPOINT
from .settings import ClipOrPad as ClipOrPad
from .settings import NameRules as NameRules
from .settings import VocabInfo as VocabInfo
from .settings import WarmStartSettings as WarmStartSettings
from .settings import load_rules as load_rules
from .suggesting import SuggestedRule as SuggestedRule
from .suggesting import Suggestion as Suggestion
from .suggesting import Suggestions as Suggestions
from .suggesting import save_rules as save_rules
from .tensorflow_names import init_from_checkpoint as init_from_checkpoint
from .tensorflow_names import load_and_remap_matrix as load_and_remap_matrix
from .tensorflow_names import warmstart_embedding_matrix as warmstart_embedding_matrix
from .vocabularies import generate_vocab_remapping as generate_vocab_remapping

__version__: str
