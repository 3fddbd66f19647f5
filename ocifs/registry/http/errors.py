"""Translates the exceptions of httpx, httpcore, ssl and the operating system.

`transport` wraps every request and every read of a body in `translated_errors`. Pure.

- Each exception of these libraries becomes an `OcifsError` with a hint.
- A message names a host, and nothing else of an address: a signed address is a secret.
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

_CHECK_NAME = "check the spelling and the network; behind a proxy set https_proxy"
_CHECK_ROUTE = "check the network and the firewall; behind a proxy set https_proxy"
_TRY_AGAIN = "try again; if it persists, the registry or a proxy on the path is failing"

# X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT and the like: the chain ends at no trusted certificate
# (openssl/x509_vfy.h).
_NO_ISSUER = frozenset({2, 18, 19, 20, 21})

# Everything that the libraries raise. A test compares the list with all of their exceptions.
LIBRARY_ERRORS = (
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
    OSError,  # includes ssl.SSLError and socket.gaierror
    UnicodeError,  # from names that IDNA rejects
)

# A connection that was established and ended without a response.
_LOST = (
    httpcore.RemoteProtocolError,
    httpcore.ReadError,
    httpcore.WriteError,
    httpx.RemoteProtocolError,
    httpx.ReadError,
    httpx.WriteError,
)

_INVALID_URL = (
    UnicodeError,
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
    httpcore.UnsupportedProtocol,
    httpcore.ProtocolError,
)

# The start of a message of httpx. This error has no class of its own.
_BAD_LOCATION = "Invalid URL in location header"

_NO_TLS = "the server does not use TLS on this port: use --plain-http, or another port"
_OTHER_NAME = "the certificate is for another name: use the host name in the certificate"
_CLIENT_CERTIFICATE = "put it into certs.d/{host} as NAME.cert with NAME.key"

# Words of OpenSSL's reasons, each with a hint. The first match counts.
_TLS_HINTS = (
    ("wrong version number", _NO_TLS),
    ("record layer failure", _NO_TLS),
    (
        "has expired",
        "check this machine's clock (`date`); otherwise the certificate must be renewed",
    ),
    ("not yet valid", "check this machine's clock (`date`)"),
    ("certificate is not valid for", _OTHER_NAME),
    ("mismatch", _OTHER_NAME),
    ("certificate required", f"the server requires a client certificate: {_CLIENT_CERTIFICATE}"),
    ("handshake failure", f"it may require a client certificate: {_CLIENT_CERTIFICATE}"),
    (
        "alert",
        "the server rejects the client certificate in certs.d/{host}, or none was sent",
    ),
)
_CLOSED = f"try again; if it requires a client certificate, {_CLIENT_CERTIFICATE}"

# The parts that OpenSSL adds around a reason.
_OPENSSL = re.compile(r"^\[[A-Z0-9_]+: [A-Z0-9_]+\] | \(_ssl\.c:[0-9]+\)$")


@contextmanager
def translated_errors(host: str) -> Iterator[None]:
    """Translate the libraries' exceptions in the block."""
    try:
        yield
    except OcifsError:
        raise
    except LIBRARY_ERRORS as error:
        raise translate_error(error, host) from None


def _tls_hint(text: str, host: str) -> str:
    for words, hint in _TLS_HINTS:
        if words in text:
            return hint.format(host=host)
    return (
        "add its certificate authority with --ca-file; for a registry without TLS use --plain-http"
    )


def translate_error(error: Exception, host: str) -> OcifsError:
    """The `OcifsError` for an exception of the libraries."""
    translated = _translate(error, host)
    if isinstance(translated, Unreachable):
        translated.was_connected = isinstance(error, _LOST)
    return translated


def _translate(error: Exception, host: str) -> OcifsError:  # noqa: PLR0911 (a table of cases)
    causes = list(causes_of(error))
    text = reason_of(error)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Unreachable(f"TLS with {host} fails: {text}", hint=_tls_hint(text, host))
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        hint = "check that the registry is running, and check the port"
        return ConnectionRefused(f"{host} refuses connections", hint=hint)
    unresolved = [cause.errno for cause in causes if isinstance(cause, socket.gaierror)]
    if unresolved:
        unreachable = Unreachable(f"the name {host} cannot be resolved", hint=_CHECK_NAME)
        # Other failures of name servers may pass, such as EAI_AGAIN.
        unreachable.is_unknown_host = socket.EAI_NONAME in unresolved
        return unreachable
    if isinstance(error, httpcore.ConnectTimeout | httpx.ConnectTimeout):
        return Unreachable(f"{host} does not respond", hint=_CHECK_ROUTE)
    if isinstance(error, httpcore.TimeoutException | httpx.TimeoutException):
        return Unreachable(f"timed out while waiting for {host}", hint=_TRY_AGAIN)
    if text.startswith(_BAD_LOCATION):
        return Malformed(
            f"{host} redirects to an invalid address",
            hint="the registry, or a proxy in front of it, is misconfigured",
        )
    if isinstance(error, httpcore.RemoteProtocolError | httpx.RemoteProtocolError):
        return Unreachable(f"{host} ended the connection: {text}", hint=_TRY_AGAIN)
    if isinstance(error, _INVALID_URL):
        return Malformed(f"{host} redirects to an invalid address: {text}")
    if isinstance(error, httpx.StreamError):
        return RegistryFailed(f"the response of {host} cannot be read: {text}")
    if not text or (isinstance(error, _LOST) and _is_reset(causes)):
        # A server that closes a connection while a request is sent resets it, and its TLS alert
        # may be lost. trio has no reason for it, or has ECONNRESET or EPIPE.
        return Unreachable(f"{host} closed the connection", hint=_CLOSED.format(host=host))
    return Unreachable(f"the connection to {host} failed: {text}", hint=_CHECK_ROUTE)


def _is_reset(causes: Sequence[BaseException]) -> bool:
    return any(
        isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE)
        for cause in causes
    )


def reason_of(error: BaseException) -> str:
    """The reason for a failure, without details for the library's developers; "" without one."""
    causes = list(causes_of(error))
    for cause in causes:
        # An SSLError is an OSError, and its strerror has the parts of OpenSSL.
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.strerror:
            return cause.strerror
    text = next((str(cause) for cause in causes if str(cause)), "")
    text = _OPENSSL.sub("", _OPENSSL.sub("", text))
    # h11 appends the repr of the bytes that it could not parse.
    return text.partition(": bytearray(")[0].partition(": b'")[0]


def certificate_error(
    error: BaseException, host: str, anchors: Sequence[Path]
) -> OcifsError | None:
    """The error for a certificate that none of the configured files vouches for, otherwise None."""
    unknown = any(
        isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _NO_ISSUER
        for cause in causes_of(error)
    )
    if not anchors or not unknown:
        return None
    files = ", ".join(map(str, anchors))
    return Unreachable(
        f"TLS with {host} fails: {reason_of(error)}",
        hint=f"no certificate in {files} is the server's or its issuer's: add that certificate",
    )


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its causes, and the errors that trio's happy eyeballs has grouped."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from causes_of(inner)
        error = error.__cause__ or error.__context__


def after_redirect(error: Unreachable, host: str) -> Unreachable:
    """The error for a host that `host` redirects to.

    A hint about the registry's own TLS settings would not help there.
    """
    hint = error.hint
    if "--plain-http" in hint:
        hint = (
            f"check the address that {host} redirects to, and its TLS; "
            "--ca-file adds a certificate authority"
        )
    explained = type(error)(f"{host} redirects, and {error}", hint=hint)
    explained.was_connected = error.was_connected
    return explained
