"""TLS with a private CA and client certificates, spoken to a proxy that ends it in front of a plain server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import trustme
from servers import Server
from typer.testing import CliRunner

from aqueue import Queue, Settings, StoreError, StoreUnavailable, Worker
from aqueue.ops.cli import app
from aqueue.store import connection

WAIT_SECONDS: Final = 20.0
CHUNK: Final = 65_536


class Pki:
    """A CA of our own, what it has signed, and one that nobody knows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca, stranger = trustme.CA(), trustme.CA()
        self.ca = self._write("ca", self._ca.cert_pem)
        self.unknown_ca = self._write("unknown", stranger.cert_pem)
        self.client = self._write("client", self._ca.issue_cert("client").private_key_and_cert_chain_pem)
        self.intruder = self._write("intruder", stranger.issue_cert("client").private_key_and_cert_chain_pem)

    def _write(self, name: str, pem: trustme.Blob) -> str:
        path = str(self._directory / f"{name}.pem")
        pem.write_to_path(path)
        return path

    def server(self, name: str = "localhost", *, wants_certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(name).configure_cert(context)
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_NONE
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def listening(server: Server, context: ssl.SSLContext | None) -> AsyncGenerator[int]:
    """End TLS, or nothing, in front of a server; give the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(CHUNK):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(server.socket))
        try:
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        finally:
            for one in (writer, inner_writer):
                one.close()
                with contextlib.suppress(OSError, ssl.SSLError):
                    await one.wait_closed()

    proxy = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    try:
        yield int(proxy.sockets[0].getsockname()[1])
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def url(port: int, **options: str) -> str:
    return f"rediss://localhost:{port}/0?{urlencode(options)}"


async def refusal(port: int, **options: str) -> StoreError:
    """Give the error of somebody who is not let in, or does not trust the server."""
    async with asyncio.timeout(WAIT_SECONDS):
        queue = Queue("q", url=url(port, **options))
        try:
            with pytest.raises(StoreError) as caught:
                await queue.enqueue("later")
        finally:
            await queue.close()
    return caught.value


async def test_jobs_run_over_tls_with_a_private_ca_and_client_certificates(server: Server, pki: Pki) -> None:
    """All connections of a worker: commands, the parked fetch, the subscription, the heartbeat's thread."""
    async with listening(server, pki.server()) as port:
        address = url(port, ssl_ca_certs=pki.ca, ssl_certfile=pki.client, ssl_keyfile=pki.client)
        async with Queue("q", url=address, settings=Settings(lease=1)) as queue:

            @queue.task
            async def double(n: int) -> int:
                return 2 * n

            async with Worker(queue):
                jobs = await queue.enqueue_many(double.call(n) for n in range(100))
                assert [await job.result(timeout=WAIT_SECONDS) for job in jobs] == [2 * n for n in range(100)]
            result = await asyncio.to_thread(CliRunner().invoke, app, ["stats", "--url", address])
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize("trusted", ["unknown_ca", "system"])
async def test_a_server_of_an_unknown_ca_is_refused(trusted: str, server: Server, pki: Pki) -> None:
    """With another private CA, and with those of the system alone; at once, since waiting changes nothing."""
    async with listening(server, pki.server()) as port:
        error = await refusal(port, **({} if trusted == "system" else {"ssl_ca_certs": pki.unknown_ca}))
    assert not isinstance(error, StoreUnavailable)
    assert f"rediss://localhost:{port}/0" in str(error)
    assert "shows a certificate that is not trusted" in str(error)
    assert "name the CA that has signed it with ssl_ca_certs" in str(error)


async def test_a_server_with_another_name_is_refused(server: Server, pki: Pki) -> None:
    """Whoever has any certificate of the same CA could pose as the server, else."""
    async with listening(server, pki.server("elsewhere.example", wants_certificate=False)) as port:
        error = await refusal(port, ssl_ca_certs=pki.ca)
        assert "shows a certificate for another name" in str(error)
        for off in ({"ssl_check_hostname": "false", "ssl_ca_certs": pki.ca}, {"ssl_cert_reqs": "none"}):
            async with Queue("q", url=url(port, **off)) as queue:
                await queue.purge()


@pytest.mark.parametrize("certificate", ["none", "intruder"])
async def test_a_client_without_a_certificate_of_the_ca_is_not_let_in(
    certificate: str, server: Server, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server only hangs up, so the message says what that may mean."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    async with listening(server, pki.server()) as port:
        given = {} if certificate == "none" else {"ssl_certfile": pki.intruder}
        error = await refusal(port, ssl_ca_certs=pki.ca, **given)
    assert isinstance(error, StoreUnavailable)
    assert ("or want a client certificate (ssl_certfile, ssl_keyfile)" in str(error)) is (certificate == "none")
    assert "it may not speak TLS at this port" in str(error)


async def test_tls_to_a_plain_port_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without TLS takes the greeting for half a command and waits for the rest."""
    monkeypatch.setattr("aqueue.store.address.CONNECT_SECONDS", 0.2)
    async with listening(server, None) as port:
        error = await refusal(port)
    assert isinstance(error, StoreUnavailable)
    assert "it may not speak TLS at this port" in str(error)


async def test_the_commands_tell_a_refusal_by_their_exit_code(server: Server, pki: Pki) -> None:
    """In one line, without a traceback."""
    async with listening(server, pki.server()) as port:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--url", url(port)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "shows a certificate that is not trusted" in result.stderr
