"""A real Prometheus (Debian's) beside a mesh: it finds the proxies by the control plane's http_sd, and scrapes every second."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import yaml

MISSING = "needs prometheus (Debian: prometheus)" if shutil.which("prometheus") is None else ""


class Prometheus:
    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self.log = home / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, discovery: str) -> None:
        """`discovery`: URL of the control plane's /sd."""
        # As docs/canary/metrics.md has it, and faster.
        job = {
            "job_name": "meshproxy",
            "honor_labels": True,
            "http_sd_configs": [{"url": discovery, "refresh_interval": "1s"}],
        }
        config = self.home / "prometheus.yml"
        config.write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]})
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "prometheus", f"--config.file={config}"),
                    *(f"--storage.tsdb.path={self.home / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ready(self) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            raise AssertionError(f"prometheus ended:\n{self.log.read_text()}")
        try:
            return self._get("/-/ready") is not None
        except OSError:
            return False

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """(labels, value) of each element of the vector."""
        body = self._get(f"/api/v1/query?query={quote(query)}")
        assert body is not None
        return [(one["metric"], float(one["value"][1])) for one in json.loads(body)["data"]["result"]]

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return body if answer.status == 200 else None
        finally:
            connection.close()
