"""What rows begin with that have no old row."""

from torch_warmstart.new_rows.initialise import initialised as initialised
from torch_warmstart.new_rows.keras_initializers import find_initializer as find_initializer
