"""What Temporal stores, encrypted: a payload codec with AES-256-GCM.

The form follows Temporal's own example codecs: encoding `binary/encrypted`, the nonce in front of the ciphertext, and
the whole payload (metadata too) inside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/encrypted"
CIPHER = b"AES-256-GCM"
NONCE_BYTES = 12
"""96 bits, the length that NIST SP 800-38D recommends; random, which is safe for 2**32 payloads a key."""


class WrongKey(Exception):
    """A payload was written with another key, or was changed."""


class EncryptingCodec(PayloadCodec):
    """Encrypts every payload with one key of 32 bytes. The key's id (not the key) travels in the metadata."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"an AES-256 key has 32 bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"spamcheck payload key id\0" + key).hexdigest()[:16].encode()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt each payload with a nonce of its own."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt what this codec wrote.

        Raises WrongKey for another key or changed bytes, and for a payload in clear: none is expected.
        """
        return list(self._decrypted(payloads))

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE_BYTES)
        return Payload(
            metadata={"encoding": ENCODING, "encryption-cipher": CIPHER, "encryption-key-id": self.key_id},
            data=nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), self.key_id),
        )

    def _decrypted(self, payloads: Iterable[Payload]) -> Iterable[Payload]:
        for payload in payloads:
            if payload.metadata.get("encoding") != ENCODING:
                raise WrongKey("Temporal holds a payload that is not encrypted: it was not written by this checker")
            key_id = payload.metadata.get("encryption-key-id", b"")
            if key_id != self.key_id:
                raise WrongKey(
                    f"Temporal holds a payload of key {key_id.decode(errors='replace')}, this is key"
                    f" {self.key_id.decode()}: was payload_key changed while a run was active?"
                )
            try:
                clear = self._cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], self.key_id)
            except InvalidTag:
                raise WrongKey("a payload in Temporal's store was damaged or changed") from None
            yield Payload.FromString(clear)
