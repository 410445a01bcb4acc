"""Load Ollama's models into memory, so that the first item of a check does not pay for it.

Arguments: address, seconds for everything, context in tokens, keep-alive, models in order.
"""

import http.client
import json
import sys
import time

address, limit, context, keep_alive, *models = sys.argv[1:]
deadline = time.monotonic() + float(limit)


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def load(model):
    """Status and error of a call that loads a model and generates nothing; status 0: no answer yet."""
    body = {"model": model, "messages": [], "stream": False, "options": {"num_ctx": int(context)}}
    # A number is seconds, and below 0 for ever; everything else a duration.
    body["keep_alive"] = int(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
    connection = http.client.HTTPConnection(address, timeout=max(1.0, deadline - time.monotonic()))
    try:
        connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, str(json.loads(response.read() or b"{}").get("error", ""))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, type(error).__name__
    finally:
        connection.close()


failed = False
for model in models:
    began = time.monotonic()
    while True:
        status, error = load(model)
        # Not listening yet, or busy: both pass.
        if status not in (0, 503) or time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    took = time.monotonic() - began
    if status == http.client.OK and not error:
        say(f"{model} is loaded ({took:.1f} s)")
    else:
        failed = True
        say(f"{model} could not be loaded ({took:.1f} s): HTTP {status} {error}")
sys.exit(failed)
