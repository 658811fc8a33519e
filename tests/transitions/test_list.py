"""list: ids of jobs in one state, page by page."""

from __future__ import annotations

import pytest

from aqueue.job import JobState
from aqueue.store.client import Client
from transitions.store_image import Store, failed, queued, running, scheduled, suspect, worker


async def test_queued_jobs_come_in_the_order_in_which_they_start(client: Client, store: Store) -> None:
    """Pages must fit together: no job twice, none left out."""
    before = store.seed(*(queued(name) for name in "abcde"))
    pages = [await client.list_ids(JobState.QUEUED, offset, 2) for offset in (0, 2, 4, 6)]
    assert pages == [["a", "b"], ["c", "d"], ["e"], []]
    assert store.dump() == before


async def test_suspects_are_listed_with_the_queued(client: Client, store: Store) -> None:
    """A job must not vanish from view because it crashed twice."""
    store.seed(queued("a"), suspect("s"))
    assert sorted(await client.list_ids(JobState.QUEUED, 0, 10)) == ["a", "s"]


async def test_scheduled_jobs_come_by_due_time(client: Client, store: Store) -> None:
    """The next to start is the first to see."""
    store.seed(scheduled("late", due=90), scheduled("early", due=30), scheduled("mid", due=60))
    assert await client.list_ids(JobState.SCHEDULED, 0, 2) == ["early", "mid"]
    assert await client.list_ids(JobState.SCHEDULED, 2, 2) == ["late"]


async def test_failed_jobs_come_latest_first(client: Client, store: Store) -> None:
    """Whoever looks wants to see what has just gone wrong."""
    store.seed(failed("old", ttl=50), failed("new", ttl=90), failed("mid", ttl=70))
    assert await client.list_ids(JobState.FAILED, 0, 2) == ["new", "mid"]
    assert await client.list_ids(JobState.FAILED, 2, 2) == ["old"]


async def test_running_jobs_come_from_all_workers(client: Client, store: Store) -> None:
    """There is no list of running jobs but what the workers hold."""
    store.seed(
        running("a", "me/1"), running("b", "me/1"), running("c", "other/1"), worker("me"), worker("other", lease=40)
    )
    first, second = [await client.list_ids(JobState.RUNNING, offset, 2) for offset in (0, 2)]
    assert (len(first), len(second)) == (2, 1)
    assert sorted(first + second) == ["a", "b", "c"]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SCHEDULED, JobState.RUNNING, JobState.FAILED])
async def test_an_empty_queue_has_empty_lists(state: JobState, client: Client, store: Store) -> None:
    """Nothing to show is no error."""
    store.seed()
    assert await client.list_ids(state, 0, 10) == []
