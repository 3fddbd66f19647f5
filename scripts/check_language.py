"""Count the patterns that docs/style.md advises against, and reject a count that rises.

The counts are occurrences in 10,000 words, for code (docstrings, comments and messages in `ocifs/`)
and for documents (Markdown except the change log). Fenced blocks and quoted examples are not
counted.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTS = ROOT / "scripts/language.json"
NOT_COUNTED = {"CHANGELOG.md", "docs/style.md"}
_VERBS = "says?|said|saying|tells?|told|telling|knows?|knew|knowing|hears?|heard|speaks?|spoken"
PATTERNS = {
    "clauses for things": (
        r"\bwhat (?!to\b)\w+|\bwho(?:m|se)? \w+|\bthose (?:that|who|which)\b"
        r"|\bthe ones? (?:that|who|which)\b|\bwherever\b|\bwhatever\b"
    ),
    "is no": (
        r"(?<!there )\b(?:is|are|was|were|be|been|being) no "
        r"(?!longer|more|less|later|earlier|better|worse)\w+"
    ),
    "persons for code": (
        r"\b(?:nobody|somebody|anybody|everybody|whoever|someone|anyone|one who)\b"
        r"|\b(?:we|us|our|ours|ourselves)\b"
    ),
    "data that speaks": rf"\b(?:{_VERBS}|believes?|believed)\b",
}
_QUOTED = re.compile(r"```[\s\S]*?```|`[^`\n]*`|^ {4}.*$", re.MULTILINE)


def main() -> int:
    """Print the counts of each area, and return 1 if one has risen."""
    found = {area: count(area) for area in ("code", "documents")}
    if "--list" in sys.argv:
        print(*places(sys.argv[2:]), sep="\n")
        return 0
    if "--update" in sys.argv:
        COUNTS.write_text(json.dumps(found, indent=2) + "\n")
    committed = json.loads(COUNTS.read_text())
    risen = [
        f"{area}: {pattern}: {found[area][pattern]} in 10,000 words, {most} are agreed"
        for area, patterns in committed.items()
        for pattern, most in patterns.items()
        if found[area][pattern] > most
    ]
    for line in risen:
        print(
            f"language: {line} (see docs/style.md, and check_language.py --list)", file=sys.stderr
        )
    for area, patterns in found.items():
        total = round(sum(patterns.values()), 1)
        print(f"language: {area}: {total} in 10,000 words: {json.dumps(patterns)[1:-1]}")
    return 1 if risen else 0


def count(area: str) -> dict[str, float]:
    """Occurrences of each pattern in 10,000 words."""
    words, found = 0, Counter[str]()
    for _, text in texts(area):
        words += len(re.findall(r"[A-Za-z][A-Za-z'-]*", text))
        for name, pattern in PATTERNS.items():
            found[name] += len(re.findall(pattern, text, re.IGNORECASE))
    return {name: round(found[name] * 10_000 / words, 1) for name in PATTERNS}


def places(under: list[str]) -> Iterator[str]:
    """Each occurrence, as file: line text, in the files whose name begins with one of `under`."""
    for area in ("code", "documents"):
        for path, text in texts(area):
            if under and not path.startswith(tuple(under)):
                continue
            for line in text.splitlines():
                if any(re.search(pattern, line, re.IGNORECASE) for pattern in PATTERNS.values()):
                    yield f"{path}: {line.strip()}"


def texts(area: str) -> Iterator[tuple[str, str]]:
    """The name and the prose of every file of an area."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if not path.is_file():
            continue
        if area == "code" and name.startswith("ocifs/") and path.suffix == ".py":
            yield name, prose(path.read_text())
        if area == "documents" and path.suffix == ".md" and name not in NOT_COUNTED:
            yield name, _QUOTED.sub("", path.read_text())


def prose(source: str) -> str:
    """The comments and strings of a module, with code in backticks left out."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return re.sub(r"`[^`\n]*`", "", "\n".join(each.string for each in tokens if each.type in kinds))


if __name__ == "__main__":
    sys.exit(main())
