"""Bytes from anywhere: local files mapped, remote ones fetched range by range.

The one door for bytes; nothing here knows what they mean.
"""

from torch_warmstart.storage.files import Bytes as Bytes
from torch_warmstart.storage.files import ByteSource as ByteSource
from torch_warmstart.storage.files import check_range as check_range
from torch_warmstart.storage.guards import Guard as Guard
from torch_warmstart.storage.leases import Leases as Leases
from torch_warmstart.storage.leases import copied as copied
from torch_warmstart.storage.leases import is_safe as is_safe
from torch_warmstart.storage.local import LocalFile as LocalFile
from torch_warmstart.storage.ranges import NO_RANGES as NO_RANGES
from torch_warmstart.storage.ranges import Range as Range
from torch_warmstart.storage.ranges import RangeArray as RangeArray
from torch_warmstart.storage.ranges import Ranges as Ranges
from torch_warmstart.storage.ranges import shifted as shifted
from torch_warmstart.storage.storage import LOCAL as LOCAL
from torch_warmstart.storage.storage import MAX_GAP as MAX_GAP
from torch_warmstart.storage.storage import Storage as Storage
from torch_warmstart.storage.urls import base_name as base_name
from torch_warmstart.storage.urls import below as below
from torch_warmstart.storage.urls import is_remote as is_remote
from torch_warmstart.storage.urls import is_signed as is_signed
from torch_warmstart.storage.urls import join as join
from torch_warmstart.storage.urls import parent as parent
