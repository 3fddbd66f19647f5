"""Draw a recorded terminal session as an animated SVG.

The last frame is the whole session, which programs that ignore animations show.

Rules that hold here:
- Each line appears at its time: a command after it was typed, its output after the seconds that the
  command took.
- The picture loads nothing from the network, and plays once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from scripts.recording import Recorded

WIDTH = 92
TYPED = 0.04  # seconds for each character
PAUSE = 0.8  # seconds after the output of a command
STYLE = """
    .session-line { animation: session-appear 1ms linear both; }
    @keyframes session-appear { from { opacity: 0; } to { opacity: 1; } }
    @media (prefers-reduced-motion: reduce) { .session-line { animation: none; } }
"""


def session_svg(session: Sequence[Recorded]) -> str:
    """The picture of a session."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, legacy_windows=False
        )
        for step in session:
            prompt = Text.assemble(("$ ", "green"), (step["command"], "bold"))
            console.print(prompt, soft_wrap=True)
            if step["output"]:
                console.print(Text(step["output"].rstrip("\n")), soft_wrap=True)
        svg = console.export_svg(title="ocifs", unique_id="session")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    starts = list(_starts(session))

    def animated(match: re.Match[str]) -> str:
        number = int(match[1])
        delay = starts[min(number, len(starts) - 1)]
        return f'class="session-line" style="animation-delay: {delay:.2f}s" {match[0]}'

    svg = re.sub(r'clip-path="url\(#session-line-(\d+)\)"', animated, svg)
    svg = re.sub(r'<text class="(session-r\d+)"([^>]*?)class="session-line"', _one_class, svg)
    return svg.replace("</style>", f"{STYLE}    </style>", 1)


def _one_class(match: re.Match[str]) -> str:
    return f'<text class="{match[1]} session-line"{match[2]}'


def _starts(session: Sequence[Recorded]) -> Iterator[float]:
    """The time at which each line of the picture appears."""
    now = 0.5
    for step in session:
        now += TYPED * len(step["command"])
        yield now
        now += step["seconds"]
        for _ in step["output"].splitlines():
            yield now
        now += PAUSE
