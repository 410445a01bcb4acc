#!/usr/bin/python3
"""What stands in for the checker's API: its key from systemd's credential, read once; /ok and /metrics behind it."""

import hmac
import os
import pathlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"], "api_key").read_text().strip()
ACTIVE = pathlib.Path("/run/a-check-runs")


class Handler(BaseHTTPRequestHandler):
    """The checker's door."""

    def do_GET(self):
        """Ask for the key before anything else."""
        given = self.headers.get("X-API-Key", "")
        if not given:
            self._answer(401, b'{"detail":"No API key"}')
        elif not hmac.compare_digest(given, KEY):
            self._answer(401, b'{"detail":"Invalid API key"}')
        elif self.path == "/metrics":
            self._answer(200, b"spamcheck_run_active %.1f\n" % ACTIVE.exists())
        else:
            self._answer(200, b'{"status":"ok"}')

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8001), Handler).serve_forever()  # noqa: S104
