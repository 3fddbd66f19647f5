"""The name under which the cache stores content for a set of credentials."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.identity import ANONYMOUS, PresentedIdentity, identity_of
from ocifs.registry.config.endpoint import Endpoint
from tests.support.secrets import keep_secret

TEXT = st.text(max_size=12)
CREDENTIALS = st.none() | st.builds(
    Credential, TEXT, TEXT, st.sampled_from(["password", "identity", "registry"])
)
PROOFS = st.builds(
    PresentedIdentity,
    st.builds(Endpoint, TEXT, headers=st.lists(st.tuples(TEXT, TEXT), max_size=1).map(tuple)),
    CREDENTIALS,
)


@settings(max_examples=40)
@given(st.lists(PROOFS, max_size=3), st.lists(PROOFS, max_size=3))
def test_equal_proofs_are_one_identity_and_others_are_others(
    one: list[PresentedIdentity], two: list[PresentedIdentity]
) -> None:
    def shown(proofs: list[PresentedIdentity]) -> list[str]:
        return sorted(
            repr((each.endpoint.host, each.endpoint.headers, _all(each.credential)))
            for each in proofs
            if not each.is_anonymous
        )

    assert (identity_of(one) == identity_of(two)) == (shown(one) == shown(two))
    assert identity_of(one) == identity_of(one[::-1])


def _all(credential: Credential | None) -> object:
    return credential and (credential.kind, credential.username, credential.secret)


def test_without_proofs_there_is_one_identity_for_everybody() -> None:
    assert (
        identity_of([])
        == identity_of([PresentedIdentity(Endpoint("a.example"), None)])
        == ANONYMOUS
    )


def test_an_identity_tells_nothing_of_the_secret() -> None:
    secret = keep_secret("an-identity-secret")
    made = identity_of([PresentedIdentity(Endpoint("a.example"), Credential("alice", secret))])
    assert made != ANONYMOUS and len(made) == 32
    assert "alice" not in made and secret not in made
