"""A vocabulary from day to day: updated by counts, compared.

Rows of entries that stay never move. Work goes through blocks of entries, and what is held for an
entry is some ten bytes, so that 100 million fit where their inputs do.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
