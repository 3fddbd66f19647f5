"""One registry as a Catalog and a BlobSource (distribution-spec).

`MirroredRegistry` has one client for each endpoint, and calls it from the tasks of readers. State:
a few manifests that arrived with their tag, and the state of the connection, the lists and the
blob streams.

- The targets of requests come from `oci.distribution.endpoints`, and responses are interpreted by
  `oci.distribution.responses`.
- A manifest is verified. A blob is not, since the store verifies it; only its headers are compared
  with its size.
- A HEAD is only a hint. The response to a GET is the verdict.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial

from cachetools import LRUCache

from ocifs.concurrency import off_loop
from ocifs.content import Blob, BlobStream, RawManifest
from ocifs.errors import (
    AccessDenied,
    CatalogFailed,
    CatalogUnavailable,
    IntegrityError,
    LimitExceeded,
    Malformed,
    NotFound,
    RegistryFailed,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints, responses
from ocifs.oci.manifest import digest_of_manifest, verify_manifest
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.blobstream import BlobStreams
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.connection import Connection
from ocifs.registry.lists import PagedLists
from ocifs.registry.referrers import Referrers
from ocifs.registry.request import RegistryRequest
from ocifs.settings import Settings

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_MANIFESTS = 32  # that arrived with a tag and are kept until they are read by digest
# All except 429 (wait) and 401 (challenge), which are handled as for other requests.
_ANY_STATUS = frozenset(range(200, 600)) - {401, 429}
_NAME_HINT = "write the name of one after it; in a mount enter it, or use --repo"


class RegistryClient:
    """One registry. Use `open_registry`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._manifests: LRUCache[tuple[str, Digest], RawManifest] = LRUCache(_MANIFESTS)
        self._blobs = BlobStreams(connection)
        self._lists = PagedLists(connection)
        self._referrers = Referrers(connection, self._lists)

    async def check(self) -> None:
        """Check that the registry responds. Raises Unreachable, RegistryFailed."""
        await self._connection.check()

    async def admit(self, repository: str) -> None:
        """Check with one request that a repository (empty: the registry) can be read.

        Raises NotFound, AccessDenied and other errors.
        """
        if not repository:
            await self._connection.sign_in()
            return
        target, limit = endpoints.one_tag(repository), self._limits.answer_bytes
        with self._absent(f"repository {repository}"):
            await self._connection.fetch(RegistryRequest("GET", target, {}, limit=limit))

    async def credential(self, repository: str) -> Credential | None:
        """The credential for a repository. Sends no request."""
        return await self._connection.credential(repository)

    def facts(self) -> dict[str, object]:
        """The registry's rate limits and warnings, for status.json."""
        return self._connection.throttle.facts()

    async def repositories(self) -> tuple[str, ...]:
        """The catalog.

        Raises CatalogUnavailable for a refusal: repositories can still be looked up by name.
        """
        with self._catalog_errors():
            return tuple(sorted(await self._lists.names(endpoints.catalog(), "repositories")))

    async def brief_list(self) -> tuple[str, ...] | None:
        """The catalog if it has one page and needs no token of its own, otherwise None."""
        # A token for the catalog would be a second request, but a lookup can request the name
        # itself (docs/decisions/0240).
        if self._connection.wants_tokens:
            return None
        with self._catalog_errors():
            try:
                names = await self._lists.single_page(endpoints.catalog(), "repositories")
            except AccessDenied:
                return None
        return None if names is None else tuple(sorted(names))

    @contextmanager
    def _absent(self, missing: str, repository: str = "") -> Iterator[None]:
        """Name the missing object instead of the address of a request.

        A 404 of another web server keeps its own message: the address may be wrong.
        """
        try:
            yield
        except NotFound as error:
            if not error.is_registry_error:
                raise
            place = "/".join(filter(None, (self._connection.host, repository)))
            named = NotFound(f"{place} has no {missing}", hint=error.hint)
            named.is_registry_error = True
            raise named from error

    @contextmanager
    def _catalog_errors(self) -> Iterator[None]:
        try:
            yield
        except (NotFound, AccessDenied, RegistryFailed, Malformed, LimitExceeded) as error:
            # A list that was cut short is shown with its names so far, and ends with its own error.
            if error.listed:
                raise
            host = self._connection.host
            refused = isinstance(error, RegistryFailed) and error.status == 405
            if refused or isinstance(error, NotFound | AccessDenied):
                text, hint = f"{host} does not list its repositories", _NAME_HINT
                if isinstance(error, AccessDenied) and error.needs_login:
                    text, hint = f"{text}: {error}", error.hint
                raise CatalogUnavailable(text, hint=hint) from error
            hint = error.hint or _NAME_HINT
            raise CatalogFailed(
                f"{host} does not list its repositories: {error}", hint=hint
            ) from error

    async def tags(self, repository: str) -> tuple[str, ...]:
        with self._absent(f"repository {repository}"):
            return await self._lists.names(endpoints.tags(repository), "tags")
        raise AssertionError("_absent has suppressed an error")

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """The descriptor of a tag's manifest."""
        target = endpoints.manifest(repository, tag)
        response = await self._head(target, _ACCEPT)
        if response is not None:
            descriptor = responses.read_head(response)
            if descriptor is not None:
                return descriptor
        # Some registries refuse HEAD, or leave out the digest.
        manifest = await self._fetch_tagged(repository, tag)
        # The caller fetches this digest next. The GET is not repeated then.
        self._manifests[repository, manifest.digest] = manifest
        return Descriptor(manifest.media_type, manifest.digest, len(manifest.body))

    async def _head(self, target: str, headers: dict[str, str]) -> dict[str, str] | None:
        """The headers of a 200 to a HEAD; None for any other response or a lost connection."""
        request = RegistryRequest("HEAD", target, headers, _ANY_STATUS)
        response = await self._connection.try_fetch(request)
        return dict(response.headers) if response and response.status == 200 else None

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self._fetch_tagged(repository, tag)

    async def _fetch_tagged(self, repository: str, tag: str) -> RawManifest:
        target, limit = endpoints.manifest(repository, tag), self._limits.manifest_bytes
        request = RegistryRequest("GET", target, _ACCEPT, limit=limit)
        with self._absent(f"tag {tag}", repository):
            response = await self._connection.fetch(request)
        body = response.body
        digest = responses.read_digest(response.headers)
        if digest is None:
            digest = await off_loop(len(body), partial(digest_of_manifest, body))
        try:
            await off_loop(len(body), partial(verify_manifest, body, digest))
        except IntegrityError:
            # The body was changed, or the header is wrong. By digest there is only one answer.
            return await self.manifest(repository, digest)
        return RawManifest(digest, response.headers.get("content-type", ""), body)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        # Read once after its tag was resolved. The store has cached it then.
        stored = self._manifests.pop((repository, digest), None)
        if stored is not None:
            return stored
        digest.hasher()  # raises before the request if the algorithm is unsupported
        target, limit = endpoints.manifest(repository, digest), self._limits.manifest_bytes
        request = RegistryRequest("GET", target, _ACCEPT, limit=limit)
        with self._absent(f"manifest {digest}", repository):
            response = await self._connection.fetch(request)
        body = response.body
        await off_loop(len(body), partial(verify_manifest, body, digest))
        return RawManifest(digest, response.headers.get("content-type", ""), body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        return await self._referrers.of(repository, digest)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        # Addresses that are signed for GET refuse HEAD, and so do some registries.
        headers = await self._head(endpoints.blob(repository, digest), {})
        size = None if headers is None else responses.read_head_size(headers)
        if size is None:
            size = await self._blobs.size(repository, digest)
        if size is None:
            raise Malformed(f"{self._connection.host} does not report the size of {digest}")
        return size

    def open_blob(
        self, blob: Blob, start: int, stop: int
    ) -> AbstractAsyncContextManager[BlobStream]:
        return self._blobs.open(blob, start, stop)

    def report_corrupt(self, digest: Digest) -> bool:
        return False  # there is no other endpoint

    def is_strained(self) -> bool:
        return self._connection.throttle.is_strained()


@asynccontextmanager
async def open_registry(
    endpoint: Endpoint | str, settings: Settings, sources: CredentialSources
) -> AsyncIterator[RegistryClient]:
    """A client for a registry, for the duration of the block. Sends no request."""
    endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    connection = Connection(endpoint, settings, sources)
    try:
        yield RegistryClient(connection)
    finally:
        await connection.aclose()
