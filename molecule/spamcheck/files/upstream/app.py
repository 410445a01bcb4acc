"""What the containers of the upstream repository would serve, as far as the role asks for it."""

import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

# As compose reads an .env file: nothing within single quotes is special but an escaped quote.
VARIABLES = {
    name: value.replace("\\'", "'")
    for name, value in re.findall(r"^(\w+)='((?:[^']|\\')*)'$", Path(".env").read_text(), re.MULTILINE)
}


class Handler(BaseHTTPRequestHandler):
    """Answers every GET: 200 with the right key, else 401."""

    def do_GET(self):
        allowed = self.headers.get("X-API-Key") == VARIABLES["API_KEY"]
        self.send_response(200 if allowed else 401)
        self.send_header("X-Odd", VARIABLES["ODD"])
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}' if allowed else b'{"detail": "Invalid API key"}')


if __name__ == "__main__":
    HTTPServer(("", 8001), Handler).serve_forever()
