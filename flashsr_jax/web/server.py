"""Serves the page on this machine alone, with the headers that browsers want before they give it threads."""

import http.server
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flashsr_jax.errors import UserError

HOST = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".onnx": "application/octet-stream",
}
HEADERS = {
    # Isolation, without which there is no memory that threads share.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing but the page's own files is loaded, and nothing is sent anywhere: that is what the page promises.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
PIECE = 1 << 20


class Server(http.server.ThreadingHTTPServer):
    """Answers GET and HEAD for `files`, by their addresses relative to the page's own, and nothing else."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, Path], port: int = 0):
        """Binds to 127.0.0.1; port 0 is any that is free. Raises UserError where the port is taken."""
        self.files = {"/": files["index.html"], **{f"/{address}": path for address, path in files.items()}}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"{port}: cannot be listened at ({error.strerror}): choose another", "port") from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, *_: Any) -> None:
        """A browser that went away in the middle of a file is no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "flashsr", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if path := self._head():
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    self.wfile.write(piece)

    def do_HEAD(self) -> None:
        self._head()

    def end_headers(self) -> None:
        """Errors have the headers, too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the browser says what it misses."""

    def _head(self) -> Path | None:
        """The file that the address stands for, once its head is sent. Addresses are looked up whole: there is no way
        from them to other files."""
        path = self.server.files.get(urllib.parse.unquote(self.path.partition("?")[0]))
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[path.suffix])
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        return path
