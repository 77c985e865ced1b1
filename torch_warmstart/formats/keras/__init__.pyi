from .file import open_place as open_place
from .shards import open_shards as open_shards
