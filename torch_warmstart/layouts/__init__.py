"""How frameworks lay out the same numbers, as pure functions with their inverses."""

from torch_warmstart.layouts.layout import IDENTITY as IDENTITY
from torch_warmstart.layouts.layout import Form as Form
from torch_warmstart.layouts.layout import Layout as Layout
from torch_warmstart.layouts.layout import Shape as Shape
from torch_warmstart.layouts.leaf import ANY as ANY
from torch_warmstart.layouts.leaf import LeafName as LeafName
from torch_warmstart.layouts.leaf import expression as expression
from torch_warmstart.layouts.leaf import read_leaf as read_leaf
