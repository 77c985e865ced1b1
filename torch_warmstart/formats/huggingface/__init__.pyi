from .safetensors import DTYPES as DTYPES
from .safetensors import MAX_HEADER as MAX_HEADER
