"""AMQP_URL: what is taken, and that no complaint about it shows the password."""

from __future__ import annotations

import pytest

from solstice.broker import address
from solstice.errors import UsageError


def test_the_text_has_no_password_and_the_parameters_have_it() -> None:
    broker = address.parse("amqp://ci:s3cret%2F@broker.example:5673/%2Fci")
    assert broker.text == "amqp://ci@broker.example:5673/%2Fci"
    assert broker.parameters.credentials.password == "s3cret/"  # noqa: S105  no secret
    assert (broker.parameters.host, broker.parameters.port) == ("broker.example", 5673)
    assert broker.parameters.virtual_host == "/ci"


def test_an_address_in_brackets_stays_in_brackets() -> None:
    assert address.parse("amqp://ci:s3cret@[::1]/%2F").text == "amqp://ci@[::1]:5672/%2F"


def test_tls_has_a_verifying_context() -> None:
    options = address.parse("amqps://ci:s3cret@broker.example").parameters.ssl_options
    assert options.context.check_hostname


@pytest.mark.parametrize(("query", "heartbeat"), [("", 60), ("?heartbeat=7", 7), ("?heartbeat=0", 0)])
def test_the_heartbeat_is_a_minute_unless_the_url_says_so(query: str, heartbeat: int) -> None:
    assert address.parse(f"amqp://ci:s3cret@broker.example/%2F{query}").parameters.heartbeat == heartbeat


def test_the_connection_has_a_name_for_the_operator() -> None:
    properties = address.parse("amqp://ci:s3cret@broker.example").parameters.client_properties
    assert properties["connection_name"].startswith("solstice ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "http://ci:s3cret@broker.example",
        "amqp://",
        "amqp://ci:s3cret@",
        "amqp://s3cret@broker.example",
        "amqp://ci:s3cret#x@broker.example",
        "amqp://ci:s3cret?x@broker.example",
        "amqp://ci:s3cret/x@broker.example",
        "amqp://ci:pw@broker.example:s3cret",
        "amqp://ci:pw@broker.example:99999999",
        "amqp://ci:pw@[s3cret/",
        "amqp://ci:pw@broker.example/%2F?s3cret=1",
        "amqp://ci:pw@broker.example/%2F?heartbeat=s3cret",
        "amqp://ci:pw@broker.example/%2F?heartbeat=-1",
        "amqp://ci:pw@broker.example/%2F?ssl_options=s3cret(",
        "amqps://ci:pw@broker.example/%2F?ssl_options=['s3cret']",
        "amqps://ci:pw@broker.example/%2F?ssl_options={'cafile':'/s3cret'}",
        "amqp://ci:pw@broker.example/%2F?client_properties=s3cret(",
        "amqp://ci:pw@broker.example/%2F?client_properties=['s3cret']",
        "amqp://ci:pw@broker.example/%2F?tcp_options='s3cret'",
    ],
)
def test_a_bad_url_is_refused_with_the_right_form_and_without_the_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        address.parse(url)
    assert "amqp://USER:PASSWORD@HOST:PORT/VHOST" in caught.value.remedy
    assert "s3cret" not in str(caught.value)
