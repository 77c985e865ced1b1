"""The object graph of a checkpoint: full names, and the layers and optimizers that it tells of."""

from torch_warmstart.formats.tensorflow.objects.layers import METADATA_FILE as METADATA_FILE
from torch_warmstart.formats.tensorflow.objects.layers import Metadata as Metadata
from torch_warmstart.formats.tensorflow.objects.layers import read_metadata as read_metadata
from torch_warmstart.formats.tensorflow.objects.object_graph import ObjectGraph as ObjectGraph
from torch_warmstart.formats.tensorflow.objects.object_graph import (
    is_storage_path as is_storage_path,
)
