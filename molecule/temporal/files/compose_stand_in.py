#!/usr/bin/env python3
"""In the place of docker-compose: write down the call, and for `up` listen where Temporal's frontend would until told to end."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

with Path("/var/log/compose-calls").open("a") as calls:
    version = os.environ.get("TEMPORAL_VERSION")
    print(json.dumps({"arguments": sys.argv[1:], "version": version, "folder": str(Path.cwd())}), file=calls)
if "up" in sys.argv:
    with socket.create_server((os.environ.get("STAND_IN_ADDRESS", "127.0.0.1"), 7233)):
        signal.sigwait({signal.SIGTERM})
