"""Web servers: what they answer is checked, and to whom they lead the user's headers do not go.

aiohttp itself drops `Authorization` there, and cookies. Tokens travel under other names as well.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch_warmstart.errors import CorruptCheckpointError, SettingsError, StorageError, is_number
from torch_warmstart.storage.ranges import NoRangesError
from torch_warmstart.storage.urls import WEB, is_web

_OURS = {"accept", "accept-encoding", "range", "user-agent"}  # what a request is made of
_ASKED = re.compile(r"bytes=(\d+)-(\d+)")
_TOLD = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WHOLE, _PARTIAL = 200, 206
_ABSENT = (404, 410)
_BEHIND = "::"  # between the filesystems of a chain
_MOST_TIMES = 100_000  # of files, of which a server's last word is remembered
_MOST_UNASKED = 64 << 20  # bytes of an answer where no range was asked for, as of a listing
REQUEST_SECONDS = 300.0  # for one request and its answer, unless `storage_options` say otherwise


def with_checked_client(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a filesystem; of the web, with a client that believes no server.

    The options are those of the first of a chain of filesystems (`zip://a.pt::https://...`), and of
    the others by their protocols; one that reads from another may name that itself.
    """
    first, *others = url.split(_BEHIND)
    found = _checked(options) if is_web(first) else dict(options)
    for protocol in {other.partition(":")[0] for other in others if is_web(other)}:
        found[protocol] = _checked(_mapping(options.get(protocol)))
    for which in ("target", "remote"):
        if f"{options.get(f'{which}_protocol')}://" in WEB:
            found[f"{which}_options"] = _checked(_mapping(options.get(f"{which}_options")))
    return found


def _mapping(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {}


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    if "get_client" in options:
        return dict(options)
    return {**options, "get_client": _client, "timeout": _limit(options.get("timeout"))}


def _limit(told: Any) -> Any:
    """How long a request may take in all, so that a server which drips comes to an end."""
    try:
        import aiohttp
    except ImportError:  # fsspec tells what is missing
        return told
    if isinstance(told, aiohttp.ClientTimeout):
        return told
    seconds = REQUEST_SECONDS if told is None else told
    if not is_number(seconds) or not seconds > 0:
        raise SettingsError(
            "storage_options['timeout'] is how many seconds one request may take, or an "
            f"aiohttp.ClientTimeout, not {told!r}."
        )
    return aiohttp.ClientTimeout(total=seconds)


def is_absence(error: FileNotFoundError) -> bool:
    """Whether a file is not there, rather than its server unable or unwilling to say.

    fsspec calls whatever goes wrong with a web server's first answer "not found".
    """
    cause = error.__cause__
    if cause is None or not type(cause).__module__.startswith(("aiohttp.", "asyncio", "builtins")):
        return True
    if isinstance(cause, TimeoutError):
        return False
    status = getattr(cause, "status", None)
    return status in _ABSENT if status is not None else isinstance(cause, FileNotFoundError)


_times: dict[str, str] = {}  # by URL: when a file was changed, as its server told last


def changed_at(url: str) -> str:
    """When a file of the web was changed, as told in its last answer; fsspec of old drops it."""
    if not _times or not is_web(url):
        return ""
    from yarl import URL

    return _times.get(str(URL(url)), "")


async def _client(**options: Any) -> Any:
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_drop_headers)
    trace.on_request_end.append(_check_range)
    trace.on_request_end.append(_note_time)
    traces = [*(options.pop("trace_configs", None) or ()), trace]
    options.setdefault("response_class", _bounded_response())
    return aiohttp.ClientSession(**options, trace_configs=traces)


@functools.cache
def _bounded_response() -> type[Any]:
    """An answer of which no more is kept than was asked for, whatever it unfolds to."""
    import aiohttp

    class Bounded(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                self._body = await _read_of(self)
            return self._body

    return Bounded


async def _read_of(response: Any) -> bytes:
    asked = _ASKED.fullmatch(response.request_info.headers.get("Range", ""))
    is_whole = asked is not None and response.status == _WHOLE
    if asked is not None and is_whole and int(asked[1]):  # nothing else says where it begins
        response.close()
        raise NoRangesError(str(response.url))
    if asked is None or response.status not in (_WHOLE, _PARTIAL):
        limit, why = _MOST_UNASKED, "No listing and no page has as many."
    else:
        limit, why = int(asked[2]) - int(asked[1]) + 1, "So many were asked for."
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > limit:
            response.close()
            if is_whole:
                raise NoRangesError(str(response.url))
            raise CorruptCheckpointError(
                f"{response.url}: its server answers with more than {limit:,} bytes. {why}"
            )
    return bytes(found)


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


async def _note_time(_: Any, __: SimpleNamespace, ended: Any) -> None:
    response = ended.response
    asked = response.history[0].url if response.history else ended.url
    told = response.headers.get("Last-Modified")
    if told is None:
        _times.pop(str(asked), None)
        return
    if len(_times) >= _MOST_TIMES:
        _times.pop(next(iter(_times)), None)
    _times[str(asked)] = told
