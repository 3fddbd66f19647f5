"""Measure the classification of many manifests, made from the rows of the tests of kinds.

Rules that hold here:
- Only the classification is timed.
- The peer is `json.loads` of the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from ocifs.oci.kinds.artifact import classify
from scripts.bench_sample import Sample
from tests.oci.manifests import parse
from tests.oci.test_artifact import ALL_ROWS

MANIFESTS = 10_000


def kinds() -> Iterator[Sample]:
    """MANIFESTS classifications, against parsing as many manifests as JSON."""
    rows = [ALL_ROWS[n % len(ALL_ROWS)] for n in range(MANIFESTS)]
    manifests = [
        parse({**row.manifest, "annotations": row.manifest.get("annotations") or {"n": str(n)}})
        for n, row in enumerate(rows)
    ]
    began = time.perf_counter()
    for manifest, row in zip(manifests, rows, strict=True):
        if classify(manifest, tag=row.tag).kind != row.kind:
            raise RuntimeError(f"{row.name} is classified wrongly")
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for manifest in manifests:
        json.loads(manifest.raw)
    theirs = time.perf_counter() - began
    yield Sample(
        f"classification of {MANIFESTS:,} manifests", ours, "s", "json.loads", theirs, most=1
    )
