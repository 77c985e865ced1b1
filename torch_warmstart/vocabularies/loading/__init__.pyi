from .arrow import exports_arrow as exports_arrow
from .arrow import from_arrow as from_arrow
from .lines import check_lines as check_lines
from .lines import check_no_blanks as check_no_blanks
from .source import read_entries as read_entries
from .source import read_vocabulary as read_vocabulary
from .source import used_rows as used_rows
from .tokenizer_files import is_tokenizer_directory as is_tokenizer_directory
