"""Arrays without a framework: numpy's files, zip members, tables of word vectors."""

from torch_warmstart.formats.arrays.numpy_dtypes import native as native
from torch_warmstart.formats.arrays.numpy_dtypes import tensor_of_bytes as tensor_of_bytes
from torch_warmstart.formats.arrays.numpy_dtypes import torch_dtype as torch_dtype
from torch_warmstart.formats.arrays.zip_members import ZipMembers as ZipMembers
