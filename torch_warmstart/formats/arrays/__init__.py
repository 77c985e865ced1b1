"""Arrays without a framework: numpy's files, zip members, tables of word vectors."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
