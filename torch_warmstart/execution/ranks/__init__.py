"""Several processes that carry out one plan together. Only `agreement` communicates."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
