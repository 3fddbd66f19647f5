"""What POSIX and Linux promise of a read-only file system, as a table of checks on one directory of
a mount.

    python3 table.py DIRECTORY FILE LINK        prints one line of JSON: {check: "" or what was
    wrong}

DIRECTORY is any directory of the mount that holds something; FILE a regular file of at least
200,000 bytes; LINK a symbolic link.

Rules that hold here: the standard library alone, since it also runs as a user who can read nothing
of ours; a check says what it saw and changes nothing; none depends on what the tree means.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
LIBC.readdir.argtypes = LIBC.telldir.argtypes = LIBC.closedir.argtypes = LIBC.rewinddir.argtypes = [
    ctypes.c_void_p
]
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
AT_FDCWD, AT_SYMLINK_NOFOLLOW, STATX_BASIC = -100, 0x100, 0x7FF
NAME_IN_DIRENT = 19  # struct dirent of Linux on 64 bits: ino 8, off 8, reclen 2, type 1, name


@dataclass(frozen=True)
class Place:
    """Where the checks look."""

    directory: str
    file: str
    link: str


def refused(wanted: int, act: Callable[[], object]) -> None:
    """Do something that must fail with one errno."""
    try:
        done = act()
    except OSError as error:
        assert error.errno == wanted, (
            f"{errno.errorcode.get(error.errno or 0)} in place of {errno.errorcode[wanted]}"
        )
    else:
        raise AssertionError(f"{done!r} in place of {errno.errorcode[wanted]}")


def opened(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor, which ends with the process."""
    return os.open(path, flags)


def stream_names(stream: int) -> list[tuple[int, bytes]]:
    """What is left of a directory stream: where each entry began, and its name."""
    found = []
    while True:
        place = LIBC.telldir(stream)
        entry = LIBC.readdir(stream)
        if not entry:
            return found
        found.append((place, ctypes.string_at(entry + NAME_IN_DIRENT)))


def open_stream(directory: str) -> int:
    """What opendir(3) gives.

    Raises OSError: readdir(3) of nothing ends the process without a word.
    """
    stream = LIBC.opendir(os.fsencode(directory))
    if not stream:
        raise OSError(ctypes.get_errno(), "opendir", directory)
    return int(stream)


def seekdir_goes_on_where_telldir_was(place: Place) -> None:
    stream = open_stream(place.directory)
    everything = stream_names(stream)
    assert len(everything) >= 2
    for number, (where, _) in enumerate(everything):
        LIBC.seekdir(stream, where)
        again = [name for _, name in stream_names(stream)]
        assert again == [name for _, name in everything[number:]], f"from entry {number}: {again}"
    LIBC.rewinddir(stream)
    assert [name for _, name in stream_names(stream)] == [name for _, name in everything]
    LIBC.closedir(stream)


def dot_and_dot_dot_are_listed_first(place: Place) -> None:
    stream = open_stream(place.directory)
    names = [name for _, name in stream_names(stream)]
    LIBC.closedir(stream)
    assert names[:2] == [b".", b".."], names[:2]
    assert len(names) == len(set(names))


def names_are_listed_once_and_all_can_be_looked_up(place: Place) -> None:
    names = os.listdir(place.directory)
    assert len(names) == len(set(names))
    for name in names:
        os.lstat(os.path.join(place.directory, name))


def readdir_tells_the_type_and_inode_that_lstat_tells(place: Place) -> None:
    for entry in os.scandir(place.directory):
        found = os.lstat(entry.path)
        assert entry.inode() == found.st_ino, entry.name
        kinds = (
            entry.is_dir(follow_symlinks=False),
            entry.is_file(follow_symlinks=False),
            entry.is_symlink(),
        )
        assert kinds == (
            stat.S_ISDIR(found.st_mode),
            stat.S_ISREG(found.st_mode),
            stat.S_ISLNK(found.st_mode),
        )


def dot_dot_leads_back(place: Place) -> None:
    here = os.stat(place.directory)
    inner = next(
        (
            entry.path
            for entry in os.scandir(place.directory)
            if entry.is_dir(follow_symlinks=False)
        ),
        None,
    )
    assert os.path.samestat(os.stat(os.path.join(place.directory, ".")), here)
    if inner is not None:
        assert os.path.samestat(os.stat(os.path.join(inner, "..")), here)
        os.chdir(inner)
        assert os.path.samestat(os.stat(".."), here)
        assert os.getcwd() == os.path.realpath(inner)
        os.chdir("/")


