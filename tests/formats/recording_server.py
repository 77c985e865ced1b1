"""A web server that notes every request: where it went, and with which headers."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """Files by path, where others lead, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lies: dict[str, str] = field(default_factory=dict)  # headers of every answer
    serves_ranges: bool = True
    status: int = 200  # of answers that hold a file; another one comes without
    everywhere: bytes | None = None  # what is at every other path, and behind another status
    drips: threading.Event | None = None  # until it is set, a body does not come to its end
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> set[str]:
        return {path for path, _ in self.requests}


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            server.requests.append((self.path, dict(self.headers)))
            if self.path in server.redirects:
                self._send(302, b"", {"Location": server.redirects[self.path]}, with_body)
                return
            data = server.files.get(self.path, server.everywhere)
            if server.status != 200:
                self._send(server.status, server.everywhere or b"", {}, with_body)
                return
            if data is None:
                self._send(404, b"", {}, with_body)
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None or not server.serves_ranges:
                self._send(200, data, {"Accept-Ranges": "bytes"}, with_body)
                return
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            told = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self._send(206, data[first : last + 1], told, with_body)

        def _send(self, code: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(code)
            told = {"Content-Length": str(len(body)), **headers, **server.lies}
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                if server.drips is not None:
                    self.wfile.write(body[:1])
                    self.wfile.flush()
                    server.drips.wait()
                    self.close_connection = True
                    return
                self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as running:
        running.daemon_threads = True
        server.port = running.server_port
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        running.shutdown()
