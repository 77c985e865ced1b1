"""How anything is worked out on tensors, whoever does it: a part of one, where it lies, in threads.

Knows no file, no model and no vocabulary.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
