from .tables import ChangedTable as ChangedTable
from .tables import TableChange as TableChange
from .tables import copies_of as copies_of
from .tables import find_of as find_of
from .tables import inner_copy as inner_copy
from .tables import padding_rows as padding_rows
from .tables import read_tables as read_tables
from .tables import token_weights as token_weights
