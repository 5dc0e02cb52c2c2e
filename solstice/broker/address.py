"""AMQP_URL → pika's connection parameters, and the address as people may see it.

The password never leaves this module in a text: neither the URL nor a word of pika's or urllib's complaint about it
is repeated, because a password with an unescaped `#`, `?` or `@` moves into the port, the query or the host.
"""

from __future__ import annotations

import copy
import logging
import re
import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pika
from pika.adapters.utils import connection_workflow

from solstice.broker import tls as tls_
from solstice.broker.tls import SYSTEM, Tls
from solstice.errors import UsageError

__all__ = ["SYSTEM", "Address", "Tls", "hint", "is_refusal", "parse", "reason", "refused", "unreachable"]

HEARTBEAT = 60
# What pika makes of a connection that ends during the log-in, with the broker's own words somewhere inside.
_GUESSES = (
    pika.exceptions.ProbableAuthenticationError,
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.IncompatibleProtocolError,
)
_ENDED = "the connection ended during the log-in"
_REPLY = re.compile(r"\(\d{3}\) ['\"](.*)['\"]")
_FORM = (
    "write it as amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://, with special characters percent-encoded: "
    "%2F is the vhost /"
)

# pika logs what it also raises, every attempt anew; who is told what, and how often, is decided by our callers.
logging.getLogger("pika").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Address:
    """A broker: `parameters` for pika, `text` for people (no password in it); `tls` is None for amqp://."""

    parameters: Any
    text: str
    tls: Tls | None = None

    def named(self, role: str) -> Address:
        """The same for one of several connections, which the broker's operator can tell apart by `role`."""
        parameters = copy.copy(self.parameters)
        name = f"{parameters.client_properties['connection_name']} {role}"
        parameters.client_properties = {**parameters.client_properties, "connection_name": name}
        return replace(self, parameters=parameters)


def parse(url: str, tls: Tls = SYSTEM) -> Address:
    """The broker that `url` names.  Raises `UsageError` with the right form, or with the file that is wrong."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname)
        # pika trips over a user without a password
        complete = parts.username is None or parts.password is not None
    except ValueError:
        usable = complete = False
    if not usable:
        raise UsageError("AMQP_URL is not the address of a broker", "", _FORM) from None
    if not complete:
        raise UsageError("AMQP_URL has a user but no password", "", _FORM)
    if "ssl_options" in parse_qs(parts.query):
        # pika builds a context from them that verifies nothing
        raise UsageError(
            "AMQP_URL has ssl_options, which are not taken",
            "with them the broker's certificate would not be verified",
            f"use amqps://, and name files of your own in AMQP_CA_FILE, AMQP_CERT_FILE and AMQP_KEY_FILE; {_FORM}",
        )
    secure = parts.scheme == "amqps"
    if tls.given and not secure:
        raise UsageError("AMQP_URL is without TLS", f"{tls.given} would not be used", "write amqps:// in AMQP_URL")
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, SyntaxError, AttributeError, OSError):
        raise UsageError(
            "AMQP_URL is not the address of a broker", "its port or an option cannot be read", _FORM
        ) from None
    _apply_defaults(parameters)
    if secure:
        parameters.ssl_options = pika.SSLOptions(tls_.context(tls), parameters.host)
    return Address(parameters, _text(parts.scheme, parameters), tls if secure else None)


def _apply_defaults(parameters: Any) -> None:
    if parameters.heartbeat is None:
        parameters.heartbeat = HEARTBEAT
    parameters.connection_attempts = 1  # the back-off between attempts is ours
    name = f"solstice {socket.gethostname()}"
    parameters.client_properties = {**(parameters.client_properties or {}), "connection_name": name}


def _text(scheme: str, parameters: Any) -> str:
    host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    user = quote(parameters.credentials.username, safe="")
    return f"{scheme}://{user}@{host}:{parameters.port}/{quote(parameters.virtual_host, safe='')}"


def reason(error: BaseException) -> str:
    """Why a connection failed, in few words, out of pika's nested exceptions."""
    if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
        return "; ".join(dict.fromkeys(map(reason, error.exceptions)))
    if isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
        return reason(error.exception)
    if isinstance(error, pika.exceptions.AMQPConnectionError) and error.args and isinstance(error.args[0], Exception):
        return reason(error.args[0])
    return _words(error)


def _words(error: BaseException) -> str:
    if isinstance(error, _GUESSES):
        text = str(error.args[0])
        said = _REPLY.search(text)
        return said[1] if said else tls_.said_in(text) or _ENDED
    if isinstance(error, ssl.SSLError):
        return tls_.said(error)
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if hasattr(error, "reply_text"):
        return str(error.reply_text)
    return ": ".join((type(error).__name__, *map(str, error.args)))


def hint(address: Address, why: str) -> str:
    """What to do about a connection that TLS made fail; "" for any other reason."""
    return tls_.hint(address.tls, why, silent=_ENDED in why) if address.tls else ""


def unreachable(address: Address, why: str) -> UsageError:
    """There is no connection to the broker, for whoever does not wait for one."""
    remedy = hint(address, why) or "check AMQP_URL, and that the broker runs: rabbitmqctl status"
    return UsageError(f"the broker {address.text} cannot be reached", why, remedy)


def refused(address: Address, why: str) -> UsageError:
    """The broker does not accept this user."""
    return UsageError(
        f"the broker refused the credential of {address.text}",
        why,
        "correct user and password in AMQP_URL; the user needs the permissions configure, write and read in that vhost",
    )


def is_refusal(why: str) -> bool:
    """True if the broker itself refused the user: at the log-in, for an exchange or queue (403), for the vhost (530).

    pika calls every loss during the log-in a "probable" authentication error, also when the broker only restarted.
    """
    # another client's exclusive consumer is refused with the same code, and is only a reason to wait
    return ("ACCESS_REFUSED" in why and "exclusive use" not in why) or "refused for user" in why
