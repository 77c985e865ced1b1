"""How frameworks lay out the same numbers, as pure functions with their inverses."""

from torch_warmstart.layouts.layout import IDENTITY as IDENTITY
from torch_warmstart.layouts.layout import IN_PARENT as IN_PARENT
from torch_warmstart.layouts.layout import Form as Form
from torch_warmstart.layouts.layout import Layout as Layout
from torch_warmstart.layouts.layout import Shape as Shape
