"""From a variable's name to the keys of a checkpoint: how names are spelt, and which are near.

What depends on the framework that wrote a checkpoint is one value, its `Conventions`; whoever has
to know asks it for a convention (`finder.conventions`, `conventions_of(checkpoint)`), never for the
framework. A name is looked up, never guessed: two different hits are an error.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
