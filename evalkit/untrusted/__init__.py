"""Reading what others wrote: bounded in size, checked in form, and refused with the file's name when it is not right.

Everything a command is pointed at is untrusted unless SECURITY.md says otherwise.
"""

from evalkit.untrusted.names import check_file_name, inside, is_file, is_portable
from evalkit.untrusted.text import decode, parse_json, read_bytes, read_json_lines, read_text, shown

__all__ = [
    "check_file_name",
    "decode",
    "inside",
    "is_file",
    "is_portable",
    "parse_json",
    "read_bytes",
    "read_json_lines",
    "read_text",
    "shown",
]
