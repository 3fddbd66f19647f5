"""Every deliberate error of ocifs, as one tree.

    OcifsError
    ├── InvalidReference       a reference that violates the grammar
    ├── UsageError             a request that cannot be fulfilled: a mount point that is a file, ...
    ├── NotFound               the repository, tag, digest or file does not exist
    │   └── BlobMissing        a blob that a layout lists is not in it
    ├── NotADirectory          a component of a path is not a directory
    ├── IsADirectory           a directory was read like a file
    ├── TooManyLinks           a loop of symbolic links
    ├── NoAttribute            the node has no such extended attribute
    ├── ReadOnly               an attempt to write
    ├── AccessDenied           401 or 403, also with credentials
    ├── Unreachable            no route, unknown host, TLS failure, lost connection
    │   └── ConnectionRefused  the host is up, and no process listens
    ├── DeadlineExceeded       no response within the caller's deadline
    ├── Interrupted            the caller received a signal while it waited
    ├── RateLimited            429 after all retries
    ├── RegistryFailed         5xx after all retries, or an unexpected response
    ├── Unsupported            foreign URLs, encrypted layers, unknown digest algorithms, ...
    ├── CatalogUnavailable     the registry lists no repositories; lookups still work
    │   └── CatalogFailed      the same, because the response was an error or not a list
    ├── Malformed              a response, manifest, layer or table that breaks its specification
    │   └── IntegrityError     content with another digest or size
    ├── LimitExceeded          a limit of the settings was exceeded
    ├── CacheFull              the cache's disk is full, and nothing can be evicted
    ├── CacheFailed            the cache's disk fails, or another process locks a file of it
    └── WriteFailed            the output of a command such as `ocifs export` cannot be written

Every module raises these, in every thread. The command line maps them to exit statuses and hints,
and ocifs/fuse/errno.py maps each class to one errno.

Rules that hold here:

- This module imports nothing of ocifs.
- An outage is never NotFound.
- The message names the event and the object, `hint` a remedy.
- No message contains a secret.
"""

from __future__ import annotations


class OcifsError(Exception):
    """The base class of all deliberate errors.

    `hint`: a remedy that the user can try, or "".
    `listed`: the entries that were received before this error ended a list.
    """

    listed: tuple[object, ...] = ()

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidReference(OcifsError):
    """A reference that violates the grammar. The message marks the invalid part."""


class UsageError(OcifsError):
    """A request that cannot be fulfilled as it was made."""


class NotFound(OcifsError):
    """The source reported that the object does not exist. Never raised for an outage.

    `is_registry_error`: the response had an error code of the distribution specification, so it
    came from a registry, and not from another web server.
    """

    is_registry_error = False


class BlobMissing(NotFound):
    """A blob is missing from the sparse layout that lists it.

    The blob is visible as a file, so this is an error of reading (EIO) and not of lookup.
    """


class NotADirectory(OcifsError):
    """A component of a path is not a directory."""


class IsADirectory(OcifsError):
    """A directory was read like a file."""


class TooManyLinks(OcifsError):
    """Too many levels of symbolic links."""


class NoAttribute(OcifsError):
    """The node has no extended attribute of that name."""


class ReadOnly(OcifsError):
    """Mounts are read-only."""


class AccessDenied(OcifsError):
    """The registry denied access (401, 403), also with the configured credentials.

    `status`: the HTTP status, if there was a response.
    `needs_login`: there are no credentials, or the registry rejects them.
    """

    status: int | None = None
    needs_login = False


class Unreachable(OcifsError):
    """No server could be reached. The object may exist.

    `is_unknown_host`: the host's name does not exist.
    `was_connected`: the connection was established, and lost before a response.
    """

    is_unknown_host = False
    was_connected = False


class ConnectionRefused(Unreachable):
    """The host is up, and no process listens on the port."""


class DeadlineExceeded(OcifsError):
    """The caller's deadline passed. The work may continue in the background."""


class Interrupted(OcifsError):
    """The caller received a signal while it waited."""


class RateLimited(OcifsError):
    """The registry limits the rate of requests (429), and the retries are used up.

    `retry_after`: seconds, or None if the response has no Retry-After.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RegistryFailed(OcifsError):
    """The registry failed (5xx after all retries), or sent an unexpected response.

    `status`: the HTTP status, if there is one.
    `retry_after`: seconds, or None if the response has no Retry-After.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after


class Unsupported(OcifsError):
    """A feature that ocifs does not support. The message contains the reason."""


class CatalogUnavailable(OcifsError):
    """The registry does not list its repositories; names can still be looked up."""


class CatalogFailed(CatalogUnavailable):
    """The response to the request for the catalog was an error, or not a list."""


class Malformed(OcifsError):
    """A response, manifest, layer or table of contents that breaks its specification."""


class IntegrityError(Malformed):
    """Content with another digest or size than expected. It was not served.

    `is_transient`: bytes that were read before are right, or will be verified. The next attempt may
    succeed.
    """

    is_transient = False


class LimitExceeded(OcifsError):
    """A limit was exceeded. The message names the setting."""


class CacheFull(OcifsError):
    """The cache's disk is full, and nothing can be evicted."""


class CacheFailed(OcifsError):
    """The cache's disk cannot be read or written, or another process has a file locked."""


class WriteFailed(OcifsError):
    """An output file could not be written. The message contains the path and the reason."""
