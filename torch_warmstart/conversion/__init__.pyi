from .convert import Conversion as Conversion
from .convert import convert_checkpoint as convert_checkpoint
from .convert import write_state as write_state
