"""A model seen as named variables. Nothing here knows checkpoints or settings."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
