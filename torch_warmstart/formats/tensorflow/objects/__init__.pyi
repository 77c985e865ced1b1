from .layers import METADATA_FILE as METADATA_FILE
from .layers import Metadata as Metadata
from .layers import read_metadata as read_metadata
from .object_graph import ObjectGraph as ObjectGraph
from .object_graph import is_storage_path as is_storage_path
