"""The page: every figure with its n, intervals where it is an estimate, and the command that gives it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


def page(found: Found) -> str:
    """Markdown of all that was measured; what was left out says why."""
    parts = [
        "# The gateway, measured\n",
        f"`{found['command']}` on {found['machine']}, {found['date']}. One run, one machine: clients, stub upstream and gateway share its cores, "
        "and whatever else ran on it shows in the timings. The stub upstream and the oracle guard are the same for all; the oracle costs nothing, so "
        "what is measured is the gateway and not a classifier.\n",
    ]  # fmt: skip
    for title, make in (("Leak test", _leak), ("Overhead", _overhead), ("Scorer's work on a clean stream", _growth), ("Faults", _faults)):
        parts.append(f"## {title}\n\n{make(found)}")
    if found["left_out"]:
        parts.append("## Not run\n\n" + "\n".join(f"- {why}" for why in found["left_out"]) + "\n")
    return "\n".join(parts)


def _leak(found: Found) -> str:
    said = (
        "60 words, the 31st forbidden, 5 ms apart. *After*: words of the model's from the forbidden one on. First word: added to the upstream "
        "asked directly, in turn; difference of medians with its 95 % bootstrap interval.\n\n"
    )
    rows = [
        [
            r["way"], str(r["n"]), r["words_out"], f"**{r['words_after']}**" if r["words_after"] != "0" else "0", str(r["forbidden_out"]),
            ", ".join(r["finish"]), f"{r['guard_calls']:.0f}" if r["guard_calls"] else "-", _ms(r.get("first_ms")), _added(r.get("added_ms")),
        ]
        for r in found["leak"]
    ]  # fmt: skip
    head = ["way", "n", "words out", "after", "forbidden out", "ends with", "guard calls (HTTP)", "first word, ms", "added, ms"]
    return said + _table(head, rows)


def _overhead(found: Found) -> str:
    said = (
        "Requests that are not streamed, of ten words; prompt and reply are scored. Sequential: in turn with the upstream asked directly. "
        "At once: from 16 kept connections.\n\n"
    )
    rows = [
        [
            r["way"], str(r["n"]), _ms(r["p50_ms"]), _added(r.get("added_ms")), f"{r['per_s']:.0f}", f"{r['seconds']:g} s, {r['failed']} failed",
            f"{r['mb']:.0f}" if r.get("mb") else "-",
        ]
        for r in found["overhead"]
    ]  # fmt: skip
    head = ["way", "n", "p50, ms", "p50 added, ms", "requests a second", "over", "resident, MB"]
    return said + _table(head, rows)


def _growth(found: Found) -> str:
    said = (
        "Tokens are words here. Charter's calls are of its own scorer, one for the prompt among them; LiteLLM's are HTTP requests to the guardrail, "
        "each with all the text so far.\n\n"
    )
    rows = [
        [r["way"], f"{r['chunks']:,}", f"{r['calls']:,}", f"{r['tokens']:,}", f"{r['tokens'] / r['chunks']:.2f}"] for r in found["growth"]
    ]
    return said + _table(["way", "chunks", "scorer calls", "scored tokens", "tokens a chunk"], rows)


def _faults(found: Found) -> str:
    said = "Leaks: streams that showed the forbidden word, and the gateway's own counters of the guarantee. Verdicts: one for each prompt and each reply.\n\n"
    rows = [
        [r["fault"], f"{r['n']:,}", str(r.get("leaks", "-")), _verdicts(r), str(r.get("lost", "-")), r["note"]] for r in found["faults"]
    ]  # fmt: skip
    return said + _table(["fault", "streams", "leaks", "verdicts logged", "lost", "besides"], rows)


def _verdicts(row: Found) -> str:
    return f"{row['verdicts']:,} of {row['expected']:,}" if "verdicts" in row else "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _added(value: Sequence[float] | None) -> str:
    return "-" if value is None else f"{value[0]:+.1f} [{value[1]:+.1f}, {value[2]:+.1f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not run.\n"
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
