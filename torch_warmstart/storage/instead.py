"""What hosts give in place of a file: a pointer to it, or a page of HTML."""

from __future__ import annotations

import re

_POINTER = b"version https://git-lfs"  # github.com/git-lfs/git-lfs, docs/spec.md
_PAGE = re.compile(rb"(?is)\s*(?:<\?xml[^>]*>\s*)?(?:<!doctype\s+html|<html[\s>])")


def what_came_instead(head: bytes) -> str:
    """What a file's first bytes show that it is not, and what to do; "" if that is not known."""
    if head.startswith(_POINTER):
        return "is a Git LFS pointer, not the file it stands for: fetch that with `git lfs pull`"
    if _PAGE.match(head):
        return (
            "is a page of HTML, as a server sends it for a folder, a login or what is not there: "
            "pass the address of the file itself"
        )
    return ""
