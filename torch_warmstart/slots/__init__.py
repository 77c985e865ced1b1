"""Which tensors are an optimizer's state: of the model's optimizers, and in a checkpoint.

A slot follows its variable: here it is told whose it is, where it comes from and what it is written
to; a plan decides what happens to it. What TensorFlow calls slots is `layouts/tensorflow`'s table.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
