"""Every error that ocifs raises on purpose, as one tree.

    OcifsError ├── InvalidReference       the user wrote a reference that the grammar refuses ├──
    UsageError             the user asked for something that cannot be (a mount point that is a
    file, ...) ├── NotFound               the repository, tag, digest or file is not there: somebody
    who knows said so │   └── BlobMissing        a layout lists a blob and does not hold it ├──
    NotADirectory          a path goes through something that is no directory ├── IsADirectory
    a directory was read as if it were a file ├── TooManyLinks           symbolic links that lead in
    circles ├── NoAttribute            the node has no such extended attribute ├── ReadOnly
    an attempt to write ├── AccessDenied           401 or 403, also after credentials were tried ├──
    Unreachable            nobody could be asked: no route, name not resolved, TLS that fails,
    connection lost │   └── ConnectionRefused ├── DeadlineExceeded       nothing came within the
    time that the caller was willing to wait ├── Interrupted            the caller received a signal
    while it waited ├── RateLimited            429 after the allowed patience ├── RegistryFailed
    5xx after retries, or an answer of a kind that nothing provides for ├── Unsupported            a
    refusal of our own: foreign URLs, encrypted layers, a digest algorithm nobody knows ├──
    CatalogUnavailable     the registry lists no repositories (refused or absent); names can still
    be looked up │   └── CatalogFailed      the same, since it answered with a failure or with
    something that is not a list ├── Malformed              an answer, manifest, layer or table that
    breaks its specification │   └── IntegrityError     bytes that are not those of their digest or
    size ├── LimitExceeded          a bound of ours was passed; the message says which setting ├──
    CacheFull              no room on the cache's disk and nothing to evict ├── CacheFailed
    the cache's disk fails, or another process keeps a file of it locked └── WriteFailed
    what was to be written elsewhere than in the cache (`ocifs export`) could not be

Rules that hold here: this module imports nothing of ocifs; an outage is never NotFound; each class
has exactly one errno (the table is in ocifs/fuse/errno.py); a message says what happened to what,
`hint` what to try. No message ever carries a secret.
"""

from __future__ import annotations


class OcifsError(Exception):
    """What every deliberate error of ocifs derives from.

    `hint` is one sentence that tells a person what to try, or empty. `listed`: the entries of a
    list that this error cut short.
    """

    listed: tuple[object, ...] = ()

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidReference(OcifsError):
    """A reference that the field's grammar refuses; the message shows which part is wrong."""


class UsageError(OcifsError):
    """The user asked for something that cannot be done as asked."""


class NotFound(OcifsError):
    """Somebody who knows said that there is no such thing."""


class BlobMissing(NotFound):
    """A sparse layout lists a blob that it does not hold.

    What is listed exists, so this is an error of reading.
    """


class NotADirectory(OcifsError):
    """A path goes through something that is no directory."""


class IsADirectory(OcifsError):
    """A directory was read as if it were a file."""


class TooManyLinks(OcifsError):
    """Symbolic links that lead in circles."""


class NoAttribute(OcifsError):
    """The node has no extended attribute of that name."""


class ReadOnly(OcifsError):
    """Nothing in a mount can be written."""


class AccessDenied(OcifsError):
    """The registry refused (401, 403), also with the credentials that were found.

    `status`: of HTTP, if it was an answer.
    """

    status: int | None = None


class Unreachable(OcifsError):
    """Nobody could be asked. Never to be taken for absence.

    `is_unknown_host`: the host's name does not exist. `was_connected`: the connection was made, and
    lost before an answer.
    """

    is_unknown_host = False
    was_connected = False


class ConnectionRefused(Unreachable):
    """The host is there and nothing listens."""


class DeadlineExceeded(OcifsError):
    """Nothing came within the time that the caller was willing to wait; the work may go on."""


class Interrupted(OcifsError):
    """The caller got a signal while it waited."""


class RateLimited(OcifsError):
    """The registry asks for patience (429) beyond what was allowed.

    `retry_after`: seconds, or None when it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RegistryFailed(OcifsError):
    """The registry answered, with a failure of its own (5xx after retries) or with something that
    nothing provides for.

    `status`: of HTTP, where there is one; `retry_after`: seconds, or None when it did not say.
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
    """Something that ocifs refuses to do, or cannot; the message says why."""


class CatalogUnavailable(OcifsError):
    """The registry does not list its repositories; names can still be looked up."""


class CatalogFailed(CatalogUnavailable):
    """The registry answered the question for its repositories with a failure, or with something
    that is not a list.
    """


class Malformed(OcifsError):
    """An answer, manifest, layer or table of contents that breaks its specification."""


class IntegrityError(Malformed):
    """Bytes that are not those of their digest or size. They were not served."""


class LimitExceeded(OcifsError):
    """A bound of ours was passed; the message names the setting."""


class CacheFull(OcifsError):
    """The cache's disk is full and nothing can be evicted."""


class CacheFailed(OcifsError):
    """The cache's disk cannot be read or written, or another process keeps a file of it locked."""


class WriteFailed(OcifsError):
    """A file that a command was asked to make could not be written; the message says where and why."""
