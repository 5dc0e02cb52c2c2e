"""TLS: files that are wrong, a real broker that demands a client certificate, and what is said when it fails."""

from __future__ import annotations

import logging
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from solstice.broker import address
from solstice.broker.address import Tls
from solstice.broker.connection import Broker
from solstice.broker.deadletters import list_letters
from solstice.broker.enqueue import ResultListener, publish_request
from solstice.errors import UsageError
from tests.real.broker import Broker as RabbitMQ
from tests.real.certificates import Authority

from .owner import JOBS, Owner, operator, request, run

SECURE = "amqps://ci:s3cret@broker.example"
DOCUMENT = {"schema_version": 1, "request_id": "0" * 8, "runs_on": "x", "steps": []}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Good ones, of an authority that the broker does not know."""
    authority = Authority(tmp_path_factory.mktemp("own"))
    mine = authority.certificate("mine", "extendedKeyUsage=clientAuth")
    return Tls(authority.ca, mine.cert, mine.key)


@pytest.fixture(scope="module")
def trusted(broker: RabbitMQ) -> Tls:
    """What the broker's operator would hand out."""
    mine = broker.authority.certificate("client", "extendedKeyUsage=clientAuth")
    return Tls(broker.authority.ca, mine.cert, mine.key)


@pytest.fixture
def secure(broker: RabbitMQ, vhost: str) -> str:
    return broker.tls_url(urlsplit(vhost).path[1:])


def refusal(tls: Tls, url: str = SECURE) -> str:
    with pytest.raises(UsageError) as caught:
        address.parse(url, tls)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_good_files_are_taken_and_the_name_is_verified(files: Tls) -> None:
    options = address.parse(SECURE, files).parameters.ssl_options
    assert options.context.check_hostname
    assert options.server_hostname == "broker.example"


def test_certificate_and_key_may_be_one_file(files: Tls, tmp_path: Path) -> None:
    assert files.cert is not None
    assert files.key is not None
    both = tmp_path / "both.pem"
    both.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    assert address.parse(SECURE, Tls(cert=both)).tls == Tls(cert=both)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_missing_file_is_named_with_its_variable(files: Tls, tmp_path: Path, name: str) -> None:
    text = refusal(replace(files, **{name: tmp_path / "none.pem"}))
    assert f"AMQP_{name.upper()}_FILE {tmp_path}/none.pem: No such file" in text


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    "content", [b"", b"nonsense\n", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_with_something_else_is_named_with_its_variable(
    files: Tls, tmp_path: Path, name: str, content: bytes
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(content)
    assert f"AMQP_{name.upper()}_FILE {other}: " in refusal(replace(files, **{name: other}))


def test_a_key_of_another_certificate_is_refused(files: Tls, tmp_path: Path) -> None:
    other = Authority(tmp_path).certificate("other", "extendedKeyUsage=clientAuth")
    assert f"AMQP_KEY_FILE {other.key}: no key that fits the certificate" in refusal(replace(files, key=other.key))


def test_a_key_with_a_password_is_refused_without_a_question(files: Tls, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    argv = ["openssl", "ec", "-in", str(files.key), "-out", str(locked), "-aes128", "-passout", "pass:x"]
    subprocess.run(argv, check=True, capture_output=True)
    assert f"AMQP_KEY_FILE {locked}: its key has a password" in refusal(replace(files, key=locked))


def test_a_key_without_a_certificate_is_refused(files: Tls) -> None:
    assert "name it in AMQP_CERT_FILE" in refusal(Tls(key=files.key))


def test_files_without_tls_are_refused(files: Tls) -> None:
    text = refusal(Tls(ca=files.ca), "amqp://ci:s3cret@broker.example")
    assert "AMQP_CA_FILE would not be used" in text
    assert "amqps://" in text


@pytest.mark.broker
def test_with_all_three_files_requests_come_through(secure: str, trusted: Tls) -> None:
    async def scenario() -> None:
        owner = Owner()
        connection = owner.connection(secure, tls=trusted)
        connection.start()
        assert "amqps://" in await owner.said(Broker.UP)
        await connection.publish(request(1))
        connection.ack(await owner.deliveries.get())
        connection.pause()
        await connection.close()

    run(scenario)
    with ResultListener(secure, trusted):
        publish_request(secure, JOBS, DOCUMENT, trusted)
    assert list_letters(secure, JOBS, trusted) == []


@pytest.mark.broker
def test_without_a_client_certificate_the_remedy_is_named(secure: str, trusted: Tls) -> None:
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        publish_request(secure, JOBS, DOCUMENT, Tls(trusted.ca))
    assert "if the broker demands a client certificate, name one in AMQP_CERT_FILE" in caught.value.remedy


@pytest.mark.broker
def test_a_client_certificate_of_another_authority_is_said(secure: str, trusted: Tls, files: Tls) -> None:
    with pytest.raises(UsageError) as caught:
        publish_request(secure, JOBS, DOCUMENT, replace(files, ca=trusted.ca))
    assert "AMQP_CERT_FILE" in caught.value.remedy


@pytest.mark.broker
def test_another_authority_is_an_error_with_the_reason_and_the_remedy(
    broker: RabbitMQ, secure: str, trusted: Tls, files: Tls
) -> None:
    with pytest.raises(UsageError, match=r"certificate does not verify: .*certificate") as caught:
        publish_request(secure, JOBS, DOCUMENT, replace(trusted, ca=files.ca))
    assert "AMQP_CA_FILE" in caught.value.remedy
    assert broker.password not in str(caught.value)


@pytest.mark.broker
def test_a_certificate_for_another_host_is_an_error(broker: RabbitMQ, trusted: Tls) -> None:
    with pytest.raises(UsageError, match=r"does not verify: IP address mismatch"):
        publish_request(broker.tls_url(host="127.0.0.1"), JOBS, DOCUMENT, trusted)


@pytest.mark.broker
def test_a_port_without_tls_is_said(vhost: str, trusted: Tls) -> None:
    with pytest.raises(UsageError, match="wrong version number") as caught:
        publish_request(vhost.replace("amqp:", "amqps:"), JOBS, DOCUMENT, trusted)
    assert "5671" in caught.value.remedy


@pytest.mark.broker
def test_the_connection_says_once_what_is_wrong_and_goes_on_trying(
    broker: RabbitMQ, secure: str, trusted: Tls, files: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        owner = Owner()
        connection = owner.connection(secure, tls=replace(trusted, ca=files.ca))
        connection.start()
        assert "AMQP_CA_FILE" in await owner.said(Broker.DOWN)
        generation = connection._generation
        while connection._generation < generation + 2:
            await owner.tick()
        assert owner.states.empty()
        assert not owner.fatal.done()
        await connection.close()

    run(scenario)
    assert broker.password not in caplog.text


@pytest.mark.broker
def test_with_only_the_authorities_of_the_system_the_broker_is_not_trusted(secure: str, vhost: str) -> None:
    with pytest.raises(UsageError, match="does not verify"):
        publish_request(secure, JOBS, DOCUMENT)
    with operator(vhost) as channel, pytest.raises(Exception, match="no queue"):
        channel.queue_declare(JOBS.queue, passive=True)
