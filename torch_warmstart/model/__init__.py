"""A model seen as named variables. Nothing here knows checkpoints or settings."""

from torch_warmstart.model.memory import Extent as Extent
from torch_warmstart.model.memory import Extents as Extents
from torch_warmstart.model.memory import WrittenMemory as WrittenMemory
from torch_warmstart.model.memory import extent_of as extent_of
from torch_warmstart.model.memory import is_frozen_by_inference as is_frozen_by_inference
from torch_warmstart.model.memory import overlapping as overlapping
from torch_warmstart.model.memory import share_elements as share_elements
from torch_warmstart.model.memory import why_unwritable as why_unwritable
from torch_warmstart.model.patterns import nearest_to_pattern as nearest_to_pattern
from torch_warmstart.model.patterns import select_matching as select_matching
from torch_warmstart.model.variables import WRAPPER_CHILDREN as WRAPPER_CHILDREN
from torch_warmstart.model.variables import Owner as Owner
from torch_warmstart.model.variables import Shape as Shape
from torch_warmstart.model.variables import Slot as Slot
from torch_warmstart.model.variables import Variable as Variable
from torch_warmstart.model.variables import absent_variables as absent_variables
from torch_warmstart.model.variables import canonical_name as canonical_name
from torch_warmstart.model.variables import find_variable as find_variable
from torch_warmstart.model.variables import model_variables as model_variables
from torch_warmstart.model.variables import module_names as module_names
from torch_warmstart.model.variables import select_tensors as select_tensors
