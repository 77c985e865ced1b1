"""Slots in states that torch saved: by the parameter's name or its position."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
