"""TLS: the options of an address, tried once before anybody connects, and what its failures mean.

They have redis-py's names: ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs and so on. Whatever redis-py's
version makes of what is left out, the server's certificate and its name are verified unless that is switched off.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from redis.asyncio.connection import SSLConnection
from redis.exceptions import RedisError

from aqueue.errors import ConfigurationError

OPTIONS: Final = tuple(name for name in inspect.signature(SSLConnection.__init__).parameters if name.startswith("ssl_"))
"""Older versions of redis-py know fewer."""
REQUIREMENTS: Final = ("required", "optional", "none")
FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
HOSTNAME_MISMATCH: Final = 62
IP_ADDRESS_MISMATCH: Final = 64
"""OpenSSL's numbers, X509_V_ERR_…"""
YES: Final = ("1", "true", "yes", "on")


class TlsConnection(SSLConnection):
    """Ends at once where nobody waits: the goodbye of TLS takes a round trip, for which the loop may not last."""

    async def disconnect(
        self, nowait: bool = False, *args: Any, **kwargs: Any  # noqa: FBT001, FBT002  # as redis-py has it
    ) -> None:  # fmt: skip
        writer = self._writer
        await super().disconnect(nowait, *args, **kwargs)
        if nowait and writer is not None:
            writer.transport.abort()


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's options with those of TLS completed and checked.

    Errors: ConfigurationError for options that are unknown or contradict each other, and files that cannot be used.
    """
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in given:
        if name not in OPTIONS:
            raise ConfigurationError(f"{name} is no option of TLS here; use one of {', '.join(OPTIONS)}.")
    requirement = given.setdefault("ssl_cert_reqs", "required")
    if requirement not in REQUIREMENTS:
        raise ConfigurationError(f"ssl_cert_reqs must be one of {', '.join(REQUIREMENTS)}, not {requirement!r}.")
    given["ssl_check_hostname"] = _flag(given.get("ssl_check_hostname", "true")) and requirement != "none"
    if "ssl_certfile" in given:
        given.setdefault("ssl_keyfile", given["ssl_certfile"])  # one file may hold both
    elif "ssl_keyfile" in given:
        raise ConfigurationError("ssl_keyfile needs a certificate too; name it with ssl_certfile.")
    for name in FILES:
        if name in given and not Path(given[name]).is_file():
            raise ConfigurationError(f"{name} names {given[name]!r}, which is no file; give the path of a PEM file.")
    try:
        SSLConnection(**given).ssl_context.get()
    except (ValueError, TypeError, OSError, RedisError) as error:  # SSLError is an OSError
        files = ", ".join(f"{name} {given[name]!r}" for name in FILES if name in given)
        raise ConfigurationError(f"The TLS options cannot be used ({error}); mend {files or 'them'}.") from error
    return {**options, **given}


def refused_in_the_clear(options: Mapping[str, Any]) -> None:
    """Refuse TLS options of an address without TLS, whose author believes to be safe. Errors: ConfigurationError."""
    for name in options:
        if name.startswith("ssl_"):
            raise ConfigurationError(f"{name} is for TLS; write rediss:// (or ssl=true) to use it.")


def _flag(value: object) -> bool:
    return value.lower() in YES if isinstance(value, str) else bool(value)


def complaint(error: BaseException) -> str | None:
    """Say why the server's certificate was refused, if it was: trying again will not help."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message or str(cause)
            if cause.verify_code in (HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH):
                return f"shows a certificate for another name ({why}); connect by a name that it is for"
            return f"shows a certificate that is not trusted ({why}); name the CA that has signed it with ssl_ca_certs"
    return None


def hint(error: BaseException, options: Mapping[str, Any] | None) -> str:
    """Say what may be wrong where a server with TLS hangs up or keeps silent, which is all that many of them do."""
    if options is None:
        return ""
    reasons = [cause.reason for cause in _chain(error) if isinstance(cause, ssl.SSLError) and cause.reason]
    told = f"{reasons[0]}; " if reasons else ""
    wants = "" if "ssl_certfile" in options else " or want a client certificate (ssl_certfile, ssl_keyfile)"
    return f" ({told}it may not speak TLS at this port{wants})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
