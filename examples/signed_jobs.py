"""Signed jobs: who can write to the server and has no key gets nothing run, and a key is replaced while jobs wait."""

import asyncio
import base64
import secrets

from aqueue import Job, JobFailed, Queue, Settings, Signing, Worker


def key(name: str) -> str:
    """Make a key, as `echo "$name:$(openssl rand -base64 32)"` does. Keep yours in AQUEUE_SIGNING_KEYS instead."""
    return f"{name}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def bank(*keys: str) -> Queue:
    """Give the queue as a process sees it that has these keys: the first signs, all of them verify."""
    queue = Queue("bank", settings=Settings(seal=Signing(",".join(keys))) if keys else None)

    @queue.task
    async def pay(to: str, amount: int) -> str:
        return f"paid {amount} to {to}"

    return queue


async def pay(queue: Queue, to: str, amount: int) -> Job[str]:
    return await queue.enqueue("pay", to, amount)


async def tell(job: Job[str]) -> None:
    try:
        print(await job.result())
    except JobFailed as failure:
        print(f"refused: {failure.reason.partition(' are ')[2].partition(';')[0]}")


async def main() -> None:
    old, new = key("spring"), key("autumn")
    async with bank(old) as queue, bank() as stranger, bank(key("spring")) as forger:
        async with Worker(queue):
            await tell(await pay(queue, "Alice", 10))
            await tell(await pay(stranger, "Mallory", 1000))
            await tell(await pay(forger, "Mallory", 1000))
        waiting = await pay(queue, "Bob", 20)
    async with bank(old, new) as step_one, Worker(step_one):  # everywhere: the new key is known
        await tell(waiting)
    async with bank(new, old) as step_two, Worker(step_two):  # everywhere: it signs
        await tell(await pay(step_two, "Carol", 30))
    async with bank(new) as step_three, Worker(step_three):  # once no job of the old key waits: it stands alone
        await tell(await pay(step_three, "Dave", 40))
        print(f"signed with {step_three.settings.seal!r}")


asyncio.run(main())
