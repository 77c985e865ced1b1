from .checkpoint import DcpListing as DcpListing
