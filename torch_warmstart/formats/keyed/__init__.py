"""Tables that keep their ids: keys and values side by side, each slot with keys of its own.

Recommenders' stacks write them in forms that only they read. Here a table is told by the names of
its tensors or files, whatever holds them; what its lengths say is compared before it is believed.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
