"""The methods, a module each: what a new row is made of. None knows of another."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
