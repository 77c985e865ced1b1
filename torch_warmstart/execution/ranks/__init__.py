"""Several processes that carry out one plan together: `agreement` talks, `all_to_all` sends."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
