"""What rows begin with that have no old row.

Old values are seen only through `Values`, which whoever carries out a plan implements.
"""

from torch_warmstart.new_rows.composing import Made as Made
from torch_warmstart.new_rows.composing import Mixtures as Mixtures
from torch_warmstart.new_rows.composing import Noise as Noise
from torch_warmstart.new_rows.composing import RowInitializer as RowInitializer
from torch_warmstart.new_rows.composing import ask as ask
from torch_warmstart.new_rows.composing import make as make
from torch_warmstart.new_rows.composing import singles_of as singles_of
from torch_warmstart.new_rows.drawing import draw_normals as draw_normals
from torch_warmstart.new_rows.drawing import draw_seed as draw_seed
from torch_warmstart.new_rows.filling import Constant as Constant
from torch_warmstart.new_rows.filling import Fill as Fill
from torch_warmstart.new_rows.filling import Initialised as Initialised
from torch_warmstart.new_rows.filling import Keep as Keep
from torch_warmstart.new_rows.filling import Mixed as Mixed
from torch_warmstart.new_rows.filling import equal_rows as equal_rows
from torch_warmstart.new_rows.filling import fill_of_slot as fill_of_slot
from torch_warmstart.new_rows.filling import fill_of_variable as fill_of_variable
from torch_warmstart.new_rows.initialise import initialised as initialised
from torch_warmstart.new_rows.keras_initializers import find_initializer as find_initializer
from torch_warmstart.new_rows.mixture import Mixture as Mixture
from torch_warmstart.new_rows.mixture import count_equal as count_equal
from torch_warmstart.new_rows.rows import NewRows as NewRows
from torch_warmstart.new_rows.rows import OldRows as OldRows
from torch_warmstart.new_rows.rows import Role as Role
from torch_warmstart.new_rows.rows import Table as Table
from torch_warmstart.new_rows.showing import NewRowsAccount as NewRowsAccount
from torch_warmstart.new_rows.showing import account_of as account_of
