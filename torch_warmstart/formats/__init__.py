"""Checkpoints of every format as a mapping of key to lazy tensor.

A format is a folder or a file here, and a row in `registry.FORMATS`. Every byte of a file is
untrusted.
"""

from torch_warmstart.formats.base import ATTRIBUTE_SUFFIX as ATTRIBUTE_SUFFIX
from torch_warmstart.formats.base import OBJECT_GRAPH_KEY as OBJECT_GRAPH_KEY
from torch_warmstart.formats.base import Block as Block
from torch_warmstart.formats.base import Checkpoint as Checkpoint
from torch_warmstart.formats.base import Family as Family
from torch_warmstart.formats.base import GraphOptimizer as GraphOptimizer
from torch_warmstart.formats.base import NameKind as NameKind
from torch_warmstart.formats.base import SavedLayer as SavedLayer
from torch_warmstart.formats.base import TensorLocation as TensorLocation
from torch_warmstart.formats.base import TensorSpec as TensorSpec
from torch_warmstart.formats.families import family_of as family_of
from torch_warmstart.formats.keyed import KeyedTable as KeyedTable
from torch_warmstart.formats.listing import list_tensors as list_tensors
from torch_warmstart.formats.registry import latest_checkpoint as latest_checkpoint
from torch_warmstart.formats.registry import open_checkpoint as open_checkpoint
from torch_warmstart.formats.saved_optimizers import SavedOptimizer as SavedOptimizer
from torch_warmstart.formats.saved_optimizers import SavedParameter as SavedParameter
