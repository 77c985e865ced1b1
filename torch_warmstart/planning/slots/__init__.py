"""An optimizer's slots: they follow their parameter, whole or not at all."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
