from .merging import plan_several as plan_several
from .returning import with_returned as with_returned
