"""The syntax of references and sources.

    [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]   reference, with Docker's defaults
    HOST[:PORT][/NAMESPACE...]                registry, or a part of one
    several of these, or any host             source of several hosts
    oci:DIR[:REF], ./FILE and others          local source (local.py)

The command line, the Python API and the mount helper parse their arguments here.

Rules that hold here:

- Pure.
- The first component is a host if it has a dot or a colon, is `localhost`, or is followed only by
  a slash.
- Everything else is on docker.io, where a single component means `library/`.
- A scheme that other tools write is accepted: `docker://`, `oci://`, `https://`.
- Hosts are compared without regard to case (RFC 9110, section 4.2.3), and kept in lower case.
- An error quotes the text and marks the invalid part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ocifs.errors import InvalidReference, Malformed
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, is_local, parse_local
from ocifs.printable import printable

DOCKER_HUB = "docker.io"
# Docker's credentials are stored under index.docker.io, and its registry is registry-1.docker.io.
_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io"})
# The specification has no bound. distribution/reference rejects longer names.
MAX_REPOSITORY_LENGTH = 255

# Names and tags have the patterns of the distribution-spec, "Pulling manifests".
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?P<port>:[0-9]{1,5})?"
)
_SCHEMES = ("docker://", "oci://", "https://")
PLAIN_HTTP = "http://"
"""The scheme of a source for which the command line sets `--plain-http`."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One manifest of one repository.

    At least one of `tag` and `digest` is set; the digest has precedence.
    """

    host: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """A registry, or the part of it below `path`, a namespace or a repository.

    An empty `path` is the whole registry.
    """

    host: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host


@dataclass(frozen=True, slots=True)
class HostsSource:
    """Several registries, each in a directory.

    `parts`: the registries, or parts of them, that are listed.
    `any`: other registries can be entered by name.
    """

    parts: tuple[RegistrySource, ...]
    any: bool = False

    def __str__(self) -> str:
        return ",".join([*map(str, self.parts), *(["any"] if self.any else [])])

    @property
    def hosts(self) -> tuple[str, ...]:
        """The listed hosts, each once."""
        return tuple(dict.fromkeys(part.host for part in self.parts))


OneSource = RegistrySource | Reference | LayoutSource
Source = OneSource | HostsSource


def is_component(text: str) -> bool:
    """Whether the text is valid as one component of a repository's name."""
    return _COMPONENT.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether the text is a valid name of a repository."""
    return len(text) <= MAX_REPOSITORY_LENGTH and all(
        is_component(part) for part in text.split("/")
    )


def is_tag(text: str) -> bool:
    """Whether the text is a valid tag."""
    return _TAG.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether the text is a valid host, with or without a port."""
    match = _HOST.fullmatch(text)
    return match is not None and int((match["port"] or ":0")[1:]) <= 65535


def is_registry_name(text: str) -> bool:
    """Whether the text is a host if a repository follows: with a dot or port, or `localhost`."""
    name = text.partition(":")[0]
    return is_host(text) and ("." in name or ":" in text or name == "localhost")


def normal_host(host: str) -> str:
    """The host in lower case, with the aliases of Docker Hub replaced by docker.io."""
    host = host.lower()
    return DOCKER_HUB if host in _HUB_NAMES else host


def hosts_of(source: Source) -> tuple[str, ...]:
    """The hosts of a source; none for a layout."""
    if isinstance(source, LayoutSource):
        return ()
    return source.hosts if isinstance(source, HostsSource) else (source.host,)


def join_sources(sources: Sequence[Source], any_host: bool) -> Source:
    """Combine several sources into one.

    Raises InvalidReference if one of them is a layout, or if there are none.
    """
    if len(sources) == 1 and not any_host:
        return sources[0]
    parts: list[RegistrySource] = []
    for source in sources:
        if isinstance(source, LayoutSource):
            raise InvalidReference(f"{source} can only be mounted by itself")
        if isinstance(source, HostsSource):
            parts += source.parts
        else:
            path = source.repository if isinstance(source, Reference) else source.path
            parts.append(RegistrySource(source.host, path))
    if not parts and not any_host:
        raise InvalidReference("missing source", hint="name a registry, or use --any")
    return HostsSource(tuple(dict.fromkeys(parts)), any_host)


def seeds_of(host: str, names: Iterable[str], *, alone: bool) -> tuple[str, ...]:
    """The repositories of a host in a list of names. Raises InvalidReference.

    `alone`: the mount has no other host, so that names may leave it out.
    """
    repositories = []
    for text in names:
        first, _, rest = text.partition("/")
        if alone:
            name = rest if rest and normal_host(first) == host else text
            if not is_repository(name):
                raise InvalidReference(
                    f"invalid repository name: {text!r}", hint="components are a-z and 0-9"
                )
            repositories.append(name)
            continue
        source = parse_source(text)
        if isinstance(source, Reference | RegistrySource) and source.host == host:
            name = source.repository if isinstance(source, Reference) else source.path
            repositories.append(name)
    return tuple(dict.fromkeys(name for name in repositories if name))


def is_short_name(text: str) -> bool:
    """Whether a reference has no host (containers-registries.conf(5), "short-name aliasing")."""
    try:
        return bool(text) and "://" not in text and not _split_host(text, text)[0]
    except InvalidReference:
        return False


def parse_reference(text: str) -> Reference:
    """Parse a reference, with Docker's defaults for missing parts. Raises InvalidReference."""
    if is_local(text):
        raise InvalidReference(f"not a reference to a registry: {text}")
    source = _parse_remote(text, text, reference=True)
    assert isinstance(source, Reference)
    return source


