"""Web servers: what they answer is checked, and to whom they lead the user's headers do not go.

aiohttp itself drops `Authorization` there, and cookies. Tokens travel under other names as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch_warmstart.errors import StorageError

_WEB = ("http://", "https://")
_OURS = {"accept", "accept-encoding", "range", "user-agent"}  # what a request is made of
_ASKED = re.compile(r"bytes=(\d+)-(\d+)")
_TOLD = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WHOLE, _PARTIAL = 200, 206


def with_checked_client(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a filesystem; of the web, with a client that believes no server."""
    if not url.startswith(_WEB) or "get_client" in options:
        return options
    return {**options, "get_client": _client}


async def _client(**options: Any) -> Any:
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_drop_headers)
    trace.on_request_end.append(_check_range)
    traces = [*(options.pop("trace_configs", None) or ()), trace]
    return aiohttp.ClientSession(**options, trace_configs=traces)


async def _drop_headers(_: Any, __: SimpleNamespace, redirect: Any) -> None:
    """The headers are those that the next request is made of."""
    from yarl import URL

    target = redirect.url.join(URL(redirect.response.headers.get("Location", "")))
    if target.is_absolute() and target.origin() == redirect.url.origin():
        return
    for name in {name for name in redirect.headers if name.lower() not in _OURS}:
        redirect.headers.popall(name)


async def _check_range(_: Any, __: SimpleNamespace, ended: Any) -> None:
    """That an answer is the range that was asked for; its length is checked where it is read."""
    response = ended.response
    asked = _ASKED.fullmatch(ended.headers.get("Range", ""))
    if asked is None or response.status not in (_WHOLE, _PARTIAL):
        return
    first, last = int(asked[1]), int(asked[2])
    if response.status == _WHOLE:
        # Nothing says where it begins. Of a whole file the length tells, unless it is as long.
        wrong = first > 0 and response.headers.get("Content-Length") == str(last - first + 1)
        told = "the whole file"
    else:
        told = response.headers.get("Content-Range", "")
        match = _TOLD.fullmatch(told)
        wrong = match is None or int(match[1]) != first or int(match[2]) > last
    if wrong:
        raise StorageError(
            f"{ended.url}: asked for bytes {first} to {last}, its server answered with "
            f"{told[:100]!r}."
        )
