from .numpy_dtypes import native as native
from .numpy_dtypes import tensor_of_bytes as tensor_of_bytes
from .numpy_dtypes import torch_dtype as torch_dtype
from .numpy_files import array_of_npy as array_of_npy
from .zip_members import MAX_RATIO as MAX_RATIO
from .zip_members import ZipMembers as ZipMembers
