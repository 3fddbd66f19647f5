"""From a path to a node, following symbolic links: what the kernel does for a mount, for everything
that has none.

Rules that hold here: a path never leads above the root it starts at; links are followed at most as
often as the kernel follows them.
"""

from __future__ import annotations

from ocifs.errors import NotADirectory, NotFound, TooManyLinks
from ocifs.tree.node import Directory, Node, Symlink

MAX_LINKS = 40  # what Linux allows (path_resolution(7))


async def walk(root: Directory, path: bytes, *, follow: bool = True) -> Node:
    """The node at a path below `root`; with `follow`, what a link at its end leads to.

    Raises NotFound, NotADirectory, TooManyLinks.
    """
    passed: list[Directory] = []
    here: Node = root
    todo = path.split(b"/")[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if not isinstance(here, Directory):
            raise NotADirectory(
                f"{name.decode(errors='replace')!r} is looked up in something that is no directory"
            )
        if name == b"..":
            here = passed.pop() if passed else root
            continue
        found = await here.lookup(name)
        if not found.attributes_known:
            await found.restore_attributes()
        if isinstance(found, Symlink) and (follow or todo):
            links += 1
            if links > MAX_LINKS:
                raise TooManyLinks(
                    f"more than {MAX_LINKS} symbolic links in {path.decode(errors='replace')!r}"
                )
            if found.target.startswith(b"/"):
                raise NotFound(
                    f"a link leads out of the tree: {found.target.decode(errors='replace')!r}"
                )
            todo += found.target.split(b"/")[::-1]
            continue
        passed.append(here)
        here = found
    return here
