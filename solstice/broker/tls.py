"""TLS to the broker: the three files, the context that pika gets, and what to do when the two sides do not agree.

Used by broker/address.py, which everybody else imports.  The broker's certificate and its host name are always
verified.  The files are read once, when the address is parsed; no password is asked for on a terminal.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from solstice.errors import UsageError

UNVERIFIED = "its certificate does not verify"
_TLS = "TLS: "
_SAID = re.compile(r"\[SSL: \w+\] (.*?)(?: \(_ssl\.c:\d+\))?$")


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: authorities (None: the system's), our certificate (None: none), its key (None: in that file)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def given(self) -> str:
        """The variables that are set, for messages."""
        files = {"AMQP_CA_FILE": self.ca, "AMQP_CERT_FILE": self.cert, "AMQP_KEY_FILE": self.key}
        return ", ".join(name for name, path in files.items() if path is not None)


SYSTEM = Tls()


def context(tls: Tls) -> ssl.SSLContext:
    """A context that verifies certificate and host name.  Raises `UsageError` with the file and its variable."""
    if tls.key is not None and tls.cert is None:
        raise UsageError("AMQP_KEY_FILE", "there is no certificate to this key", "name it in AMQP_CERT_FILE")
    made = ssl.create_default_context()
    if tls.ca is not None:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies all, and trusts nobody yet
        _trust(made, "AMQP_CA_FILE", tls.ca)
    if tls.cert is not None:
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "AMQP_CERT_FILE", tls.cert)  # to see that it is one
        _show(made, tls.cert, tls.key)
    return made


def _trust(made: ssl.SSLContext, variable: str, path: Path) -> None:
    _readable(variable, path)
    try:
        made.load_verify_locations(path)
    except ssl.SSLError as error:
        why = f"no certificate can be read from it: {said(error)}"
        raise _unusable(variable, path, why, "it must hold certificates in PEM form") from None


def _show(made: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Present `cert` to the broker."""
    variable, path = ("AMQP_CERT_FILE", cert) if key is None else ("AMQP_KEY_FILE", key)
    _readable(variable, path)
    try:
        made.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        why = f"no key that fits the certificate {cert} can be read from it: {said(error)}"
        raise _unusable(variable, path, why, "it must hold that certificate's key in PEM form") from None
    except _Encrypted:
        raise _unusable(variable, path, "its key has a password", "store the key without one, mode 0600") from None


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    # without this OpenSSL would ask on the terminal, and a service would hang
    raise _Encrypted


def _readable(variable: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise _unusable(variable, path, why, "name a file that the user of Solstice can read") from None


def _unusable(variable: str, path: Path, why: str, remedy: str) -> UsageError:
    return UsageError(f"{variable} {path}", why, remedy)


def said(error: ssl.SSLError) -> str:
    """OpenSSL's words, without its codes and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{UNVERIFIED}: {error.verify_message}"
    # a timeout or an end of the stream has no `[SSL: …]` around it
    found = _SAID.search(str(error.args[-1] if error.args else error))
    return f"{_TLS}{found[1] if found else 'the connection ended'}"


def said_in(text: str) -> str | None:
    """The same out of the `repr` that pika makes of an error during the log-in; None if TLS is not in it."""
    found = re.search(r"\[SSL: \w+\] ([^(\[\]]*) \(_ssl", text)
    return f"{_TLS}{found[1]}" if found else None


def hint(tls: Tls, why: str, *, silent: bool) -> str:
    """What to do about a connection with TLS that failed because of `why`; "" if TLS has no part in it.

    `silent` says that the broker closed it without a word: how a missing certificate looks if its alert is late.
    """
    if UNVERIFIED in why:
        return (
            "name the authority that issued it in AMQP_CA_FILE, and the broker in AMQP_URL as its certificate names it"
        )
    if "wrong version number" in why:
        return "that port does not speak TLS: use the broker's TLS port, usually 5671, or amqp://"
    if not silent and _TLS not in why:
        return ""
    if tls.cert is None:
        return "if the broker demands a client certificate, name one in AMQP_CERT_FILE and AMQP_KEY_FILE"
    return "check that one of the broker's authorities issued the certificate in AMQP_CERT_FILE, and its dates"
