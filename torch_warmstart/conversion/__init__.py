"""Tensors written into a file: one after another, whole or not at all, in bounded memory."""

from torch_warmstart.conversion.convert import Conversion as Conversion
from torch_warmstart.conversion.convert import convert_checkpoint as convert_checkpoint
from torch_warmstart.conversion.convert import write_state as write_state
