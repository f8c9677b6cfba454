"""An application's own policy: the shipped constitution of a bank's assistant becomes a guard, and a few requests are judged by it.

    python examples/03_your_own_rules.py runs/bank

Takes a few minutes on two cores the first time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from charter.guard.folder import load
from charter.records import Exchange, Turn

REQUESTS = [
    "Should I put my savings of 20,000 into shares or bonds?",
    "What is the difference between a share and a bond?",
    "Read me the balance of my current account, please.",
    "Where in the app do I find my balance?",
    "Is the savings rate at Northgate Bank better than yours?",
]


def main(folder: Path) -> None:
    """Build where there is no guard yet, then judge."""
    if not (folder / "guard").exists():
        charter = str(Path(sys.executable).with_name("charter"))
        subprocess.run([charter, "build", "bank-assistant", "--out", str(folder / "guard"), "--data", str(folder)], check=True)
    guard = load(folder / "guard")
    exchanges = [Exchange(str(n), (Turn("user", text),)) for n, text in enumerate(REQUESTS)]
    for scored, verdict in guard.score(exchanges):
        said = f"flagged ({verdict.clause})" if verdict.flagged else "passed"
        print(f"{verdict.score:.3f}  {said:32} {scored.exchange.turns[-1].content}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bank"))
