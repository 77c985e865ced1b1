"""Checkpoints of every format as a mapping of key to lazy tensor.

A format is a folder or a file here, and a row in `registry.FORMATS`. Every byte of a file is
untrusted.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
