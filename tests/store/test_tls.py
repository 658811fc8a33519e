"""TLS options of an address: verified by default, and refused before anybody connects if they cannot be right."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from aqueue.errors import ConfigurationError
from aqueue.store import tls
from aqueue.store.address import ClusterRoute, DirectRoute, SentinelRoute, route_of_url


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, a client's certificate in one file and in two, and another key."""
    directory = tmp_path_factory.mktemp("pem")
    ca = trustme.CA()
    client, other = ca.issue_cert("client"), ca.issue_cert("other")
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    client.private_key_and_cert_chain_pem.write_to_path(str(directory / "client.pem"))
    client.cert_chain_pems[0].write_to_path(str(directory / "client.crt"))
    client.private_key_pem.write_to_path(str(directory / "client.key"))
    other.private_key_pem.write_to_path(str(directory / "other.key"))
    (directory / "text.pem").write_text("no certificate")
    return directory


@pytest.fixture(autouse=True)
def there(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths keep the addresses of these tests readable."""
    monkeypatch.chdir(pem)


def options(url: str) -> dict[str, Any]:
    route = route_of_url(url)
    assert isinstance(route, DirectRoute | SentinelRoute | ClusterRoute)
    return {name: value for name, value in route._options.items() if name.startswith("ssl_")}


@pytest.mark.parametrize(
    "address", ["rediss://h?", "valkeys://h?", "redis+sentinel://a/s?ssl=true&", "redis+cluster://a?ssl=true&"]
)
def test_certificate_and_name_are_verified_unless_switched_off(address: str) -> None:
    """Encryption to whoever answers is no protection; older versions of redis-py leave the name unchecked."""
    assert options(address) == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    unnamed = options(address + "ssl_check_hostname=false")
    assert unnamed == {"ssl_cert_reqs": "required", "ssl_check_hostname": False}
    assert options(address + "ssl_cert_reqs=none") == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


def test_one_file_may_hold_key_and_certificate() -> None:
    """As many tools write them."""
    whole = options("rediss://h?ssl_ca_certs=ca.pem&ssl_certfile=client.pem")
    assert (whole["ssl_certfile"], whole["ssl_keyfile"]) == ("client.pem", "client.pem")
    two = options("rediss://h?ssl_ca_certs=ca.pem&ssl_certfile=client.crt&ssl_keyfile=client.key")
    assert (two["ssl_certfile"], two["ssl_keyfile"]) == ("client.crt", "client.key")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rediss://h?ssl_ca_cert=ca.pem", "ssl_ca_cert is no option of TLS here; use one of ssl_keyfile, ssl_certfile"),
        ("rediss://h?ssl_ca_certs=nowhere.pem", "ssl_ca_certs names 'nowhere.pem', which is no file"),
        ("rediss://h?ssl_ca_certs=text.pem", "cannot be used .*; mend ssl_ca_certs 'text.pem'"),
        ("rediss://h?ssl_certfile=ca.pem", "cannot be used .*; mend ssl_certfile 'ca.pem'"),
        ("rediss://h?ssl_certfile=client.crt&ssl_keyfile=other.key", "cannot be used .*mismatch"),
        ("rediss://h?ssl_keyfile=client.key", "ssl_keyfile needs a certificate too"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of required, optional, none, not 'maybe'"),
        ("redis://h?ssl_ca_certs=ca.pem", "ssl_ca_certs is for TLS; write rediss://"),
        ("redis+cluster://h?ssl_ca_certs=ca.pem", r"ssl_ca_certs is for TLS; write rediss:// \(or ssl=true\)"),
        ("redis+sentinel://h/s?ssl=no&ssl_certfile=client.pem", "ssl_certfile is for TLS"),
        ("unix:///run/s?ssl_ca_certs=ca.pem", "ssl_ca_certs is for TLS"),
    ],
)
def test_options_that_cannot_be_right_are_refused(url: str, message: str) -> None:
    """Before anybody connects, and not as a server that cannot be reached."""
    with pytest.raises(ConfigurationError, match=message):
        route_of_url(url)


def test_a_refusal_of_the_certificate_is_told_apart_from_a_broken_connection() -> None:
    """The one will not mend itself; the other is tried again."""
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_code, refused.verify_message = 18, "self-signed certificate"
    outer = ConnectionError("cannot connect")
    outer.__cause__ = refused
    assert "is not trusted" in str(tls.complaint(outer))
    assert tls.complaint(ConnectionResetError()) is None
    assert tls.complaint(ssl.SSLError(1, "bad record")) is None
    circular = ConnectionError("a")
    circular.__context__ = OSError("b")
    circular.__context__.__context__ = circular
    assert tls.complaint(circular) is None


def test_hints_are_for_addresses_with_tls() -> None:
    """Elsewhere they would mislead."""
    assert tls.hint(OSError(), None) == ""
    assert "client certificate" in tls.hint(OSError(), {})
    assert "client certificate" not in tls.hint(OSError(), {"ssl_certfile": "x"})
