"""From a bound call to the job that is stored. Nothing here awaits, so whatever is refused has left no trace."""

from __future__ import annotations

import logging
from typing import Any, Final

from aqueue.errors import ConfigurationError, NotSerializable, shown
from aqueue.identity import delay_of, gate_words, unique_claim
from aqueue.job import JobId
from aqueue.middleware import Outgoing
from aqueue.options import HIGHEST_PRIORITY, USUAL_PRIORITY, Options
from aqueue.settings import Settings, ttl_ms
from aqueue.store import codec
from aqueue.store.records import NewJob
from aqueue.store.wire import Wire
from aqueue.task import Call

RANK_WIDTH: Final = 2**43
"""Milliseconds, more than any instant until the year 2248: a higher priority always comes first."""

log = logging.getLogger("aqueue")


def outgoing(call: Call[Any]) -> Outgoing:
    """Give what is sent of a call, for middleware to look at and to add to."""
    return Outgoing(call.task.name, call.args, call.kwargs)


def new_job(call: Call[Any], sent: Outgoing, settings: Settings, wire: Wire, given_id: JobId | None = None) -> NewJob:
    """Make the job that stands for a call, under a new id if none is given.

    Errors: NotSerializable, naming the argument or header.
    """
    envelope = encoded(call, sent, settings, wire)
    if len(envelope) > settings.warn_bytes:
        log.warning("the arguments of %s take %d bytes; pass a reference instead", sent.task, len(envelope))
    options = call.task.options_of_calls
    limits = gate_words(call, sent, settings) if options.limit or settings.limit else ""
    claim = unique_claim(call, sent) if options.key or options.unique else None
    if options.front and (options.delay or options.at_ms):
        raise ConfigurationError("front is for jobs that are to run at once; leave out the delay, or give a priority.")
    job_id = wire.new_id(claim, given_id)
    return NewJob(
        id=job_id,
        envelope=wire.seal_call(job_id, sent.task, envelope, claim),
        delay_ms=round(delay * 1000) if (delay := delay_of(options)) else 0,
        at_ms=options.at_ms or 0,
        ttl_ms=round(options.ttl * 1000) if options.ttl else 0,
        rank=_rank(options, settings),
        front=bool(options.front),
        unique=claim,
        limits=limits,
        result_ttl_ms=None if options.result_ttl is None else ttl_ms(options.result_ttl),
        failure_ttl_ms=None if options.failure_ttl is None else ttl_ms(options.failure_ttl),
        durable=options.durable or "memory",
    )


def _rank(options: Options, settings: Settings) -> int | None:
    """Say where a job stands among the queued ones, see lua/include/queueing.lua; None is the usual place."""
    priority = USUAL_PRIORITY if options.priority is None else options.priority
    if settings.priority_aging:
        return round((HIGHEST_PRIORITY - priority) * settings.priority_aging * 1000)
    return None if priority == USUAL_PRIORITY else (HIGHEST_PRIORITY - priority) * RANK_WIDTH


def encoded(call: Call[Any], sent: Outgoing, settings: Settings, wire: Wire) -> bytes:
    """Write the envelope of a call, not yet sealed. Errors: as `new_job`."""
    envelope = wire.encode_call(sent.task, sent.args, sent.kwargs, _headers(call, sent))
    check_size(envelope, sent, settings, wire)
    return envelope


def check_size(envelope: bytes, sent: Outgoing, settings: Settings, wire: Wire) -> None:
    """Refuse an envelope that is too large. Errors: NotSerializable, naming the largest argument."""
    if len(envelope) > settings.max_bytes:
        raise NotSerializable(
            f"The arguments of {sent.task} take {len(envelope)} bytes, more than the "
            f"{settings.max_bytes} allowed ({wire.largest_argument(sent.args, sent.kwargs)}); "
            "store the data elsewhere and pass where it is."
        )


def _headers(call: Call[Any], sent: Outgoing) -> codec.Headers:
    given = call.task.overrides
    if not sent.headers and given.timeout is None and given.retry is None:
        return codec.NO_HEADERS
    for name, value in sent.headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise NotSerializable(f"header {shown(name)} of {sent.task} is not text; middleware must send text.")
    headers = codec.Headers(extra=sent.headers)
    if given.timeout is not None:
        headers.timeout_ms = round(given.timeout * 1000)
    if given.retry is not None:
        headers.set_retry(given.retry)
    return headers
