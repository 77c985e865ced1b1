from .file import load_place as load_place
from .file import open_file as open_file
