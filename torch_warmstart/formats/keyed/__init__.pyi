from .columns import Columns as Columns
from .columns import table_of as table_of
from .folders import without_rows as without_rows
from .names import Part as Part
from .names import parts_in as parts_in
from .names import slots_by_table as slots_by_table
from .table import KeyedTable as KeyedTable
from .torchrec import torchrec_tables as torchrec_tables
