"""Names proposed for what a plan would not find.

`tensors` may be proposed, `candidates` are where a layer could be, `suggest` chooses between them,
`rules` stand for many suggestions. A proposal changes nothing: the user's rules do.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
