"""Random changes on real overlayfs mounts, the resulting layers, and what the kernel shows.

This is the oracle for merged trees. A stack depends only on its seed. Each of its layers is written
in one of two styles, with its entries in one of several orders:

- like overlay2: the upper directory, a whiteout for each device 0:0, and a marker for each opaque
  directory
- like containerd's walking differ: the differences between two trees, and a whiteout for each
  removed name

Rules:

- Nothing outside the directory is changed.
- The names of a hard link are compared separately, since overlayfs breaks hard links on copy-up.
- `overlaid.py` calls this in a mount namespace.
"""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.oracle import Facts, facts
from tests.support.waiting import unmount

NAMES = ["a", "b", "c", "lib", "x y", "\u00e9", "n" * 120]
ORDERS = ["walk", "walk", "whiteouts first", "whiteouts last", "reversed", "shuffled"]
OPTIONS = "index=off,redirect_dir=off,metacopy=off,xino=off"
Entry = tuple[tarfile.TarInfo, bytes]


@dataclass(frozen=True)
class Stack:
    """Layers as tars, lowest first, and what the kernel shows of them."""

    tars: tuple[bytes, ...]
    truth: dict[bytes, Facts]


class Changes:
    """Random changes below a directory."""

    def __init__(self, dice: random.Random, root: Path) -> None:
        self._dice = dice
        self._root = root
        self._count = 0

    def some(self, most: int) -> None:
        kinds: list[Callable[[], None]] = [
            *[self._file] * 4,
            *[self._link] * 3,
            *[self._remove] * 3,
            *[self._instead] * 3,
            *[self._directory] * 2,
            *[self._attributes] * 2,
            self._append,
            self._hard_link,
            self._move,
            self._device,
        ]
        for _ in range(self._dice.randint(1, most)):
            self._count += 1
            with suppress(OSError, shutil.Error):  # what cannot be done is a change less
                self._dice.choice(kinds)()

    def _paths(self) -> list[Path]:
        found = [
            Path(here, name)
            for here, dirs, files in os.walk(self._root)
            for name in (*dirs, *files)
        ]
        return sorted(found)

    def _any(self) -> Path:
        return self._dice.choice(self._paths() or [self._root / "a"])

    def _fresh(self) -> Path:
        homes = [
            self._root,
            *(path for path in self._paths() if path.is_dir() and not path.is_symlink()),
        ]
        return self._dice.choice(homes) / self._dice.choice(NAMES)

    def _away(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        path.write_bytes(b"%d " % self._count * self._dice.choice([1, 1, 400]))

    def _file(self) -> None:
        path = self._fresh()
        if self._dice.random() < 0.5 or not path.is_file():
            self._away(path)
        if not path.is_symlink():
            self._write(path)

    def _append(self) -> None:
        path = self._any()
        if path.is_file() and not path.is_symlink():
            with path.open("ab") as file:
                file.write(b"more")

    def _directory(self) -> None:
        self._fresh().mkdir()

    def _link(self) -> None:
        path = self._fresh()
        target = str(self._any().relative_to(self._root))
        choices = [
            f"/{target}",
            target,
            f"../{target}",
            Path(target).name,
            "..",
            ".",
            "/",
            "nothing",
            "/usr/lib",
            "usr/lib",
        ]
        self._away(path)
        path.symlink_to(self._dice.choice(choices))

    def _remove(self) -> None:
        self._away(self._any())

    def _instead(self) -> None:
        """Replace anything by a directory."""
        path = self._any()
        self._away(path)
        path.mkdir()
        if self._dice.random() < 0.6:
            self._write(path / self._dice.choice(NAMES))

    def _attributes(self) -> None:
        path = self._any()
        if path.is_symlink():
            return
        path.chmod(
            self._dice.choice(
                [0o700, 0o755, 0o4755, 0o1777] if path.is_dir() else [0o600, 0o644, 0o2755]
            )
        )
        os.chown(path, self._dice.choice([0, 1000]), self._dice.choice([0, 42]))
        if self._dice.random() < 0.5:
            os.setxattr(path, "user.note", b"%d" % self._count)

    def _hard_link(self) -> None:
        path = self._any()
        if path.is_file() and not path.is_symlink():
            os.link(path, self._fresh())

    def _move(self) -> None:
        source, target = self._any(), self._fresh()
        if source.is_dir() and not all(
            path.is_dir() or path.is_file() or path.is_symlink() for path in source.rglob("*")
        ):
            return  # it may have to be copied, and devices are not
        if not target.exists() and not target.is_symlink() and source not in target.parents:
            shutil.move(source, target)

    def _device(self) -> None:
        path, kind = self._fresh(), self._dice.choice([stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
        self._away(path)
        os.mknod(path, kind | 0o640, os.makedev(240, 7) if kind != stat.S_IFIFO else 0)


def _entry(root: Path, path: str, linked: dict[tuple[int, int], str]) -> Entry:
    """An entry for a path; a hard link if `linked` contains the file."""
    place = root / path if path else root
    status = place.lstat()
    info = tarfile.TarInfo(path or "./")
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    info.pax_headers = {"mtime": f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}"}
    for name in os.listxattr(place, follow_symlinks=False):
        if not name.startswith("trusted.overlay."):
            value = os.getxattr(place, name, follow_symlinks=False)
            info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
    }
    kinds |= {stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}
    info.type = kinds.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    if info.type == tarfile.SYMTYPE:
        info.linkname = str(place.readlink())
    elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif info.type == tarfile.REGTYPE:
        first = linked.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
            return info, b""
        content = place.read_bytes()
        info.size = len(content)
        return info, content
    return info, b""


def _marker(path: str) -> Entry:
    return tarfile.TarInfo(path), b""


def _whiteout(path: str) -> Entry:
    parent, _, name = path.rpartition("/")
    return _marker(f"{parent}/.wh.{name}" if parent else f".wh.{name}")


def _walk(root: Path) -> list[str]:
    found = [
        os.path.relpath(os.path.join(here, name), root)
        for here, dirs, files in os.walk(root)
        for name in (*dirs, *files)
    ]
    return sorted(found, key=lambda path: path.split("/"))


def of_upper(upper: Path) -> list[Entry]:
    """The layer that overlay2 writes for an upper directory."""
    linked: dict[tuple[int, int], str] = {}
    entries = [_entry(upper, "", linked)]
    for path in _walk(upper):
        status = (upper / path).lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            entries.append(_whiteout(path))
            continue
        entries.append(_entry(upper, path, linked))
        if stat.S_ISDIR(status.st_mode) and _is_opaque(upper / path):
            entries.append(_marker(f"{path}/.wh..wh..opq"))
    return entries


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def of_difference(before: dict[bytes, Facts], root: Path) -> list[Entry]:
    """The layer that a differ writes for two trees: changes with their parents, and removals."""
    after = facts(root)
    changed = {path for path, fact in after.items() if _alone(before.get(path)) != _alone(fact)} | {
        b""
    }
    for path in list(changed):
        parts = path.split(b"/")
        changed |= {b"/".join(parts[:depth]) for depth in range(1, len(parts))}
    linked: dict[tuple[int, int], str] = {}
    entries = [
        _entry(root, os.fsdecode(path), linked)
        for path in sorted(changed, key=lambda path: path.split(b"/"))
    ]
    for path in sorted(before.keys() - after.keys()):
        parent = path.rpartition(b"/")[0]
        if parent in after and stat.S_ISDIR(after[parent].mode):
            entries.append(_whiteout(os.fsdecode(path)))
    return entries


def _alone(fact: Facts | None) -> Facts | None:
    return None if fact is None else replace(fact, names=(), nlink=0)


def _tar(entries: list[Entry], order: str, dice: random.Random) -> bytes:
    """A tar in one of the orders. Hard links follow their targets."""
    if order == "reversed":
        entries = entries[::-1]
    elif order == "shuffled":
        entries = dice.sample(entries, len(entries))
    elif order != "walk":
        entries = sorted(
            entries,
            key=lambda entry: ("/.wh." in f"/{entry[0].name}") == (order == "whiteouts last"),
        )
    entries = sorted(entries, key=lambda entry: entry[0].type == tarfile.LNKTYPE)
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def make(seed: int, base: Path) -> Stack:
    """The stack of a seed, created on mounts below a directory, which are unmounted afterwards.

    Raises OSError if overlayfs cannot be mounted.
    """
    dice = random.Random(seed)
    with _mount("tmpfs", "tmpfs", "", base):
        (base / "0/usr/lib").mkdir(parents=True)
        (base / "0/usr/lib/libc").write_text("libc")
        (base / "0/lib").symlink_to("usr/lib")
        Changes(dice, base / "0").some(12)
        order = dice.choice(ORDERS)
        lower, tars, truth = (
            [base / "0"],
            [_tar(of_upper(base / "0"), order, dice)],
            facts(base / "0"),
        )
        for number in range(1, dice.randint(2, 5)):
            upper, work, point = base / f"upper{number}", base / f"work{number}", base / "merged"
            for each in (upper, work, point):
                each.mkdir(exist_ok=True)
            layers = ":".join(map(str, reversed(lower)))
            with _mount(
                "overlay",
                "overlay",
                f"lowerdir={layers},upperdir={upper},workdir={work},{OPTIONS}",
                point,
            ):
                Changes(dice, point).some(8)
                before, truth = truth, facts(point)
                by_upper = dice.random() < 0.7
                entries = [] if by_upper else of_difference(before, point)
            tars.append(_tar(of_upper(upper) if by_upper else entries, order, dice))
            lower.append(upper)
        return Stack(
            tuple(tars), {path: replace(fact, names=(), nlink=0) for path, fact in truth.items()}
        )


@contextmanager
def _mount(kind: str, source: str, options: str, point: Path) -> Iterator[None]:
    command = ["mount", "-t", kind, *(["-o", options] if options else []), source, str(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr)
    try:
        yield
    finally:
        unmount(point)
