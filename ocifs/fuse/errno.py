"""The errno of each error, in one table.

Rules that hold here: every class of `ocifs.errors` has a row. An error without one is a bug, and
EIO.
"""

from __future__ import annotations

import errno

from ocifs import errors

ERRNO: dict[type[errors.OcifsError], int] = {
    errors.OcifsError: errno.EIO,
    errors.InvalidReference: errno.ENOENT,
    errors.UsageError: errno.EINVAL,
    errors.NotFound: errno.ENOENT,
    errors.BlobMissing: errno.EIO,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.TooManyLinks: errno.ELOOP,
    errors.NoAttribute: errno.ENODATA,
    errors.ReadOnly: errno.EROFS,
    errors.AccessDenied: errno.EACCES,
    errors.Unreachable: errno.EHOSTUNREACH,
    errors.ConnectionRefused: errno.ECONNREFUSED,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
    errors.Interrupted: errno.EINTR,
    errors.RateLimited: errno.EAGAIN,
    errors.RegistryFailed: errno.EIO,
    errors.Unsupported: errno.EOPNOTSUPP,
    errors.CatalogUnavailable: errno.EACCES,
    errors.CatalogFailed: errno.EIO,
    errors.Malformed: errno.EIO,
    errors.IntegrityError: errno.EIO,
    errors.LimitExceeded: errno.EFBIG,
    errors.CacheFull: errno.ENOSPC,
    errors.CacheFailed: errno.EIO,
    errors.WriteFailed: errno.EIO,
}


# Two names have the number 95 on Linux. The standard library returns the undocumented one.
_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP"}


def name_of(number: int) -> str:
    """The name of an errno in the manual pages."""
    return _NAMES.get(number) or errno.errorcode.get(number, str(number))


def errno_of(error: BaseException) -> int:
    """The errno that the kernel returns to the caller for an error."""
    return next((ERRNO[kind] for kind in type(error).__mro__ if kind in ERRNO), errno.EIO)
