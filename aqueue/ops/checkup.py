"""`aqueue doctor`: is this server fit to keep jobs, is every queue served, and is every job where it should be?

From facts to judgements; the facts come from the store. A problem is what loses, stops or hides jobs now; a warning is
what may do so one day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from aqueue.job import QueueName, WorkerId
from aqueue.ops.render import count, duration
from aqueue.ops.reports import CheckRow, Checkup, FindingRow, Level
from aqueue.ops.site import Site, worker_rows
from aqueue.queue import Queue
from aqueue.settings import Settings
from aqueue.store.misfits import Misfit
from aqueue.store.preflight import OLDEST
from aqueue.store.records import Fault, QueueStats
from aqueue.store.survey import Survey, repair, survey
from aqueue.store.vitals import Vitals, vitals

MEMORY_WARNING: Final = 0.75
MEMORY_PROBLEM: Final = 0.90
"""Of maxmemory; beyond it enqueue is refused. A backlog grows fast while its workers are away."""
CLOCK_WARNING_SECONDS: Final = 2.0
"""The server's clock decides everything; a difference shifts only what is due `at` a time of day."""
LATENCY_WARNING_SECONDS: Final = 0.02
"""A network within one place answers in less than one millisecond."""
STUCK_SECONDS: Final = 60.0
"""A free worker takes a waiting job within milliseconds, and within two seconds in the worst case."""
ROUNDS: Final = 3
"""One repair may bring another fault to light, such as a job that is in two wrong places."""

REMEDIES: Final = {
    Fault.UNREADABLE: ("its record cannot be read; remove it with `aqueue delete ID`", ""),
    Fault.RECORD_LOST: ("its record is gone, its arguments are left", "listed as failed, for you to decide"),
    Fault.ARGUMENTS_LOST: ("it waits, but its arguments are gone", "failed, with this reason"),
    Fault.QUEUED_NOWHERE: ("queued, but in no list", "put at the front of the queue"),
    Fault.SCHEDULED_NOWHERE: ("scheduled, but not in the schedule", "scheduled again for the same time"),
    Fault.RUNNING_NOWHERE: ("running, but held by no worker", "given back to its worker, or reclaimed after a lease"),
    Fault.FAILED_UNLISTED: ("failed, but not listed among the failed", "listed"),
    Fault.DUE_WITHOUT_JOB: ("in the schedule, but not scheduled", "taken out of the schedule"),
    Fault.FAILED_WITHOUT_JOB: ("listed among the failed, but not failed", "taken off the list"),
}
"""What each fault means, and what a repair does about it."""
FORGOTTEN: Final = ("not in the fleet, but keys of it are left", "reclaimed after one more lease")


async def examine(site: Site, names: Sequence[str], limit: int, *, mend: bool) -> Checkup:
    """Look at the server, at the chosen queues and at their jobs; put right what can be if `mend` is set.

    Errors: NotFound, StoreUnavailable, StoreError.
    """
    queues = site.chosen(names)
    findings, whole = await _findings(queues, limit, mend=mend)
    checks: list[CheckRow] = []
    for store in await site.one_store_per_node():
        checks += judge_server(await vitals(store))
    stats = await site.readable_stats()
    free = [row for row in worker_rows(stats) if row.running < row.concurrency]
    idle = {WorkerId(row.worker): f"{row.host}:{row.pid}" for row in free}
    chosen = {queue.name: queue.settings for queue in queues}
    for one in stats:
        if one.name in chosen:
            checks += judge_queue(one, chosen[QueueName(one.name)], idle)
    return Checkup(url=site.address, checks=checks, findings=findings, whole=whole, limit=limit)


async def _findings(queues: Sequence[Queue], limit: int, *, mend: bool) -> tuple[list[FindingRow], bool]:
    rows: list[FindingRow] = []
    whole = True
    for _ in range(ROUNDS if mend else 1):
        surveys = await survey([queue.unchecked_store() for queue in queues], limit)
        whole = all(one.whole for one in surveys)
        seen = [row for one in surveys for row in await _finding_rows(one, mend=mend)]
        rows = [row for row in rows if row.repaired] + seen
        if not any(row.repaired for row in seen):
            break
    return rows, whole


