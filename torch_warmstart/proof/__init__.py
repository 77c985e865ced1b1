"""Whether a port computes what the original did, and what differs between two checkpoints."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
