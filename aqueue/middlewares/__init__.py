"""Middleware that comes along: written with what anybody can write middleware with."""

from aqueue.middlewares.correlation import Correlation, correlation_id
from aqueue.middlewares.exhausted import OnExhausted
from aqueue.middlewares.lines import Logging
from aqueue.middlewares.metrics import Metrics, Observation
from aqueue.middlewares.reporter import ErrorReporter

__all__ = ["Correlation", "ErrorReporter", "Logging", "Metrics", "Observation", "OnExhausted", "correlation_id"]
