"""Jobs behind a web application, with the worker in the same process: PORT=8000 python examples/web_app.py."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aqueue import JobError, JobNotFound, JobState, Queue, Worker

queue = Queue("web")


@queue.task
async def render(title: str, pages: int) -> str:
    await asyncio.sleep(0.1 * pages)  # stands for the work
    return f"{title}.pdf"


async def create(request: Request) -> Response:  # curl localhost:8000/jobs -d '{"title": "Sales", "pages": 30}'
    job = await render.enqueue(**await request.json())
    return JSONResponse({"id": job.id}, 202, {"Location": f"/jobs/{job.id}"})


async def show(request: Request) -> Response:
    info = await queue.job(request.path_params["id"]).info()
    result = await render.job(info.id).result() if info.state is JobState.COMPLETED else None
    return JSONResponse({"state": info.state, "result": result, "error": info.error and info.error.message})


async def events(request: Request) -> Response:  # curl --no-buffer localhost:8000/jobs/ID/events
    async def follow(state: JobState) -> AsyncGenerator[str]:
        while not state.ended:
            yield f"data: {state}\n\n"
            with suppress(JobError):  # a second was not enough, or it ended without a result
                await job.result(timeout=1)
            state = await job.status()
        yield f"data: {state}\n\n"

    job = render.job(request.path_params["id"])
    return StreamingResponse(follow(await job.status()), media_type="text/event-stream")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with queue, Worker(queue, grace=5):  # or apart, in this directory: python -m aqueue.worker web_app:queue
        yield


routes = [Route("/jobs", create, methods=["POST"]), Route("/jobs/{id}", show), Route("/jobs/{id}/events", events)]
not_found = {JobNotFound: lambda _, error: Response(str(error), 404)}
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=not_found)
if __name__ == "__main__":  # Ctrl-C is uvicorn's: an embedded worker touches no signals
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=2)
