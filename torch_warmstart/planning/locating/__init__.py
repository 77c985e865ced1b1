"""Where each variable comes from, by the user's rules or by its names; and why most do not.

A variable that is nowhere is remembered as that: what it means is decided later.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
