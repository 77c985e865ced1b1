"""How frameworks lay out the same numbers, as pure functions with their inverses.

A form says what a tensor of a layer is called and how it is laid out. Names within a layer are
written and read in `leaf.py` alone. Nothing here opens a checkpoint or knows a model.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