async def _finding_rows(found: Survey, *, mend: bool) -> list[FindingRow]:
    jobs, workers = await repair(found) if mend else ([], [])
    queue = found.store.keys.queue

    def row(kind: str, name: str, fault: str, words: tuple[str, str], *, repaired: bool) -> FindingRow:
        what, remedy = words
        return FindingRow(
            queue=queue,
            kind=kind,
            id=name,
            fault=fault,
            what=what.replace("ID", name),
            remedy=remedy,
            repaired=repaired,
        )

    return [
        *(row("key", one.key, "wrong_type", (_misfit(one), ""), repaired=False) for one in found.misfits),
        *(row("worker", name, "forgotten", FORGOTTEN, repaired=name in workers) for name in found.workers),
        *(
            row("job", job_id, fault.value, REMEDIES[fault], repaired=job_id in jobs)
            for job_id, fault in found.jobs.items()
        ),
    ]


def _misfit(one: Misfit) -> str:
    return f"a {one.found} where aqueue keeps a {' or a '.join(one.wanted)}; rename or remove it"


# the server


def judge_server(seen: Vitals) -> list[CheckRow]:
    """Say what one server is good for."""
    checks = [_version, _role, _eviction, _persistence, _memory, _cluster] if seen.info else []
    rows = [check(seen) for check in (*checks, _clock, _latency, _scripts)]
    if seen.refused:
        asked = ", ".join(seen.refused)
        rows.append(_row("permissions", Level.WARNING, f"this user may not ask: {asked}; that much is unknown"))
    return [row for row in rows if row is not None]


def _row(check: str, level: Level, text: str, queue: str | None = None) -> CheckRow:
    return CheckRow(queue=queue, check=check, level=level, text=text)


def _version(seen: Vitals) -> CheckRow:
    valkey = seen.info.get("valkey_version")
    product, text = ("valkey", valkey) if valkey else ("redis", seen.info.get("redis_version", "0"))
    version = tuple(int(part) for part in text.split(".") if part.isdigit())
    if version < OLDEST[product]:
        wanted = ".".join(map(str, OLDEST[product]))
        return _row("version", Level.PROBLEM, f"{product} {text} is too old; upgrade it to {wanted} or newer")
    return _row("version", Level.OK, f"{product} {text}")


def _role(seen: Vitals) -> CheckRow:
    if seen.info.get("role") == "slave":
        where = f"{seen.info.get('master_host')}:{seen.info.get('master_port')}"
        return _row("role", Level.PROBLEM, f"a replica, which refuses jobs; connect to its primary {where}")
    replicas = seen.number("connected_slaves")
    return _row("role", Level.OK, f"primary with {count(replicas, 'replica')}")


def _eviction(seen: Vitals) -> CheckRow:
    policy = seen.info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return _row("eviction", Level.OK, policy)
    return _row("eviction", Level.PROBLEM, f"{policy} silently loses jobs; set maxmemory-policy noeviction")


def _persistence(seen: Vitals) -> CheckRow:
    info = seen.info
    if info.get("aof_enabled") == "1":
        broken = {info.get("aof_last_write_status", "ok"), info.get("aof_last_bgrewrite_status", "ok")} != {"ok"}
        if broken:
            return _row("persistence", Level.PROBLEM, "the append-only file cannot be written; look at the disk")
        return _row("persistence", Level.OK, "append-only file")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return _row(
            "persistence", Level.PROBLEM, "the last snapshot failed, so writes may be refused; look at the disk"
        )
    unsaved = count(seen.number("rdb_changes_since_last_save"), "change")
    return _row("persistence", Level.WARNING, f"a restart loses jobs ({unsaved} unsaved); set appendonly yes")


def _memory(seen: Vitals) -> CheckRow:
    used, limit = seen.number("used_memory"), seen.number("maxmemory")
    human = seen.info.get("used_memory_human", "?")
    if not limit:
        return _row("memory", Level.OK, f"{human} used, no maxmemory")
    share = used / limit
    text = f"{human} of {seen.info.get('maxmemory_human', '?')} used ({share:.0%})"
    if share >= MEMORY_WARNING:
        level = Level.PROBLEM if share >= MEMORY_PROBLEM else Level.WARNING
        return _row("memory", level, f"{text}; add workers, shorten result_ttl or raise maxmemory")
    return _row("memory", Level.OK, text)


