"""Which old row each new row takes, and who makes those that take none.

What vocabularies say of rows is read here, once; no value of a table is.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
