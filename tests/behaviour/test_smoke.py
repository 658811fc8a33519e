"""The shortest way from enqueue to result."""

from __future__ import annotations

from aqueue import Queue, Worker


async def test_a_job_goes_from_enqueue_to_its_result(queue: Queue) -> None:
    """Everything else rests on this."""

    @queue.task
    async def double(n: int) -> int:
        return 2 * n

    async with Worker(queue):
        job = await double.enqueue(21)
        assert await job.result(timeout=10) == 42
