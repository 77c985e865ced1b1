"""What the tensors taken do not say: what lies beside them, is lost, or is to be compared."""

from torch_warmstart.planning.checks.adapters import find_adapters as find_adapters
from torch_warmstart.planning.checks.altered import find_altered as find_altered
from torch_warmstart.planning.checks.audit import audit_port as audit_port
from torch_warmstart.planning.checks.beside import Beside as Beside
from torch_warmstart.planning.checks.beside import find_beside as find_beside
from torch_warmstart.planning.checks.columns import find_other_columns as find_other_columns
from torch_warmstart.planning.checks.file_audit import untold as untold
from torch_warmstart.planning.checks.lost_parameters import find_lost as find_lost
from torch_warmstart.planning.checks.lost_parameters import say_lost as say_lost
from torch_warmstart.planning.checks.on_meta import is_made_by_module as is_made_by_module
from torch_warmstart.planning.checks.on_meta import left_on_meta as left_on_meta
from torch_warmstart.planning.checks.on_meta import notes_on_meta as notes_on_meta
from torch_warmstart.planning.checks.on_meta import with_makers as with_makers
from torch_warmstart.planning.checks.shuffled import find_shuffled as find_shuffled
