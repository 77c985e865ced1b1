from .listing import list_tensors as list_tensors
