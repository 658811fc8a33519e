"""One tree of errors, each with one sentence that says what to do next."""

from __future__ import annotations

import inspect
import pickle

import pytest

import aqueue
from aqueue import errors

INSTANCES: list[errors.AqueueError] = [
    errors.JobNotFound("j1"),
    errors.JobFailed("j1", "ValueError", "no", "Traceback"),
    errors.JobCancelled("j1"),
    errors.JobExpired("j1"),
    errors.ResultTimeout("j1", 1.5),
    errors.LeaseLost("j1"),
    errors.UnknownTask("fetch_titel", ["fetch_title"]),
    errors.UnknownTask("other", []),
    errors.RateLimited(1.5, "other"),
]
CLASSES = [error for _, error in inspect.getmembers(errors, inspect.isclass) if error.__module__ == "aqueue.errors"]


def test_every_error_is_public_and_in_the_tree() -> None:
    """`except aqueue.AqueueError` is enough, and nobody has to import from a submodule."""
    signals = {errors.RetryLater, errors.Discard}
    for error in CLASSES:
        assert getattr(aqueue, error.__name__) is error
        assert error.__name__ in aqueue.__all__
        assert issubclass(error, errors.AqueueError) != (error in signals)


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (errors.ResultTimeout, TimeoutError),
        (errors.NotSerializable, TypeError),
        (errors.BadArguments, TypeError),
        (errors.ConfigurationError, ValueError),
    ],
)
def test_errors_are_also_what_python_calls_them(error: type[Exception], also: type[Exception]) -> None:
    """Code that knows no aqueue catches them all the same."""
    assert issubclass(error, also)


def test_the_three_families_are_told_apart() -> None:
    """A job that failed, a task that is wrong and a server that is away call for different people."""
    families = (
        errors.JobError,
        errors.TaskError,
        errors.StoreError,
        errors.ConfigurationError,
        errors.RateLimited,
    )
    for error in CLASSES:
        if issubclass(error, errors.AqueueError) and error is not errors.AqueueError:
            assert sum(issubclass(error, family) for family in families) == 1


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_each_message_names_its_subject_and_the_next_step(error: errors.AqueueError) -> None:
    """It is read at three in the morning."""
    text = str(error)
    first = text.partition("\n")[0]
    assert "j1" in first or "titel" in first or "other" in first
    assert ";" in first or "then run it again" in first
    assert first.endswith((".", "?", ":"))


def test_a_failure_keeps_what_the_worker_saw() -> None:
    """As fields for code, as text for people."""
    error = errors.JobFailed("j1", "ValueError", "no", "Traceback (most recent call last): …")
    assert (error.job_id, error.exception_type, error.reason) == ("j1", "ValueError", "no")
    assert error.traceback in str(error)
    assert not str(errors.JobFailed("j1", "ValueError", "no")).endswith("\n")


def test_near_names_are_offered() -> None:
    """Most unknown tasks are slips."""
    assert "did you mean fetch_title?" in str(errors.UnknownTask("fetch_titel", ["fetch_title"]))
    assert "import the module" in str(errors.UnknownTask("other", []))


def test_control_signals_are_no_errors_of_ours() -> None:
    """`except AqueueError` in a job must not catch them."""
    for signal in (errors.RetryLater, errors.Discard):
        assert not issubclass(signal, errors.AqueueError)
        assert isinstance(signal(), Exception)
    assert (errors.RetryLater("5m").delay, errors.RetryLater(1, "why").reason) == ("5m", "why")
    assert errors.Discard("gone").reason == "gone"


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_errors_can_cross_a_process_pool(error: errors.AqueueError) -> None:
    """multiprocessing pickles what a child raises; an error that cannot be read back hangs the pool."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
