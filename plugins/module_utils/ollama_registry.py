# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What a registry says of a model, before anything of it is pulled: its manifest, that is, its layers and their sizes."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from ansible_collections.comses.spamops.plugins.module_utils.ollama_api import (
    DEFAULT_NAMESPACE,
    DEFAULT_REGISTRY,
    full_name,
)

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MAX_BYTES = 4 * 1024 * 1024
"""Longest manifest that is read: the registry protocol's own limit (distribution spec: 4 MiB)."""


class Unknown(Exception):
    """The registry could not be asked, and why. No failure by itself: Ollama may reach it in another way."""


class Manifest(NamedTuple):
    """Layers (digest to bytes, the configuration's among them), and the digests that Ollama may list such a model under."""

    layers: dict[str, int]
    digests: frozenset[str]


def address(reference: str, insecure: bool) -> str:
    """Where the manifest of a model is."""
    name, _dummy, tag = full_name(reference).rpartition(":")
    parts = name.split("/")
    if len(parts) == 1:
        parts.insert(0, DEFAULT_NAMESPACE)
    if len(parts) == 2:
        parts.insert(0, DEFAULT_REGISTRY)
    return f"{'http' if insecure else 'https'}://{parts[0]}/v2/{'/'.join(parts[1:])}/manifests/{tag}"


def manifest(reference: str, insecure: bool, seconds: float) -> Manifest:
    """Read the manifest of a model. Raises Unknown."""
    url = address(reference, insecure)
    request = urllib.request.Request(url, headers={"Accept": MANIFEST_TYPE})  # noqa: S310 (http or https, made above)
    handlers = [urllib.request.ProxyHandler({})] if _is_loopback(request.host) else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as response:
            content = response.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        raise Unknown(f"{url} answered HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        raise Unknown(f"{url} could not be read ({getattr(error, 'reason', error)})") from None
    try:
        return parse(content)
    except (ValueError, KeyError, TypeError):
        raise Unknown(f"{url} gave no manifest") from None


def parse(content: bytes) -> Manifest:
    """Raises ValueError, KeyError or TypeError when it is no manifest."""
    read = json.loads(content)
    parts = [*read["layers"], read["config"]]
    layers = {str(part["digest"]): int(part["size"]) for part in parts}
    # Ollama stores the manifest as it writes it itself, so its digest may differ from that of the registry's bytes.
    own = {
        "schemaVersion": read["schemaVersion"],
        "mediaType": read.get("mediaType", ""),
        "config": _layer(read["config"]),
        "layers": [_layer(part) for part in read["layers"]],
    }
    written = json.dumps(own, separators=(",", ":"), ensure_ascii=False).encode()
    return Manifest(layers, frozenset(f"sha256:{hashlib.sha256(each).hexdigest()}" for each in (content, written)))


def _layer(part: dict[str, Any]) -> dict[str, Any]:
    kept = {name: part[name] for name in ("mediaType", "digest", "size")}
    return kept | ({"from": part["from"]} if part.get("from") else {})


def _is_loopback(netloc: str) -> bool:
    host = netloc.rsplit(":", 1)[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
