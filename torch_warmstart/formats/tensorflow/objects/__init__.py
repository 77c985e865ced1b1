"""The object graph of a checkpoint: full names, and the layers and optimizers that it tells of."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