def a_file_reads_the_same_in_every_way(place: Place) -> None:
    with open(place.file, "rb") as file:
        whole = file.read()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == whole, "mmap"
    size = len(whole)
    assert os.stat(place.file).st_size == size
    descriptor = opened(place.file)
    for offset, length in (
        (0, 1),
        (1, 4096),
        (65535, 2),
        (100_001, 70_000),
        (size - 3, 10),
        (size, 5),
        (size + 9, 5),
    ):
        assert os.pread(descriptor, length, offset) == whole[offset : offset + length], (
            offset,
            length,
        )
    assert os.lseek(descriptor, -7, os.SEEK_END) == size - 7
    assert os.read(descriptor, 100) == whole[-7:]
    assert os.read(descriptor, 100) == b""


def direct_reads_are_the_same(place: Place) -> None:
    usual, direct = opened(place.file), opened(place.file, os.O_RDONLY | os.O_DIRECT)
    for offset in (0, 4096, 131072):
        with mmap.mmap(-1, 8192) as page:  # aligned, as O_DIRECT may ask
            count = os.preadv(direct, [page], offset)
            assert page[:count] == os.pread(usual, count, offset) and count, offset


def holes_are_where_the_end_is(place: Place) -> None:
    descriptor, size = opened(place.file), os.stat(place.file).st_size
    assert os.lseek(descriptor, 10, os.SEEK_DATA) == 10
    assert os.lseek(descriptor, 10, os.SEEK_HOLE) == size
    refused(errno.ENXIO, lambda: os.lseek(descriptor, size + 1, os.SEEK_DATA))
    refused(errno.EINVAL, lambda: os.lseek(descriptor, -1, os.SEEK_SET))


