"""Lists on real sockets: complete, or an error.

The lists of other clients are the oracle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from ocifs.errors import (
    AccessDenied,
    CatalogUnavailable,
    LimitExceeded,
    Malformed,
    NotFound,
    OcifsError,
    RegistryFailed,
)
from ocifs.oci.distribution.endpoints import PAGE
from ocifs.settings import Limits, Settings
from tests.support.clients import open_registry
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.tools import tool

TAGS = [f"t{number:05d}" for number in range(2500)]
TARGET = "/v2/a/b/tags/list"
ONCE = Settings(limits=Limits(retries=1))


def page(tags: list[object] | list[str], **headers: str) -> Reply:
    return http(200, json.dumps({"name": "a/b", "tags": tags}).encode(), **headers)


def rest(request: Request, names: list[str]) -> list[str]:
    """What follows the `last` of a request."""
    last = parse_qs(urlsplit(request.target).query).get("last", [""])[0]
    return [name for name in names if name > last]


def linked(link: str, size: int = 700, then: Handler | None = None) -> Handler:
    """Pages of `size`; `link` has `{last}` and `{host}` to fill in.

    `then` answers what is no page of ours.
    """

    def handler(request: Request) -> Reply:
        if then is not None and "last=" in request.target:
            return then(request)
        left = rest(request, TAGS)
        more = (
            link.format(last=left[size - 1], host=request.headers["host"])
            if len(left) > size
            else ""
        )
        return page(left[:size], link=more)

    return handler


async def tags_of(handler: Handler, settings: Settings = ONCE) -> tuple[str, ...]:
    with fault_server(handler) as server, trio.fail_after(30):
        async with open_registry(server.host, settings) as client:
            return await client.tags("a/b")


LINKS = {
    "no brackets": TARGET + '?last={last}; rel="next"',
    "no relation": "<" + TARGET + "?last={last}>",
    "single quotes": "<" + TARGET + "?last={last}>; rel='next'",
    "several relations": "<" + TARGET + '?last={last}>; rel="foo next"',
    "another link first": "</first>; rel=first, <" + TARGET + "?last={last}>; rel=next",
    "query alone": "<?last={last}>; rel=next",
    "another scheme of the same host": "<https://{host}" + TARGET + "?last={last}>; rel=next",
}


@pytest.mark.parametrize("name", LINKS)
async def test_links_are_followed_as_others_write_them(name: str) -> None:
    assert await tags_of(linked(LINKS[name])) == tuple(TAGS)


@pytest.mark.servers
def test_skopeo_lists_the_same_behind_the_links_that_it_can_read(tmp_path: Path) -> None:
    skopeo = tool("skopeo", tmp_path)
    for name in ("no brackets", "no relation", "single quotes"):
        with fault_server(with_ping(linked(LINKS[name])), plain=True) as server:
            listed = json.loads(
                skopeo("list-tags", "--tls-verify=false", f"docker://{server.host}/a/b")
            )
        assert listed["Tags"] == TAGS, name


def with_ping(handler: Handler) -> Handler:
    return lambda request: http(200) if request.target == "/v2/" else handler(request)


LATER: dict[str, tuple[Callable[[Request], Reply], type[OcifsError]]] = {
    "missing": (lambda _: http(404), Malformed),
    "refused": (lambda _: http(403), AccessDenied),
    "failing": (lambda _: http(500), Malformed),
    "failing for now": (lambda _: http(503), RegistryFailed),
    "a page of HTML": (
        lambda _: http(200, b"<html>sign in</html>", content_type="text/html"),
        Malformed,
    ),
    "an error with status 200": (
        lambda _: http(200, b'{"errors": [{"code": "UNKNOWN"}]}'),
        Malformed,
    ),
    "a link to another host": (
        lambda _: page(["x"], link="<http://elsewhere.example/v2/>; rel=next"),
        Malformed,
    ),
    "a link that cannot be read": (lambda _: page(["x"], link="<http://[>; rel=next"), Malformed),
    "the same page for ever": (
        lambda request: page(["t00001"], link=f"<{request.target}1>; rel=next"),
        Malformed,
    ),
    "empty pages for ever": (
        lambda request: page([], link=f"<{request.target}1>; rel=next"),
        Malformed,
    ),
    "invalid names for ever": (
        lambda request: page([None, "-"], link=f"<{request.target}1>; rel=next"),
        Malformed,
    ),
    "a page that leads to itself": (
        lambda request: page(["x"], link=f"<{request.target}>; rel=next"),
        Malformed,
    ),
}


@pytest.mark.parametrize("name", LATER)
async def test_a_list_that_cannot_be_followed_is_an_error_with_what_was_listed(name: str) -> None:
    then, kind = LATER[name]
    with pytest.raises(kind) as caught:
        await tags_of(linked("<" + TARGET + "?last={last}>; rel=next", then=then))
    assert caught.value.listed[:700] == tuple(TAGS[:700])
    assert not isinstance(caught.value, NotFound)


async def test_a_loop_ends_after_few_requests() -> None:
    with fault_server(lambda request: page(["a"], link=f"<{request.target}1>; rel=next")) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(Malformed, match="form a loop"):
                await client.tags("a/b")
    assert len(server.requests) < 12


async def test_an_empty_page_in_the_middle_does_not_end_a_list() -> None:
    """Registries that hide what the user may not see cut their pages before they hide."""

    def handler(request: Request) -> Reply:
        number = int(parse_qs(urlsplit(request.target).query).get("p", ["0"])[0])
        link = f"<{TARGET}?p={number + 1}>; rel=next" if number < 5 else ""
        return page(["first"] if number == 0 else ["last"] if number == 5 else [], link=link)

    assert await tags_of(handler) == ("first", "last")


@pytest.mark.parametrize(
    "answer", [http(500), http(404), http(400), http(403), http(200, b"<html>")]
)
async def test_a_question_that_nobody_offered_ends_the_list_if_it_is_refused(answer: Reply) -> None:
    names = TAGS[:PAGE]
    assert await tags_of(
        lambda request: answer if "last=" in request.target else page(names)
    ) == tuple(names)


async def test_a_question_that_could_not_be_asked_is_no_end_of_the_list() -> None:
    for answer in (http(503), Reply(b"", "reset")):
        with pytest.raises(OcifsError) as caught:
            await tags_of(
                lambda request, a=answer: a if "last=" in request.target else page(TAGS[:PAGE])
            )
        assert caught.value.listed == tuple(TAGS[:PAGE])


@pytest.mark.parametrize("invalid", [None, 7, "t00500/bad", "sha256:" + "0" * 64])
async def test_an_invalid_name_in_a_full_page_does_not_end_the_list(invalid: object) -> None:
    def handler(request: Request) -> Reply:
        left = rest(request, TAGS)
        full = left[:PAGE]
        return page([*full[:500], invalid, *full[500:-1]] if len(full) == PAGE else full)

    assert await tags_of(handler) == tuple(TAGS)


async def test_a_registry_that_ignores_the_last_name_is_not_asked_for_ever() -> None:
    with fault_server(lambda _: page(TAGS[:PAGE])) as server:
        async with open_registry(server.host, ONCE) as client:
            assert await client.tags("a/b") == tuple(TAGS[:PAGE])
    assert len(server.requests) == 2


async def test_bounds_carry_what_was_listed() -> None:
    settings = replace(ONCE, limits=replace(ONCE.limits, names=1000))
    with pytest.raises(LimitExceeded, match=r"limits\.names") as caught:
        await tags_of(linked("<" + TARGET + "?last={last}>; rel=next"), settings)
    assert len(caught.value.listed) >= 700


CATALOGS = {
    "a login page": lambda request: (
        http(302, location="/login")
        if "_catalog" in request.target
        else http(200, b"<html>", content_type="text/html")
    ),
    "an error with status 200": lambda _: http(200, b'{"errors": [{"code": "UNSUPPORTED"}]}'),
    "a redirect to no address": lambda _: http(302, location="http://["),
    "a redirect without an address": lambda _: http(303),
    "204": lambda _: http(204),
    **{
        str(status): lambda _, status=status: http(status)
        for status in (400, 403, 404, 405, 410, 451, 500, 501, 503)
    },
}


@pytest.mark.parametrize("name", CATALOGS)
async def test_a_catalog_that_is_not_a_list_is_unavailable_whatever_it_is(name: str) -> None:
    with fault_server(CATALOGS[name]) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(CatalogUnavailable):
                await client.repositories()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
async def test_a_token_server_that_refuses_the_scope_of_the_catalog_refuses_nothing_else(
    status: int,
) -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return (
                http(status)
                if "registry%3Acatalog" in request.target
                else http(200, b'{"token": "t0ken"}')
            )
        if request.headers.get("authorization") != "Bearer t0ken":
            return http(
                401, www_authenticate=f'Bearer realm="http://{server.host}/token",service="x"'
            )
        return page(["v1"])

    with fault_server(handler) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(CatalogUnavailable):
                await client.repositories()
            assert await client.tags("a/b") == ("v1",)
