"""Runs jobs: intake, execution, leases and upkeep as agents side by side. `worker.Worker` composes them."""

from aqueue.worker.worker import Worker

__all__ = ["Worker"]
