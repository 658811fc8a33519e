"""Runs one leased job and says how it ended. Knows tasks and no Redis; nothing a task does can get past it.

look up -> decode -> context, middleware, dependencies, timeout -> call -> translate
"""

from __future__ import annotations

import asyncio
import difflib
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast

from aqueue.context import Context, Injection, current_context, place
from aqueue.errors import (
    AqueueError,
    BadArguments,
    ConfigurationError,
    Discard,
    NotSerializable,
    PayloadRefused,
    RateLimited,
    RetryLater,
    UnknownTask,
)
from aqueue.job import Failure, Job, JobError
from aqueue.middleware import Middleware, around_run, checked_layers, overrides
from aqueue.queue import Queue
from aqueue.retry import Retry, leaves, narrowed
from aqueue.settings import Settings, seconds, ttl_ms
from aqueue.store import codec
from aqueue.store.records import Cancelled, Completed, Failed, Lease, Limited, Outcome, Released, Retried
from aqueue.task import Task
from aqueue.worker.deadlines import Deadlines
from aqueue.worker.herald import Messengers, herald_for
from aqueue.worker.run import NAME_LIMIT, Reason, Run
from aqueue.worker.threads import Threads

UNKNOWN_TASK_DELAY_SECONDS: Final = 5.0
"""A worker that knows the task, or the new release, has this long to come up before the next look."""
SHORTEST_SECONDS: Final = 0.001
"""The wire's unit: less is no delay."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the runs of one task go; ttls in milliseconds, timeout in seconds."""

    task: Task[..., Any]
    retry: Retry
    timeout: float
    result_ttl_ms: int
    failure_ttl_ms: int

    def for_call(self, headers: codec.Headers) -> _Plan:
        """Give the plan of one call, which may have brought options of its own."""
        timeout_ms = headers.timeout_ms
        if headers.max_attempts is None and timeout_ms is None:
            return self
        timeout = self.timeout if timeout_ms is None else timeout_ms / 1000
        return replace(self, retry=headers.retry_over(self.retry), timeout=timeout)


def _plan_of(task: Task[..., Any], settings: Settings) -> _Plan:
    options = task.defaults
    return _Plan(
        task=task,
        retry=narrowed(options.retry, settings.retry),
        timeout=settings.timeout if options.timeout is None else options.timeout,
        result_ttl_ms=ttl_ms(settings.result_ttl if options.result_ttl is None else options.result_ttl),
        failure_ttl_ms=ttl_ms(settings.failure_ttl if options.failure_ttl is None else options.failure_ttl),
    )


@dataclass(frozen=True, slots=True)
class Shared:
    """What the runs of one worker share, whatever their queue."""

    threads: Threads
    deadlines: Deadlines
    messengers: Messengers = field(default_factory=Messengers)


