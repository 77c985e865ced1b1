"""Tables that keep their ids: keys and values side by side, each slot with keys of its own.

Recommenders' stacks write them in forms that only they read. Here a table is told by the names of
its tensors or files, whatever holds them; what its lengths say is compared before it is believed.
"""

from torch_warmstart.formats.keyed.columns import Columns as Columns
from torch_warmstart.formats.keyed.columns import table_of as table_of
from torch_warmstart.formats.keyed.names import Part as Part
from torch_warmstart.formats.keyed.names import parts_in as parts_in
from torch_warmstart.formats.keyed.names import slots_by_table as slots_by_table
from torch_warmstart.formats.keyed.table import KeyedTable as KeyedTable
from torch_warmstart.formats.keyed.torchrec import torchrec_tables as torchrec_tables
