"""A plan carried out: checked, prepared, written, accounted for. Nothing is decided here."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