class Executor:
    """Runs the jobs of one queue."""

    def __init__(self, queue: Queue, middleware: Sequence[Middleware], state: Any, shared: Shared) -> None:
        self._queue = queue
        self._wire = queue.wire
        layers = checked_layers([*queue.middleware, *middleware], "Worker")
        self._around = [layer for layer in layers if overrides(layer, "around_run")]
        self.herald = herald_for(queue, layers, shared.messengers)
        self._state = state
        self._threads = shared.threads
        self._deadlines = shared.deadlines
        self._plans: dict[str, _Plan] = {}

    async def run(self, run: Run) -> Outcome:
        """Run one job to its end, whatever that is. Never raises."""
        try:
            call = self._wire.open_call(run.lease.id, run.lease.envelope)
        except codec.EnvelopeTooNew as error:
            return self._unknown(run, error, too_new=True)
        except BadArguments as error:
            return Failed(_described(error, Failure.INVALID), ttl_ms(self._queue.settings.failure_ttl))
        except PayloadRefused as error:  # its message says it all, where a traceback would only show our own lines
            refusal = JobError(type=type(error).__name__, message=str(error), failure=Failure.INVALID)
            return Failed(refusal, ttl_ms(self._queue.settings.failure_ttl))
        run.name = call.task[:NAME_LIMIT]
        task = self._queue.tasks.get(call.task)
        if task is None:
            return self._unknown(run, UnknownTask(call.task, self.near(call.task)))
        plan = self._plan(task).for_call(call.headers)
        context = self._context(plan, run.lease, call.headers.extra)
        token = current_context.set(context)
        self._deadlines.watch(run, plan.timeout)
        if self.herald is not None:
            run.context = context
            self.herald.started(run)
        try:
            args, kwargs = call.arguments(task.arguments)
            if self._around:
                result = await self._surrounded(task, context, run, args, kwargs)
            else:
                result = await self._call(task, context, args, kwargs)
            encoded = self._wire.encode_result(run.lease.id, result, self._queue.settings.max_bytes)
            return Completed(encoded, plan.result_ttl_ms, task.name)
        except BaseException as error:  # noqa: BLE001  # the boundary of user code: nothing may pass it
            return await self._ended_in(plan, run, error)
        finally:
            self._deadlines.forget(run)
            current_context.reset(token)

    def _plan(self, task: Task[..., Any]) -> _Plan:
        known = self._plans.get(task.name)
        if known is None or known.task is not task:
            known = self._plans[task.name] = _plan_of(task, self._queue.settings)
        return known

    def _context(self, plan: _Plan, lease: Lease, headers: Mapping[str, str]) -> Context:
        return Context(
            task=plan.task.name,
            job=Job(self._queue, lease.id, decode=plan.task.decode_result),
            attempt=lease.attempt + 1,
            max_attempts=plan.retry.max_attempts,
            crashes=lease.crashes,
            state=self._state,
            headers=headers,
        )

    async def _ended_in(self, plan: _Plan, run: Run, error: BaseException) -> Outcome:
        """Say what an exception means for the job; if it was the last that is tried, tell so before that is stored."""
        outcome, reason = _translate(plan, run, error), run.reason
        if self.herald is None or not self.herald.keeps_errors or not isinstance(outcome, Failed | Retried):
            return outcome
        run.raised = error if reason is None else _timed_out(outcome.error, error)
        if isinstance(outcome, Failed) and outcome.error.failure is Failure.EXHAUSTED:
            self._deadlines.forget(run)
            try:
                await self.herald.exhausted(run, outcome)
            except asyncio.CancelledError:  # told to stop meanwhile: who has not heard of it is told by the next run
                return _stopped(run.reason or Reason.SHUTDOWN, plan.result_ttl_ms)
        return outcome

    async def _surrounded(
        self, task: Task[..., Any], context: Context, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        async def call() -> Any:
            run.left_out = False
            return await self._call(task, context, args, kwargs)

        run.left_out = True
        return await around_run(self._around, context, call)()

    def _call(
        self, task: Task[..., Any], context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        """Give what is to be awaited; a coroutine of our own around every job would cost as much as its context."""
        if task.injected:
            return self._call_injected(task, context, args, kwargs)
        return self._invoke(task, args, kwargs)

    async def _call_injected(
        self, task: Task[..., Any], context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        async with Injection(context) as injection:
            provided = await injection.fill(task.injected)
            args, kwargs = place(task.positional, args, kwargs, provided)
            return await self._invoke(task, args, kwargs)

    def _invoke(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        if task.is_async:
            return cast("Awaitable[Any]", task.function(*args, **kwargs))
        return self._threads.run(partial(task.function, *args, **kwargs))

    def _unknown(self, run: Run, error: AqueueError, *, too_new: bool = False) -> Outcome:
        """Hand the job back, for a worker that knows it; fail it once that has lasted too long."""
        settings = self._queue.settings
        if run.lease.unknown_for_ms < settings.unknown_task_window * 1000:
            return Released(UNKNOWN_TASK_DELAY_SECONDS, unknown_task=True, too_new=too_new)
        return Failed(_described(error, Failure.INVALID), ttl_ms(settings.failure_ttl))

    def never_started(self, run: Run) -> Outcome:
        """Say what becomes of a job whose task was cancelled before its first step."""
        return _stopped(run.reason or Reason.SHUTDOWN, ttl_ms(self._queue.settings.result_ttl))

    def known(self) -> list[str]:
        """Give the names of all registered tasks."""
        return sorted(self._queue.tasks)

    def near(self, name: str) -> list[str]:
        """Give the registered names that look like this one."""
        return difflib.get_close_matches(name, self._queue.tasks, n=3)


def _translate(plan: _Plan, run: Run, error: BaseException) -> Outcome:
    """Say what an exception means for the job."""
    if run.reason is Reason.TIMEOUT:
        late = JobError(type="TimeoutError", message=f"the attempt took longer than its timeout of {plan.timeout:g} s")
        return _again(plan, run, late, None) if plan.retry.retry_timeouts else _given_up(plan, late)
    if run.reason is not None:  # whatever its clean-up raised, it ended because it was told to
        return _stopped(run.reason, plan.result_ttl_ms)
    match _signal(error):
        case Discard() as signal:
            discarded = JobError(type="Discard", message=signal.reason, failure=Failure.DISCARDED)
            return Failed(discarded, plan.failure_ttl_ms)
        case RetryLater() | RateLimited() as signal:
            return _later(plan, run, signal)
        case NotSerializable():
            return Failed(_described(error, Failure.INVALID), plan.failure_ttl_ms)
        case _:
            return _raised(plan, run, error)


def _signal(error: BaseException) -> BaseException:
    """Give what was raised; if that is alone in the group that a task group has made of it, then without."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inside = leaves(error)
    return inside[0] if len(inside) == 1 else error


def _later(plan: _Plan, run: Run, signal: RetryLater | RateLimited) -> Outcome:
    try:
        if isinstance(signal, RateLimited):
            return _limited(signal)
        delay = seconds(signal.delay, "the delay of RetryLater")
        if not signal.count and delay < SHORTEST_SECONDS:
            raise ConfigurationError(
                "RetryLater(count=False) needs a delay of at least a millisecond, or it would run on end."
            )
    except ConfigurationError as error:
        return Failed(_described(error, Failure.INVALID), plan.failure_ttl_ms)
    asked = JobError(type="RetryLater", message=signal.reason)
    return _again(plan, run, asked, delay) if signal.count else Released(delay, error=asked)


def _limited(signal: RateLimited) -> Limited:
    delay = seconds(signal.retry_after, "the retry_after of RateLimited")
    return Limited(delay, signal.limiter[:NAME_LIMIT] if isinstance(signal.limiter, str) else "")


def _raised(plan: _Plan, run: Run, error: BaseException) -> Outcome:
    """Ask the task's Retry. Should that raise, the job is not to lose the attempts that it has left."""
    described = _described(error)
    try:
        allowed = plan.retry.allows(error, run.lease.attempt + 1)
    except BaseException as broken:  # noqa: BLE001  # a predicate is user code too
        return _again(plan, run, _with_note(described, broken), None)
    return _again(plan, run, described, None) if allowed else _given_up(plan, described)


def _given_up(plan: _Plan, error: JobError) -> Outcome:
    return Failed(replace(error, failure=Failure.NOT_RETRIED), plan.failure_ttl_ms)


def _with_note(error: JobError, broken: BaseException) -> JobError:
    """Say of a failure that Retry could not judge it."""
    note = _described(broken)
    return replace(
        error,
        message=f"{error.message}\n(Retry could not judge this, so it is retried: {note.type}: {note.message})",
        traceback=f"{error.traceback}\nRetry could not judge it:\n\n{note.traceback}",
    )


def _again(plan: _Plan, run: Run, error: JobError, delay: float | None) -> Outcome:
    attempt = run.lease.attempt + 1
    if plan.retry.exhausted(attempt):
        return Failed(replace(error, failure=Failure.EXHAUSTED), plan.failure_ttl_ms)
    return Retried(error, plan.retry.delay_after(attempt) if delay is None else delay, plan.retry.max_attempts)


def _stopped(reason: Reason, result_ttl_ms: int) -> Outcome:
    """Say what becomes of a job whose run was told to stop."""
    return Cancelled(result_ttl_ms) if reason is Reason.CANCELLED else Released()


def _timed_out(described: JobError, cause: BaseException) -> TimeoutError:
    """Give the error of a run whose code has only seen that it was cancelled, with the place where it was."""
    error = TimeoutError(described.message).with_traceback(cause.__traceback__)
    error.__cause__ = cause
    return error


def _described(error: BaseException, failure: Failure | None = None) -> JobError:
    """Keep of an exception what can be told elsewhere."""
    name = type(error).__name__ if isinstance(error, AqueueError) else _qualified(type(error))
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001  # a task's own exception may do anything when it is printed
        message = f"<its message could not be read: {type(broken).__name__}>"
    return JobError(type=name, message=message, traceback=_traceback(error), failure=failure)


def _qualified(class_: type[BaseException]) -> str:
    return class_.__qualname__ if class_.__module__ == "builtins" else f"{class_.__module__}.{class_.__qualname__}"


def _traceback(error: BaseException) -> str:
    """Format the traceback from the task's own frames on."""
    own = "aqueue"
    frames = error.__traceback__
    while (
        frames is not None
        and frames.tb_next is not None
        and frames.tb_frame.f_globals.get("__name__", "").startswith(f"{own}.")
    ):
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as broken:  # noqa: BLE001  # as above
        return f"<its traceback could not be formatted: {type(broken).__name__}>"
