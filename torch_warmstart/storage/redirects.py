"""Web servers send people on to other hosts; what the user's headers say stays behind.

aiohttp itself drops `Authorization` there, and cookies. Tokens travel under other names as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

_WEB = ("http://", "https://")
_OURS = {"accept", "accept-encoding", "range", "user-agent"}  # what a request is made of


def without_headers_elsewhere(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a web filesystem, whose client sends no header of the user to another host."""
    if not url.startswith(_WEB) or "get_client" in options:
        return options
    return {**options, "get_client": _client}


async def _client(**options: Any) -> Any:
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_drop_headers)
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
