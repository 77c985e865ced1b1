"""Which tensors of a live model another vocabulary makes anew, or why that cannot be done."""

from torch_warmstart.planning.live.tables import ChangedTable as ChangedTable
from torch_warmstart.planning.live.tables import TableChange as TableChange
from torch_warmstart.planning.live.tables import copies_of as copies_of
from torch_warmstart.planning.live.tables import inner_copy as inner_copy
from torch_warmstart.planning.live.tables import padding_rows as padding_rows
from torch_warmstart.planning.live.tables import read_tables as read_tables
from torch_warmstart.planning.live.tables import token_weights as token_weights
