"""What a user asks for: frozen values, checked when they are made, and rules in a file.

Nothing here knows a model or a checkpoint.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
