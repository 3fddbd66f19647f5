"""Every connection to a registry returns to its pool, whatever the response."""

from __future__ import annotations

import gc
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio

from ocifs.content import Blob
from ocifs.errors import OcifsError, RateLimited, RegistryFailed
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.registry.config.endpoint import Endpoint
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.mount.test_registry_mount import push_files
from tests.support.clients import open_registry
from tests.support.faultproxy import LIES, SIZES, WAYS, FaultProxy, fault_proxy
from tests.support.registry import Registry

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("nobodys_home")]

CONNECTIONS, ROUNDS = 2, 4  # each round asks four times
CONTENT = random.Random(3).randbytes(200_000)
BLOB = Blob("pool/app", Digest.of(CONTENT), len(CONTENT))


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultProxy]:
    push_files(registry, "pool/app", "v1", CONTENT)
    with fault_proxy(registry.host) as running:
        yield running


@asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[RegistryClient]:
    settings = Settings(limits=Limits(retries=1), network=NetworkSettings(connections=CONNECTIONS))
    timing = replace(settings.timing, stall_timeout=0.2, connect_timeout=5)
    async with open_registry(proxy.host, replace(settings, timing=timing)) as opened:
        yield opened


async def ask_everything(asked: RegistryClient) -> bytes:
    """A list, a tag, a manifest and a blob; the blob's bytes."""
    await asked.tags("pool/app")
    found = await asked.resolve("pool/app", "v1")
    await asked.manifest("pool/app", found.digest)
    return await read(asked)


async def read(asked: RegistryClient) -> bytes:
    async with asked.open_blob(BLOB, 0, BLOB.size) as stream:
        return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("fault", (*WAYS, *SIZES, *LIES))
async def test_after_any_fault_every_connection_is_free_again(
    proxy: FaultProxy, fault: str
) -> None:
    async with client(proxy) as asked:
        assert await ask_everything(asked) == CONTENT
        digest = (await asked.resolve("pool/app", "v1")).digest
        proxy.fault = fault
        for _ in range(ROUNDS):
            questions = (
                lambda: asked.tags("pool/app"),
                lambda: asked.resolve("pool/app", "v1"),
                lambda: asked.manifest("pool/app", digest),
                lambda: read(asked),
            )
            for question in questions:
                with suppress(OcifsError), trio.move_on_after(0.5):
                    await question()
        proxy.fault = ""
        with trio.fail_after(60):
            assert await when_it_may_be_asked(asked) == CONTENT


async def when_it_may_be_asked(asked: RegistryClient) -> bytes:
    while True:
        try:
            return await ask_everything(asked)
        except (RateLimited, RegistryFailed):  # it has asked for patience
            await trio.sleep(0.3)  # nothing reports that this is over


async def test_callers_that_leave_at_any_moment_leave_no_connection_taken(
    proxy: FaultProxy,
) -> None:
    async with client(proxy) as asked:
        assert await ask_everything(asked) == CONTENT
        proxy.fault = "drip"
        for milliseconds in range(0, 200, 10):
            with trio.move_on_after(milliseconds / 1000):
                await ask_everything(asked)
        proxy.fault = ""
        with trio.fail_after(60):
            assert await ask_everything(asked) == CONTENT


async def test_a_caller_that_leaves_in_the_middle_of_a_handshake_leaves_no_socket() -> None:
    """Not even until the garbage is collected: the other end sees at once that the connection is
    over.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        gc.disable()
        try:
            async with open_registry(
                Endpoint(f"127.0.0.1:{listener.getsockname()[1]}", "https"), Settings()
            ) as asked:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(asked.tags, "a/b")
                    connection = await trio.to_thread.run_sync(lambda: listener.accept()[0])
                    connection.settimeout(60)
                    assert (
                        await trio.to_thread.run_sync(connection.recv, 1) == b"\x16"
                    )  # a ClientHello begins
                    nursery.cancel_scope.cancel()
                with connection:
                    assert await trio.to_thread.run_sync(drained, connection)
        finally:
            gc.enable()


def drained(connection: socket.socket) -> bool:
    """Whether a connection comes to an end."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True
