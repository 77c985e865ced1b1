"""Which tensors are an optimizer's state: of the model's optimizers, and in a checkpoint.

A slot follows its variable: here it is told whose it is, where it comes from and what it is written
to; a plan decides what happens to it. What TensorFlow calls slots is `layouts/tensorflow`'s table.
"""

from torch_warmstart.slots.axes import axes_in_slot as axes_in_slot
from torch_warmstart.slots.finder import SlotFinder as SlotFinder
from torch_warmstart.slots.saved_slots import NoSource as NoSource
from torch_warmstart.slots.saved_slots import SlotSource as SlotSource
from torch_warmstart.slots.saved_slots import slot_keys as slot_keys
from torch_warmstart.slots.targets import SlotTargets as SlotTargets
from torch_warmstart.slots.targets import is_as_planned as is_as_planned
from torch_warmstart.slots.torch_optimizers import needs as needs
from torch_warmstart.slots.twins import OptimizerTwin as OptimizerTwin
from torch_warmstart.slots.twins import Successor as Successor
from torch_warmstart.slots.twins import make_twins as make_twins
from torch_warmstart.slots.variables import Optimizers as Optimizers
from torch_warmstart.slots.variables import left_out as left_out
from torch_warmstart.slots.variables import slot_variables as slot_variables
