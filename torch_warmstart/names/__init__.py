"""From a variable's name to the keys of a checkpoint: how names are spelt, and which are near.

What depends on the framework that wrote a checkpoint is one value, its `Conventions`; whoever has
to know asks it for a convention (`finder.conventions`, `conventions_of(checkpoint)`), never for the
framework. A name is looked up, never guessed: two different hits are an error.
"""

from torch_warmstart.names.common import common_rule as common_rule
from torch_warmstart.names.conventions import bare_name as bare_name
from torch_warmstart.names.conventions import conventions_of as conventions_of
from torch_warmstart.names.finder import BY_USER as BY_USER
from torch_warmstart.names.finder import WITHOUT_MODEL as WITHOUT_MODEL
from torch_warmstart.names.finder import Finder as Finder
from torch_warmstart.names.finder import Source as Source
from torch_warmstart.names.finder import with_layout as with_layout
