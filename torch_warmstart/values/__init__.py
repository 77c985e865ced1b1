"""What the smallest things are made of: frozen classes, and the few words an argument may be.

Nothing here needs torch, so that the command names options without it.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
