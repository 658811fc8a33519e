"""From a bound call to the job that is stored. Nothing here awaits, so whatever is refused has left no trace."""

from __future__ import annotations

import logging
from typing import Any

from aqueue.errors import NotSerializable
from aqueue.job_ids import new_job_id
from aqueue.middleware import Outgoing
from aqueue.settings import Settings
from aqueue.store import codec
from aqueue.store.client import ttl_ms
from aqueue.store.keys import unique_digest
from aqueue.store.records import NewJob
from aqueue.store.wire import Wire
from aqueue.task import Call

log = logging.getLogger("aqueue")


def outgoing(call: Call[Any]) -> Outgoing:
    """Give what is sent of a call, for middleware to look at and to add to."""
    return Outgoing(call.task.name, call.args, call.kwargs)


def new_job(call: Call[Any], sent: Outgoing, settings: Settings, wire: Wire) -> NewJob:
    """Make the job that stands for a call, under a new id.

    Errors: NotSerializable, naming the argument or header.
    """
    envelope = encoded(call, sent, settings, wire)
    if len(envelope) > settings.warn_bytes:
        log.warning("the arguments of %s take %d bytes; pass a reference instead", sent.task, len(envelope))
    options = call.task.options_of_calls
    job_id = new_job_id()
    return NewJob(
        id=job_id,
        envelope=wire.seal_call(job_id, sent.task, envelope),
        delay_ms=round(options.delay * 1000) if options.delay else 0,
        at_ms=options.at_ms or 0,
        ttl_ms=round(options.ttl * 1000) if options.ttl else 0,
        digest="" if options.key is None else unique_digest(sent.task, options.key),
        result_ttl_ms=None if options.result_ttl is None else ttl_ms(options.result_ttl),
        failure_ttl_ms=None if options.failure_ttl is None else ttl_ms(options.failure_ttl),
        durable=options.durable or "memory",
    )


def encoded(call: Call[Any], sent: Outgoing, settings: Settings, wire: Wire) -> bytes:
    """Write the envelope of a call, not yet sealed. Errors: as `new_job`."""
    envelope = wire.encode_call(sent.task, sent.args, sent.kwargs, _headers(call, sent))
    if len(envelope) > settings.max_bytes:
        raise NotSerializable(
            f"The arguments of {sent.task} take {len(envelope)} bytes, more than the "
            f"{settings.max_bytes} allowed ({wire.largest_argument(sent.args, sent.kwargs)}); "
            "store the data elsewhere and pass where it is."
        )
    return envelope


def _headers(call: Call[Any], sent: Outgoing) -> codec.Headers:
    given = call.task.overrides
    if not sent.headers and given.timeout is None and given.retry is None:
        return codec.NO_HEADERS
    for name, value in sent.headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise NotSerializable(f"header {name!r} of {sent.task} is not text; middleware must send text.")
    headers = codec.Headers(extra=sent.headers)
    if given.timeout is not None:
        headers.timeout_ms = round(given.timeout * 1000)
    if given.retry is not None:
        headers.set_retry(given.retry)
    return headers
