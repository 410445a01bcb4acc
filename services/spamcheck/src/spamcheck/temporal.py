"""How API and worker reach Temporal: one way to connect, one data converter."""

from __future__ import annotations

import dataclasses
import functools
import logging

from temporalio.client import Client
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from .codec import EncryptingCodec
from .settings import Settings


def data_converter(payload_key: bytes) -> DataConverter:
    """JSON, encrypted with `payload_key` (32 bytes); messages and stack traces of failures as well."""
    return dataclasses.replace(
        DataConverter.default,
        payload_codec=EncryptingCodec(payload_key),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


async def connect(settings: Settings, *, lazy: bool) -> Client:
    """A client. `lazy`: connects with the first call, and again after each failure, so this returns at once.

    Raises RuntimeError when not lazy and Temporal does not answer.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=data_converter(settings.payload_key_bytes),
        lazy=lazy,
        runtime=runtime(),
    )


@functools.cache
def runtime() -> Runtime:
    """The SDK's engine, one a process, logging through Python instead of straight to the console."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporal.core"))
    filters = TelemetryFilter(core_level="WARN", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=filters, forwarding=forwarding)))
