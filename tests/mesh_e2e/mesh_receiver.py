"""A web server outside the mesh, in the test's own process: webhooks, events and alerts arrive here.

POST /path, body  --heard(path, body)-->  the status it is answered with
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ABC):
    """Serves from the first moment until `end`, each request in a thread of its own."""

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.heard(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @abstractmethod
    def heard(self, path: str, body: bytes) -> int:
        """The status of the answer."""

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
