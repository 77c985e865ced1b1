"""What a model does of its own while it is filled, as long as all can be undone."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
