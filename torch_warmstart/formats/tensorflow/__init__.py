"""TensorFlow's checkpoints, V2 and V1, and which of them a path stands for."""

from torch_warmstart.formats.tensorflow.object_graph import ATTRIBUTE_SUFFIX as ATTRIBUTE_SUFFIX
from torch_warmstart.formats.tensorflow.object_graph import KEY as KEY
from torch_warmstart.formats.tensorflow.wire import WireError as WireError
