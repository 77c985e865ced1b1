"""What TensorFlow's layers call their tensors and how they lay them out, and what optimizers add.

`optimizers.py` has the one list of slots' names: is a key an optimizer's, and of which kind.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
