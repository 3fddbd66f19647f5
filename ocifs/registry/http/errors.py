"""What httpx, httpcore, ssl and the operating system raise, as errors of ours that say what to try.

Rules that hold here: every exception of theirs has an error of ours; a message names a host and
never more of an address, since a signed one is a secret.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpcore
import httpx

from ocifs.errors import ConnectionRefused, Malformed, OcifsError, RegistryFailed, Unreachable

_NAME = "is it spelt right, and is there a network? behind a proxy, https_proxy names it"
_WAY = "is there a way to it from here? behind a proxy, https_proxy names it"
_AGAIN = "try again; if it stays so, something on the way, or the registry, is in trouble"

# X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT and the like: nobody that is trusted has signed it
# (openssl/x509_vfy.h).
_NO_ISSUER = frozenset({2, 18, 19, 20, 21})

THEIRS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpx.CookieConflict,
    httpcore.ProtocolError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
    httpcore.ConnectionNotAvailable,
    OSError,  # and with it ssl.SSLError and socket.gaierror
    UnicodeError,  # of names that IDNA refuses
)
"""What the libraries below raise; a test holds it against all that they have."""


@contextmanager
def our_errors(host: str) -> Iterator[None]:
    """Turn what httpx, httpcore, ssl and the operating system raise into our errors."""
    try:
        yield
    except OcifsError:
        raise
    except THEIRS as error:
        raise our_error(error, host) from None


# A connection that was made and ended without an answer.
_LOST = (
    httpcore.RemoteProtocolError,
    httpcore.ReadError,
    httpcore.WriteError,
    httpx.RemoteProtocolError,
    httpx.ReadError,
    httpx.WriteError,
)

# What OpenSSL says, and what to try.
_TLS = (
    ("wrong version number", "it does not speak TLS there: use --plain-http, or another port"),
    ("record layer failure", "it does not speak TLS there: use --plain-http, or another port"),
    (
        "has expired",
        "its certificate has to be renewed, unless it is this machine's clock that is wrong (`date`)",
    ),
    ("not yet valid", "is this machine's clock right (`date`)?"),
    (
        "certificate is not valid for",
        "its certificate is for another name: is the host spelt as the certificate has it?",
    ),
    (
        "mismatch",
        "its certificate is for another name: is the host spelt as the certificate has it?",
    ),
    (
        "certificate required",
        "it wants a client certificate: keep it in certs.d/{host} as NAME.cert with NAME.key",
    ),
    (
        "handshake failure",
        "it may want a client certificate: keep it in certs.d/{host} as NAME.cert with NAME.key",
    ),
    (
        "alert",
        "it does not accept the client certificate of certs.d/{host}, or no certificate was sent",
    ),
)
_CLOSED = "try again; a registry that wants a client certificate ends connections so: keep it in certs.d/{host} as NAME.cert with NAME.key"
# What OpenSSL puts around a reason, and Python's repr of bytes, which h11 puts after one.
_OPENSSL = re.compile(r"^\[[A-Z0-9_]+: [A-Z0-9_]+\] | \(_ssl\.c:[0-9]+\)$")


def _tls_hint(text: str, host: str) -> str:
    for words, hint in _TLS:
        if words in text:
            return hint.format(host=host)
    return (
        "add its certificate authority with --ca-file; for a registry without TLS use --plain-http"
    )


def our_error(error: Exception, host: str) -> OcifsError:
    """The error of ours for one of theirs; `host` is all that it may name of an address."""
    made = _our_error(error, host)
    if isinstance(made, Unreachable):
        made.was_connected = isinstance(error, _LOST)
    return made


def _our_error(error: Exception, host: str) -> OcifsError:  # noqa: PLR0911 (a table of cases)
    causes = list(causes_of(error))
    text = reason_of(error)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Unreachable(f"TLS with {host} fails: {text}", hint=_tls_hint(text, host))
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return ConnectionRefused(
            f"{host} refuses connections", hint="is the registry running, and is the port right?"
        )
    unresolved = [cause.errno for cause in causes if isinstance(cause, socket.gaierror)]
    if unresolved:
        unreachable = Unreachable(f"the name {host} cannot be resolved", hint=_NAME)
        unreachable.is_unknown_host = socket.EAI_NONAME in unresolved
        return unreachable
    if isinstance(error, httpcore.ConnectTimeout | httpx.ConnectTimeout):
        return Unreachable(f"{host} does not answer", hint=_WAY)
    if isinstance(error, httpcore.TimeoutException | httpx.TimeoutException):
        return Unreachable(f"{host} fell silent", hint=_AGAIN)
    if isinstance(error, httpcore.RemoteProtocolError | httpx.RemoteProtocolError):
        return Unreachable(f"{host} broke off: {text}", hint=_AGAIN)
    if isinstance(
        error,
        UnicodeError
        | httpx.InvalidURL
        | httpx.UnsupportedProtocol
        | httpcore.UnsupportedProtocol
        | httpcore.ProtocolError,
    ):
        return Malformed(f"{host} sent us somewhere that is no place: {text}")
    if isinstance(error, httpx.StreamError):
        return RegistryFailed(f"the answer of {host} cannot be read: {text}")
    if (
        not text
    ):  # all that trio knows of a connection that was closed while a request was sent by TLS
        return Unreachable(f"{host} closed the connection", hint=_CLOSED.format(host=host))
    return Unreachable(f"the connection with {host} failed: {text}", hint=_WAY)


def reason_of(error: BaseException) -> str:
    """The reason for a failure in the words of the library, without what only its developers read;
    "" if it has none.
    """
    text = next((str(cause) for cause in causes_of(error) if str(cause)), "")
    text = _OPENSSL.sub("", _OPENSSL.sub("", text))
    return text.partition(": bytearray(")[0].partition(": b'")[0]


def untrusted(error: BaseException, host: str, anchors: Sequence[Path]) -> OcifsError | None:
    """The error for a certificate that none of the given files vouches for; None for any other
    failure.
    """
    unknown = any(
        isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _NO_ISSUER
        for cause in causes_of(error)
    )
    if not anchors or not unknown:
        return None
    files = ", ".join(map(str, anchors))
    return Unreachable(
        f"TLS with {host} fails: {reason_of(error)}",
        hint=f"no certificate in {files} is the server's or that of an issuer of it: add one that is",
    )


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and what trio's happy eyeballs collected below it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from causes_of(inner)
        error = error.__cause__ or error.__context__


def after_redirect(error: Unreachable, host: str) -> Unreachable:
    """A failure at the end of a redirect.

    What the user may say about TLS is about the registry, not about where it leads.
    """
    hint = error.hint
    if "--plain-http" in hint:
        hint = f"{host} leads there: is its address right, and does what it leads to have TLS? --ca-file adds an authority"
    made = type(error)(f"{host} redirects, and {error}", hint=hint)
    made.was_connected = error.was_connected
    return made
