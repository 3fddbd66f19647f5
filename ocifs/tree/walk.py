"""Resolves a path to a node, following symbolic links, for callers without a mount.

The Python API and the commands call it from the event loop. In a mount the kernel does the same.

Rules that hold here:

- A path never leads above the root that it starts at.
- As many links are followed as the kernel follows.
"""

from __future__ import annotations

from ocifs.errors import NotADirectory, NotFound, TooManyLinks
from ocifs.tree.node import Directory, Node, Symlink

# The limit of Linux (path_resolution(7)).
MAX_LINKS = 40


async def walk(root: Directory, path: bytes, *, follow: bool = True) -> Node:
    """The node at a path below `root`. Without `follow`, a link at its end is not followed.

    Raises NotFound, NotADirectory or TooManyLinks.
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
            raise NotADirectory(f"not a directory: the parent of {name.decode(errors='replace')!r}")
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
