"""What the tensors taken do not say: what lies beside them, is lost, or is to be compared."""

from torch_warmstart.planning.checks.altered import find_altered as find_altered
from torch_warmstart.planning.checks.audit import audit_port as audit_port
from torch_warmstart.planning.checks.beside import find_beside as find_beside
from torch_warmstart.planning.checks.file_audit import untold as untold
from torch_warmstart.planning.checks.lost_parameters import find_lost as find_lost
from torch_warmstart.planning.checks.lost_parameters import say_lost as say_lost
