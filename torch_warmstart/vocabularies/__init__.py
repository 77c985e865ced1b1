"""Vocabularies as people hold them, and from two of them a remapping of rows."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