def _cluster(seen: Vitals) -> CheckRow | None:
    if seen.info.get("cluster_enabled") != "1" or seen.cluster is None:
        return None
    state = seen.cluster.get("cluster_state", "unknown")
    size = seen.cluster.get("cluster_size", "?")
    if state == "fail":
        return _row("cluster", Level.PROBLEM, "the cluster is down; look at CLUSTER NODES for slots without a server")
    return _row("cluster", Level.OK, f"{state}, {size} primaries")


def _clock(seen: Vitals) -> CheckRow:
    apart = abs(seen.clock_ahead)
    text = f"the server is {duration(apart)} {'ahead' if seen.clock_ahead > 0 else 'behind'}"
    if apart < CLOCK_WARNING_SECONDS:
        return _row("clock", Level.OK, text)
    return _row("clock", Level.WARNING, f"{text}; jobs with at= start by its clock, so set both with NTP")


def _latency(seen: Vitals) -> CheckRow:
    median, worst = seen.round_trips[len(seen.round_trips) // 2], seen.round_trips[-1]
    text = f"{median * 1000:.1f} ms per round trip, {worst * 1000:.1f} ms at worst"
    if median < LATENCY_WARNING_SECONDS:
        return _row("latency", Level.OK, text)
    return _row("latency", Level.WARNING, f"{text}; bring server and workers closer together")


def _scripts(seen: Vitals) -> CheckRow | None:
    if seen.scripts_loaded is None:
        return None
    return _row("scripts", Level.OK, f"{seen.scripts_loaded} of {seen.scripts} loaded, the rest is on first use")


# queues


def judge_queue(stats: QueueStats, settings: Settings, idle: Mapping[WorkerId, str]) -> list[CheckRow]:
    """Say whether one queue is served; `idle` names the workers that have free slots."""
    live = [worker for worker in stats.workers if worker.lease_left > 0]
    troubles = list(_troubles(stats, settings, [idle[worker.id] for worker in live if worker.id in idle]))
    if any(row.level is Level.PROBLEM for row in troubles):
        return troubles
    summary = f"{stats.queued} queued, {stats.running} running, {count(len(live), 'live worker')}"
    return [_row("served", Level.OK, summary, stats.name), *troubles]


def _troubles(stats: QueueStats, settings: Settings, idle: Sequence[str]) -> Iterable[CheckRow]:
    def row(check: str, level: Level, text: str) -> CheckRow:
        return _row(check, level, text, stats.name)

    silent = [worker for worker in stats.workers if worker.lease_left <= 0]
    live = len(stats.workers) - len(silent)
    waits = stats.oldest or 0.0
    if silent:
        longest, held = max(-worker.lease_left for worker in silent), sum(worker.running for worker in silent)
        text = f"{count(len(silent), 'worker')} silent for {duration(longest)} beyond the lease, {held} running there"
        yield row("workers", Level.PROBLEM, f"{text}; start a worker, which takes its jobs back")
    for one in stats.shelves:
        if one.paused_for is not None:
            text = f"task {one.task} paused for {duration(one.paused_for)} with {one.jobs} set aside"
            yield row("paused", Level.WARNING, f"{text}; `aqueue resume {stats.name} --task {one.task}`")
    if stats.paused:
        yield row("paused", Level.WARNING, f"paused with {stats.queued} queued; `aqueue resume {stats.name}`")
    elif stats.queued and not live:
        yield row("served", Level.PROBLEM, f"{stats.queued} queued for up to {duration(waits)} and no live worker")
    elif waits > STUCK_SECONDS and idle:
        text = f"the oldest job has waited for {duration(waits)} although workers have free slots: {', '.join(idle)}"
        yield row("stuck", Level.PROBLEM, f"{text}; restart them and look at their logs")
    if stats.failed >= settings.failure_cap:
        yield row("failed", Level.WARNING, f"{stats.failed} failed, the most that are kept; the oldest are being lost")
    if damaged := stats.counters.get("damaged", 0):
        yield row("damaged", Level.WARNING, f"{count(damaged, 'record')} could not be read since the queue was made")
