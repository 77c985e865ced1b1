"""How frameworks lay out the same numbers, as pure functions with their inverses.

A form says what a tensor of a layer is called and how it is laid out. Names within a layer are
written and read in `leaf.py` alone. Nothing here opens a checkpoint or knows a model.
"""

from torch_warmstart.layouts.layout import IDENTITY as IDENTITY
from torch_warmstart.layouts.layout import Form as Form
from torch_warmstart.layouts.layout import Layout as Layout
from torch_warmstart.layouts.layout import Shape as Shape
from torch_warmstart.layouts.leaf import ANY as ANY
from torch_warmstart.layouts.leaf import LeafName as LeafName
from torch_warmstart.layouts.leaf import expression as expression
from torch_warmstart.layouts.leaf import read_leaf as read_leaf
from torch_warmstart.layouts.named import squeeze as squeeze
from torch_warmstart.layouts.parametrized import torch_forms as torch_forms
