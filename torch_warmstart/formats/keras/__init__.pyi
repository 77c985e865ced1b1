from .file import open_place as open_place
