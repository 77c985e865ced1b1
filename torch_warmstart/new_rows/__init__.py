"""What rows begin with that have no old row.

Old values are seen only through `Values`, which whoever carries out a plan implements.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
