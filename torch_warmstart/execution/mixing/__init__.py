"""New rows made of old ones: one gather of the old rows that are needed, and one segment sum.

What is made is as large as the new rows, never as the table; what is worked with is a block.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
