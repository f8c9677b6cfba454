"""The gateway with a guard folder on the embedded backbone: what a client reads is what the guard lets out, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.gateway.conftest import Gateway, Scripted, answers, content, finishes, says, serving

from charter.records import Turn

TEXT = "Locks are old, naïve 日本語 😀 isn't it? They turn\r\n  and turn"


def test_streams_side_by_side_read_what_the_guard_lets_out_of_the_whole(saved_guard: Path, upstream: Scripted) -> None:
    import httpx2
    import openai

    from charter.gateway.app import create_app
    from charter.gateway.settings import Settings
    from charter.guard.folder import load
    from charter.guard.gathered import gathered

    guard = load(saved_guard)
    together = gathered(load(saved_guard))
    prompts = [f"Tell me about {topic}." for topic in ("locks", "bread", "rain", "chess", "the sea")]
    expected = []
    for prompt in prompts:
        session = guard.open((Turn("user", prompt),))
        let_out = session.push(TEXT) + session.flush()
        stopped = session.prompt_verdict.flagged or session.reply_verdict.flagged
        expected.append(("" if session.prompt_verdict.flagged else let_out, ["content_filter" if stopped else "stop"]))
    url_settings = Settings(upstream.url)
    with serving(create_app(together, url_settings)) as url, httpx2.Client(base_url=url, timeout=120, trust_env=False) as http:
        gateway = Gateway(url, guard, upstream, http, openai.OpenAI(base_url=url + "/v1", api_key="x"))  # type: ignore[arg-type]

        def read(number: int) -> tuple[str, list[str]]:
            size = 2 + 5 * number
            got = gateway.stream(says(*(TEXT[i : i + size] for i in range(0, len(TEXT), size))), prompts[number])
            return content(got), finishes(got)

        with ThreadPoolExecutor(len(prompts)) as pool:
            assert list(pool.map(read, range(len(prompts)))) == expected
        counters = gateway.counters()
        assert (counters["errors"], counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0, 0)
        measured = http.get("/metrics").text
        assert (together.load().forwards, together.load().rows) > (0, together.load().forwards)
        assert f"charter_scorer_forwards_total {float(together.load().forwards)}" in measured
        too_long = gateway.ask(answers("x"), "word " * 20_000)
        assert (too_long.status_code, "longer than the backbone's context" in too_long.text) == (400, True)
