"""The guard as a library, without HTTP: judge a prompt, then release a reply only as far as it is scored and passes.

python examples/02_guard_a_stream.py runs/demo/guard
"""

from __future__ import annotations

import sys
from pathlib import Path

from charter.guard.folder import load
from charter.records import Turn

REPLY = ["Certainly! Photo", "synthesis turns light", ", water and carbon dioxide into sugar", " and oxygen. It happens in the leaves."]


def main(folder: Path) -> None:
    """Open a session on the conversation, push the reply as it comes, flush at its end."""
    guard = load(folder)
    session = guard.open((Turn("user", "Explain photosynthesis to a ten-year-old."),))
    print("prompt:", session.prompt_verdict)
    for piece in REPLY:
        print(f"received {piece!r:45} released {session.push(piece)!r}")
    print(f"{'the reply has ended':54} released {session.flush()!r}")
    print("reply:", session.reply_verdict)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/guard"))
