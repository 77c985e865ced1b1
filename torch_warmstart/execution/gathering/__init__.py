"""The hot path: rows from where they are to where they belong, on whatever device. No plan here."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
