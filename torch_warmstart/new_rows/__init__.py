"""What rows begin with that have no old row."""

from torch_warmstart.new_rows.filling import Constant as Constant
from torch_warmstart.new_rows.filling import Fill as Fill
from torch_warmstart.new_rows.filling import Initialised as Initialised
from torch_warmstart.new_rows.filling import Keep as Keep
from torch_warmstart.new_rows.filling import fill_of_slot as fill_of_slot
from torch_warmstart.new_rows.filling import fill_of_variable as fill_of_variable
from torch_warmstart.new_rows.initialise import initialised as initialised
from torch_warmstart.new_rows.keras_initializers import find_initializer as find_initializer
