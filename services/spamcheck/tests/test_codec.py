"""What Temporal stores can only be read with the key."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from spamcheck.codec import EncryptingCodec, WrongKey
from spamcheck.items import Verdict
from spamcheck.messages import Judged
from spamcheck.temporal import data_converter

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
TEXT = "a reasoning that quotes a person"


async def test_a_verdict_comes_back_as_it_was() -> None:
    converter = data_converter(KEY)
    judged = Judged(Verdict(True, 0.75, "ollama/llama3.2", ("shortener", "contact bait"), TEXT))
    [payload] = await converter.encode([judged])
    assert TEXT.encode() not in payload.SerializeToString()
    assert await converter.decode([payload], [Judged]) == [judged]


async def test_messages_of_failures_are_not_in_clear() -> None:
    converter, failure = data_converter(KEY), Failure()
    await converter.encode_failure(ApplicationError(TEXT), failure)
    assert TEXT.encode() not in failure.SerializeToString()
    assert str(await converter.decode_failure(failure)) == TEXT


async def test_equal_payloads_do_not_look_equal() -> None:
    codec, payload = EncryptingCodec(KEY), Payload(metadata={"encoding": b"json/plain"}, data=b'"same"')
    first, second = await codec.encode([payload, payload])
    assert first.data != second.data
    assert await codec.decode([first, second]) == [payload, payload]


async def test_another_key_is_named_not_guessed() -> None:
    [payload] = await EncryptingCodec(KEY).encode([Payload(data=b"x")])
    with pytest.raises(WrongKey, match=EncryptingCodec(OTHER).key_id.decode()):
        await EncryptingCodec(OTHER).decode([payload])


async def test_changed_bytes_are_refused() -> None:
    codec = EncryptingCodec(KEY)
    [payload] = await codec.encode([Payload(data=b"x")])
    payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])
    with pytest.raises(WrongKey, match="damaged"):
        await codec.decode([payload])


async def test_a_payload_that_somebody_put_there_in_clear_is_refused() -> None:
    with pytest.raises(WrongKey, match="not encrypted"):
        await EncryptingCodec(KEY).decode([Payload(metadata={"encoding": b"json/plain"}, data=b"1")])


def test_the_keys_id_does_not_give_the_key_away() -> None:
    assert KEY.hex() not in EncryptingCodec(KEY).key_id.decode()
    assert EncryptingCodec(KEY).key_id == EncryptingCodec(KEY).key_id != EncryptingCodec(OTHER).key_id


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EncryptingCodec(bytes(length))
