"""aqueue: an asyncio-native job queue on Redis and Valkey.

    from aqueue import Queue

    queue = Queue("default")

    @queue.task
    async def fetch_title(url: str) -> str: ...

    job = await fetch_title.enqueue("https://example.org")
    title = await job.result(timeout=10)

Reading order of the package: job.py (states), store/lua/*.lua (transitions), store/client.py (one method per
transition), worker/executor.py (one run), worker/fetcher.py, worker/worker.py, then queue.py and task.py.
"""

from aqueue.context import Context, Depends, current_job
from aqueue.errors import (
    AqueueError,
    BadArguments,
    ConfigurationError,
    Discard,
    DurabilityError,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    LeaseLost,
    NotSerializable,
    PayloadRefused,
    RateLimited,
    ResultTimeout,
    RetryLater,
    ScheduleNotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TaskError,
    UnknownTask,
    UnsafeServer,
)
from aqueue.failed import FailedJobs, FailedPage
from aqueue.job import Attempt, Cancellation, Failure, Job, JobInfo, JobState
from aqueue.keyring import Encryption, Signing
from aqueue.limiters import Limiter, Permit
from aqueue.limits import Concurrency, Rate, Window
from aqueue.middleware import Middleware
from aqueue.pausing import Paused
from aqueue.queue import Queue, enqueue
from aqueue.retry import Retry
from aqueue.schedules import ScheduleInfo
from aqueue.settings import Settings
from aqueue.task import Task
from aqueue.unique import Debounce, Throttle, Unique
from aqueue.worker.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AqueueError",
    "Attempt",
    "BadArguments",
    "Cancellation",
    "Concurrency",
    "ConfigurationError",
    "Context",
    "Debounce",
    "Depends",
    "Discard",
    "DurabilityError",
    "Encryption",
    "FailedJobs",
    "FailedPage",
    "Failure",
    "Job",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "JobState",
    "LeaseLost",
    "Limiter",
    "Middleware",
    "NotSerializable",
    "Paused",
    "PayloadRefused",
    "Permit",
    "Queue",
    "Rate",
    "RateLimited",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Settings",
    "Signing",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Task",
    "TaskError",
    "Throttle",
    "Unique",
    "UnknownTask",
    "UnsafeServer",
    "Window",
    "Worker",
    "current_job",
    "enqueue",
]
