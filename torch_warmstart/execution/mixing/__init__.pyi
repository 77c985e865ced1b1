from .fill import fill_mixed as fill_mixed
