"""Settings, model and checkpoint become a plan, or every problem at once. No tensor is read."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