def a_path_descriptor_is_no_reader(place: Place) -> None:
    descriptor = opened(place.file, os.O_PATH)
    assert os.path.samestat(os.fstat(descriptor), os.stat(place.file))
    refused(errno.EBADF, lambda: os.read(descriptor, 1))
    link = opened(place.link, os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(os.fstat(link).st_mode)


def a_directory_is_no_file(place: Place) -> None:
    refused(errno.EISDIR, lambda: os.read(opened(place.directory), 1))
    refused(errno.EISDIR, lambda: opened(place.directory, os.O_RDWR))
    refused(errno.EINVAL, lambda: os.readlink(place.directory))


def a_file_is_no_directory(place: Place) -> None:
    refused(errno.ENOTDIR, lambda: os.stat(place.file + "/x"))
    refused(errno.ENOTDIR, lambda: os.stat(place.file + "/"))
    refused(errno.ENOTDIR, lambda: os.listdir(place.file))
    refused(errno.ENOTDIR, lambda: opened(place.file, os.O_RDONLY | os.O_DIRECTORY))
    refused(errno.EINVAL, lambda: os.readlink(place.file))


def a_link_is_followed_or_not_as_asked(place: Place) -> None:
    found = os.lstat(place.link)
    assert stat.S_ISLNK(found.st_mode)
    assert found.st_size == len(os.fsencode(os.readlink(place.link)))
    refused(errno.ELOOP, lambda: opened(place.link, os.O_RDONLY | os.O_NOFOLLOW))


def names_are_bounded(place: Place) -> None:
    refused(errno.ENOENT, lambda: os.stat(os.path.join(place.directory, "n" * 255)))
    refused(errno.ENAMETOOLONG, lambda: os.stat(os.path.join(place.directory, "n" * 256)))
    refused(errno.ENOENT, lambda: os.stat(os.path.join(place.directory, "no\udcff")))
    assert os.statvfs(place.directory).f_namemax == 255


def the_file_system_says_what_it_is(place: Place) -> None:
    flags = os.statvfs(place.directory).f_flag
    assert flags & os.ST_RDONLY and flags & os.ST_NOSUID and flags & os.ST_NODEV


def nothing_can_be_changed(place: Place) -> None:
    new, file, inside = os.path.join(place.directory, "new"), place.file, place.directory
    for act in (
        lambda: opened(new, os.O_WRONLY | os.O_CREAT),
        lambda: opened(file, os.O_WRONLY),
        lambda: opened(file, os.O_RDWR),
        lambda: opened(file, os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(file, 0),
        lambda: os.mkdir(new),
        lambda: os.symlink("x", new),
        lambda: os.link(file, new),
        lambda: os.mkfifo(new),
        lambda: os.unlink(file),
        lambda: os.rename(file, new),
        lambda: os.chmod(file, 0o600),
        lambda: os.chown(file, os.getuid(), os.getgid()),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.x", b"x"),
        lambda: os.removexattr(file, "user.oci.digest"),
    ):
        refused(errno.EROFS, act)
    assert not os.access(file, os.W_OK)
    assert not os.access(inside, os.W_OK)


def what_may_be_read_is_readable_and_what_is_no_program_is_not_run(place: Place) -> None:
    assert os.access(place.file, os.R_OK)
    assert os.access(place.directory, os.R_OK | os.X_OK)
    if not os.stat(place.file).st_mode & 0o111:
        assert not os.access(place.file, os.X_OK)
        refused(errno.EACCES, lambda: os.execv(place.file, ["x"]))


def attributes_have_sizes(place: Place) -> None:
    path = os.fsencode(place.file)
    listed = os.listxattr(place.file)
    need = LIBC.listxattr(path, None, 0)
    assert need == sum(len(os.fsencode(name)) + 1 for name in listed)
    if listed:
        assert LIBC.listxattr(path, ctypes.create_string_buffer(need), need - 1) == -1
        assert ctypes.get_errno() == errno.ERANGE
    for name in listed:
        value = os.getxattr(place.file, name)
        assert LIBC.getxattr(path, os.fsencode(name), None, 0) == len(value)
        if value:
            assert (
                LIBC.getxattr(
                    path, os.fsencode(name), ctypes.create_string_buffer(len(value)), len(value) - 1
                )
                == -1
            )
            assert ctypes.get_errno() == errno.ERANGE, name
    refused(errno.ENODATA, lambda: os.getxattr(place.file, "user.no.such.thing"))


def statx_tells_what_stat_tells(place: Place) -> None:
    buffer = ctypes.create_string_buffer(256)
    assert (
        LIBC.statx(AT_FDCWD, os.fsencode(place.file), AT_SYMLINK_NOFOLLOW, STATX_BASIC, buffer) == 0
    )
    # struct statx (linux/stat.h): mask 0, nlink 16, mode 28, ino 32, size 40
    found = os.lstat(place.file)
    number = lambda at, size: int.from_bytes(buffer.raw[at : at + size], sys.byteorder)  # noqa: E731
    assert number(0, 4) & STATX_BASIC == STATX_BASIC
    assert (number(16, 4), number(28, 2)) == (found.st_nlink, found.st_mode)
    assert (number(32, 8), number(40, 8)) == (found.st_ino, found.st_size)
    assert found.st_blocks * 512 >= found.st_size
    assert found.st_nlink >= 1


def readers_may_lock(place: Place) -> None:
    descriptor = opened(place.file)
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def the_kernel_can_copy_out(place: Place) -> None:
    size = os.stat(place.file).st_size
    with tempfile.TemporaryFile() as target, open(place.file, "rb") as source:
        done = 0
        while done < size:
            count = os.sendfile(target.fileno(), source.fileno(), done, size - done)
            assert count
            done += count
        target.seek(0)
        assert target.read() == source.read()


def sync_and_advice_do_no_harm(place: Place) -> None:
    descriptor = opened(place.file)
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    os.fsync(opened(place.directory))
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def inodes_stay(place: Place) -> None:
    first = os.stat(place.file)
    assert os.path.samestat(first, os.fstat(opened(place.file)))
    assert first.st_ino == os.stat(place.file).st_ino
    assert first.st_dev == os.lstat(place.directory).st_dev


CHECKS = (
    seekdir_goes_on_where_telldir_was,
    dot_and_dot_dot_are_listed_first,
    names_are_listed_once_and_all_can_be_looked_up,
    readdir_tells_the_type_and_inode_that_lstat_tells,
    dot_dot_leads_back,
    a_file_reads_the_same_in_every_way,
    direct_reads_are_the_same,
    holes_are_where_the_end_is,
    a_path_descriptor_is_no_reader,
    a_directory_is_no_file,
    a_file_is_no_directory,
    a_link_is_followed_or_not_as_asked,
    names_are_bounded,
    the_file_system_says_what_it_is,
    nothing_can_be_changed,
    what_may_be_read_is_readable_and_what_is_no_program_is_not_run,
    attributes_have_sizes,
    statx_tells_what_stat_tells,
    readers_may_lock,
    the_kernel_can_copy_out,
    sync_and_advice_do_no_harm,
    inodes_stay,
)


def main() -> None:
    place = Place(*sys.argv[1:4])
    results = {}
    for check in CHECKS:
        try:
            check(place)
        except (AssertionError, OSError) as error:
            results[check.__name__] = f"{type(error).__name__}: {error}"
        else:
            results[check.__name__] = ""
    print(json.dumps(results))


if __name__ == "__main__":
    main()