def parse_source(text: str) -> OneSource:
    """Parse a source, local or remote. Raises InvalidReference."""
    return parse_local(text) if is_local(text) else _parse_remote(text, text, reference=False)


def _parse_remote(text: str, rest: str, *, reference: bool) -> RegistrySource | Reference:
    rest = _without_scheme(rest)
    if not rest:
        raise InvalidReference(
            "empty reference",
            hint="write HOST/REPOSITORY:TAG, for example docker.io/library/alpine:3.19",
        )
    host, path = _split_host(text, rest)
    path, tag, digest = _split_version(text, path)
    if path:
        _check_repository(text, path)
    bare = not host
    host = host or DOCKER_HUB
    versioned = bool(tag or digest)
    if not path and (versioned or reference):
        raise _wrong(text, rest, "the repository is missing")
    # `docker.io/alpine` without a version is the namespace alpine, and not library/alpine.
    if host == DOCKER_HUB and path and "/" not in path and (bare or versioned or reference):
        path = f"library/{path}"
    if versioned or reference:
        return Reference(host, path, tag if versioned else "latest", digest)
    return RegistrySource(host, path)


def _without_scheme(text: str) -> str:
    """The text after an accepted scheme. Raises InvalidReference for any other scheme."""
    rest = text[scheme_length(text) :]
    user, _, host = rest.partition("/")[0].rpartition("@")
    if ":" in user and is_host(host):
        # Not quoted: the text contains a password.
        raise InvalidReference(
            f"a source cannot contain a password: {host}",
            hint="log in with docker, podman or skopeo, and write HOST/REPOSITORY:TAG",
        )
    if "://" in rest:
        scheme, _, name = rest.partition("://")
        http = scheme.lower() == "http"
        hint = f"write {name}" + (" and use --plain-http" if http else "")
        why = "a registry's name has no scheme" if http else "unknown scheme"
        raise _wrong(text, f"{scheme}://", why, hint=hint)
    return rest


def scheme_length(text: str) -> int:
    """The length of an accepted scheme that the text begins with, or 0."""
    return next((len(scheme) for scheme in _SCHEMES if text.lower().startswith(scheme)), 0)


def _split_host(text: str, rest: str) -> tuple[str, str]:
    """The host, if there is one, and the rest."""
    first, slash, path = rest.partition("/")
    name, colon, port = first.partition(":")
    looks_like_host = "." in name or first.startswith("[") or name == "localhost"
    if slash:
        looks_like_host = looks_like_host or bool(colon) or not path
    elif colon and not port.isdigit() and not first.startswith("["):
        # alpine.old:v1 without a slash can only be a repository and its tag.
        looks_like_host = False
    # The dots and the colon of NAME@DIGEST are not those of a host.
    if not looks_like_host or "@" in first:
        return "", rest
    if not is_host(first):
        raise _wrong(text, first, "not a host name with an optional port")
    return normal_host(first), path.rstrip("/")


def _split_version(text: str, path: str) -> tuple[str, str, Digest | None]:
    """The repository, the tag and the digest."""
    name, at, digest_text = path.partition("@")
    # A colon before the last slash would belong to a port.
    last = name.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    if colon:
        name = name[: len(name) - len(tag) - 1]
        if not is_tag(tag):
            raise _wrong(
                text,
                tag or ":",
                "not a tag: at most 128 letters, digits, '_', '.', '-'; '.' and '-' not first",
            )
    return name, tag, _parse_digest(text, digest_text) if at else None


def _parse_digest(text: str, digest_text: str) -> Digest:
    try:
        digest = Digest.parse(digest_text)
    except Malformed as error:
        raise _wrong(text, digest_text or "@", "not a digest", hint=error.hint) from None
    if not digest.verifiable:
        raise _wrong(
            text,
            digest_text,
            "not a digest that can be verified",
            hint="sha256 has 64 hexadecimal digits, sha512 has 128",
        )
    return digest


def _check_repository(text: str, path: str) -> None:
    if len(path) > MAX_REPOSITORY_LENGTH:
        raise InvalidReference(
            f"invalid reference: the repository's name has {len(path)} characters, "
            f"at most {MAX_REPOSITORY_LENGTH} are allowed"
        )
    for part in path.split("/"):
        if not part:
            raise _wrong(
                text,
                "//" if "//" in text else path,
                "a component of the repository's name is empty",
            )
        if not is_component(part):
            why = (
                "has capital letters"
                if is_component(part.lower())
                else "is not a valid component of a repository's name"
            )
            hint = "components are a-z and 0-9, joined by '.', '_', '__' or '-'"
            if is_component(part.lower()):
                hint = f"write it in lower case: {text.replace(path, path.lower(), 1)}"
            # A tag or digest before a slash is usually followed by a path in the image.
            if ":" in part or "@" in part:
                hint = f"without the path: {text.partition(part)[0]}{part}"
            raise _wrong(text, part, f"{part!r} {why}", hint=hint)


def _wrong(text: str, part: str, why: str, *, hint: str = "") -> InvalidReference:
    """The error, with carets below the invalid part. Its own line ends are the only ones."""
    text, part = printable(text), printable(part)
    start = max(text.rfind(part), 0) if part else 0
    carets = " " * start + "^" * max(len(part), 1)
    return InvalidReference(f"invalid reference: {why}\n    {text}\n    {carets}", hint=hint)
