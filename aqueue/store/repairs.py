"""The transitions with which a doctor looks for jobs that are not where they belong, and puts them there."""

from __future__ import annotations

from collections.abc import Sequence

from aqueue.job import JobId, WorkerId
from aqueue.settings import ttl_ms
from aqueue.store import layout
from aqueue.store.part import Part
from aqueue.store.records import Fault, Symptom


class Repairs(Part):
    """Examining and mending the jobs of one queue."""

    async def examine(self, job_ids: Sequence[JobId], look: int) -> list[Symptom]:
        """Tell what is wrong with each job, which for most is nothing; see `Fault` and lua/include/diagnosis.lua.

        `look` is how far into the lists a queued job is looked for; with 0 every queued one counts as found nowhere.
        """
        keys = self.keys
        return await self._run(
            "examine",
            layout.each(layout.symptom, len(job_ids)),
            [*keys.places, keys.shelves, keys.scheduled, keys.failed, keys.workers],
            [keys.base, look],
            each=[key for job_id in job_ids for key in (keys.job(job_id), keys.payload(job_id))],
            items=job_ids,
        )

    async def mend(self, found: Sequence[tuple[JobId, Fault]], look: int) -> list[JobId]:
        """Put jobs where they belong that still have the fault that was found; return which those were."""
        keys, settings = self.keys, self.settings
        return await self._run(
            "mend",
            layout.ids,
            [
                *keys.places, keys.shelves, keys.scheduled, keys.failed, keys.workers,
                keys.stats,
            ],
            [
                keys.base, look, round(settings.lease * 1000), ttl_ms(settings.result_ttl),
                ttl_ms(settings.failure_ttl), settings.failure_cap,
            ],
            each=[key for job_id, _ in found for key in (keys.job(job_id), keys.payload(job_id))],
            items=[word for job_id, fault in found for word in (job_id, fault.value)],
        )  # fmt: skip

    async def readmit(self, workers: Sequence[WorkerId]) -> list[WorkerId]:
        """Give forgotten workers one more lease, so that what they hold is reclaimed; return which those were."""
        keys = self.keys
        each = [key for name in workers for key in (keys.worker(name), keys.inbox(name), keys.held(name))]
        lease_ms = round(self.settings.lease * 1000)
        found = await self._run("readmit", layout.ids, [keys.workers], [lease_ms], each=each, items=workers)
        return [WorkerId(name) for name in found]
