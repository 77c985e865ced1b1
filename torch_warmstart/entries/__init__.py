"""A vocabulary as a value, and what works on millions of entries at once.

Nothing here knows where a vocabulary comes from or what it is for.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
