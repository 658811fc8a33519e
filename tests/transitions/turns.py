"""Words for a worker's turn: worker `me` has taken turn 1 and now takes turn 2."""

from __future__ import annotations

from aqueue.job import JobError, JobId, LeaseToken, WorkerId
from aqueue.store.client import Client
from aqueue.store.codec import encode_error
from aqueue.store.records import Outcome, Settle, Turn
from transitions.store_image import Image

ME = WorkerId("me")
BOOM = JobError(type="ValueError", message="boom")
BOOM_STORED = encode_error(BOOM).decode()

TURN_TAKEN: Image = {"workers": {"me": 20}, "worker:me": {"turn": 2, "refused": ""}}
"""What every turn leaves behind, whatever it settles and claims."""


def settle(job_id: str, outcome: Outcome, token: str = "me/1") -> Settle:
    return Settle(JobId(job_id), LeaseToken(token), outcome)


async def take_turn(client: Client, *settles: Settle, free: int = 0, number: int = 2, worker: WorkerId = ME) -> Turn:
    return await client.settle_and_claim(worker, number, settles, free)


def claimed(turn: Turn) -> list[tuple[str, str]]:
    """Give id and token of each lease, in order."""
    return [(lease.id, lease.token) for lease in turn.leases]
