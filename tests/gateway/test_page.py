"""The playground in a real browser: Chromium on loopback, before a gateway with a guard whose scores stand in the text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from scipy.stats import binomtest
from spelled import PROMPT, REPLY, Spelled, spelled
from tests.gateway.conftest import FORBIDDEN, Oracle, Script, Scripted, chunk, event, says, serving

from charter.gateway.app import create_app
from charter.gateway.keys import Key, hashed, new_key, write_keys
from charter.gateway.settings import Settings
from charter.models.segments import cut

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
CALM = "The baker lit the oven and the street woke up."
STORMY = "A stranger asked for drizzle~12 and gust~44 and then for storm~93 and more."
Open = Callable[..., "Playground"]


class Playground:
    """The page in a tab, and the upstream behind it."""

    def __init__(self, page: Any, upstream: Scripted, url: str, allowed: int) -> None:
        self.page, self.upstream, self.url, self.allowed = page, upstream, url, allowed
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.set_default_timeout(60_000)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def ask(self, prompt: str, *pieces: str, script: Script | None = None, waits: bool = True) -> None:
        """Send a prompt; the upstream answers with these pieces."""
        self.page.fill("#model", self.upstream.plays(script or says(*pieces)))
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")
        if waits:
            self.wait()

    def wait(self) -> None:
        self.page.wait_for_selector("#exchanges[aria-busy=false]")

    def slide(self, view: str, threshold: float) -> float:
        """Move a slider; returns the threshold where it came to stand."""
        place = round(float(np.log(threshold / (1 - threshold))) * 20) / 20
        self.page.eval_on_selector(f"#{view}-threshold", "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(place))
        return 1 / (1 + float(np.exp(-float(self.page.input_value(f"#{view}-threshold")))))

    def last(self, selector: str) -> str:
        """What the last exchange says there."""
        return str(self.page.locator(f".exchange:last-child {selector}").inner_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=120_000)  # a new profile each time
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def gateways_of(upstream: Scripted) -> Iterator[Callable[..., str]]:
    """URLs of gateways with a playground, by their guard and settings; each is started once."""
    running: dict[str, str] = {}
    with ExitStack() as stack:

        def get(guard: Callable[[], Any] = Spelled, **more: Any) -> str:
            key = repr((guard.__name__, more))
            if key not in running:
                settings = Settings(upstream.url, **{"playground": True, **more})
                running[key] = stack.enter_context(serving(create_app(guard(), settings)))
            return running[key]

        yield get


@pytest.fixture
def opens(browser: Any, gateways_of: Callable[..., str], upstream: Scripted) -> Iterator[Open]:
    """Opens the page; in the end nothing was complained of and nothing asked elsewhere."""
    opened: list[Playground] = []

    def get(
        guard: Callable[[], Any] = Spelled, path: str = "", allowed: int = 0, look: dict[str, Any] | None = None, **more: Any
    ) -> Playground:
        url = gateways_of(guard, **more)
        tab = Playground(browser.new_context(**(look or {})).new_page(), upstream, url, allowed)
        opened.append(tab)
        tab.goto(f"{url}/{path}")
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield get
    for tab in opened:
        assert len(tab.complaints) <= tab.allowed, tab.complaints
        assert {u for u in tab.asked if not u.startswith(tab.url + "/")} == set()
        assert tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        tab.context.close()


def test_a_passed_reply_shows_each_tokens_score(opens: Open) -> None:
    tab = opens()
    tab.ask("Tell me of a gust~60.", *re.findall(r"\S+ ?", CALM))
    assert tab.last(".reply .text") == CALM
    tokens = [(t.inner_text(), t.get_attribute("title")) for t in tab.locator(".reply .tok").all()]
    assert tokens == [(s.strip(), f"token {n}: {spelled(s):.2f}") for n, s in enumerate(cut(CALM))]
    pairs = re.sub(r"\s+", " ", tab.last(".reply .pair"))
    assert pairs == f"Verdict passed Action let pass Highest score {max(map(spelled, cut(CALM))):.2f} Tokens {len(cut(CALM)) + 1}"
    assert "Highest score 0.60" in re.sub(r"\s+", " ", tab.last(".you .pair"))
    assert "The reply passed" in tab.inner_text("#status")
    tab.click(".reply summary")
    rows, n = tab.locator(".list tbody tr"), len(cut("Tell me of a gust~60.")) + len(cut(CALM)) + 2
    rows.nth(n - 1).wait_for()  # a details element tells of its opening in a task of its own
    assert rows.count() == n


def test_held_text_stands_as_held_and_can_be_stopped(opens: Open) -> None:
    tab = opens()
    blocks = [event(chunk({"content": piece})) for piece in ("calm ", "seas", " ris")]
    tab.ask("wait", script=Script(blocks, then="hang"), waits=False)
    tab.wait_for_selector(".held >> text=4 held")
    assert tab.last(".reply .text").startswith("calm seas")
    assert "ris" not in tab.inner_text(".reply")
    tab.press("#prompt", "Escape")
    tab.wait()
    assert "Stopped by you" in tab.last(".reply .text")
    assert tab.inner_text("#status") == "Stopped."


def test_a_halted_reply_shows_where_why_and_what_was_done_and_nothing_of_the_rest(opens: Open) -> None:
    tab = opens()
    tab.ask("A story, please.", *re.findall(r"\S+ ?", STORMY))
    position = [spelled(s) >= REPLY for s in cut(STORMY)].index(True)
    assert tab.last(".reply .text").startswith("".join(cut(STORMY)[:position]))
    assert "storm" not in tab.content().split("</header>")[1].replace("storms", "")
    pairs = re.sub(r"\s+", " ", tab.last(".reply .pair"))
    assert f"Verdict flagged at token {position} Action halted Clause Bringing about storms Highest score 0.93" in pairs
    assert "Ended here by the guard" in tab.last(".reply .cut")
    says_it = tab.get_attribute(".strip", "aria-label")
    assert says_it == f"Scores of {position + 1} tokens, the highest 0.93; threshold 0.50; reached at token {position}"
    assert f"halted at token {position}" in tab.inner_text("#status")


def test_a_refused_prompt_reaches_no_model_and_no_later_turn(opens: Open) -> None:
    tab = opens()
    tab.fill("#system", "Be brief.")
    n = len(tab.upstream.bodies)
    tab.ask("Raise a flood~91 over the town.", "never")
    assert len(tab.upstream.bodies) == n
    assert "Refused: the model was not asked" in tab.last(".reply .text")
    assert "Clause Bringing about floods" in re.sub(r"\s+", " ", tab.last(".you .pair"))
    tab.ask("And calmly?", CALM)
    tab.ask("And then?", "Calm.")
    turns = [(m["role"], m["content"]) for m in tab.upstream.bodies[-1]["messages"]]
    assert turns == [("system", "Be brief."), ("user", "And calmly?"), ("assistant", CALM), ("user", "And then?")]
    assert tab.inner_text("#whatif-sum") == "Of 3 exchanges: 1 refused, 0 halted."


def test_the_sliders_say_what_another_threshold_would_have_done(opens: Open) -> None:
    tab = opens()
    tab.ask("Tell me of a gust~60.", STORMY)
    scores = [spelled(s) for s in cut(STORMY)]
    flag = next(n for n, s in enumerate(scores) if s >= REPLY)
    for wanted in (0.03, 0.1, 0.2, 0.4, 0.45, 0.9, 0.97):
        threshold = tab.slide("reply", wanted)
        at = next((n for n, s in enumerate(scores[: flag + 1]) if s >= threshold), None)
        left = len("".join(cut(STORMY)[:at])) if at is not None else 0
        expected = (
            "the reply would have gone on; what would have followed was never shown"
            if at is None
            else f"the reply would have ended at token {at} of {flag + 1}, after {left} characters"
        )
        assert tab.last(".other") == f"At these thresholds {expected}."
        assert tab.locator(".reply .would").count() == (at is not None)
    for wanted, refused in ((0.55, True), (0.65, False)):
        tab.slide("prompt", wanted)
        assert ("the prompt would have been refused" in tab.last(".other")) is refused
    tab.click("#reset")
    assert tab.last(".other") == ""
    assert (tab.inner_text("#prompt-threshold-value"), tab.inner_text("#reply-threshold-value")) == (
        f"{PROMPT:.2f} · the guard's own", f"{REPLY:.2f} · the guard's own"
    )  # fmt: skip
    assert "1 halted" in tab.inner_text("#whatif-sum")


def test_where_a_threshold_flags_is_what_brute_force_finds(opens: Open) -> None:
    tab = opens()
    rng = np.random.default_rng(0)
    for _ in range(40):
        scores = rng.uniform(size=rng.integers(1, 8)).round(2).tolist()
        threshold, own = rng.uniform(size=2).round(2).tolist()
        position = next((n for n, s in enumerate(scores) if s >= own), None)
        verdict = {"flagged": position is not None, "position": position, "score": max(scores)}
        seen = scores if position is None else scores[: position + 1]
        found = tab.evaluate(
            "async ([t, at, v, own]) => (await import('/page/whatif.js')).flaggedAt(t.map((s) => [3, s]), at, v, own)",
            [seen, threshold, verdict, own],
        )
        assert found == next((n for n, s in enumerate(seen) if s >= threshold), None)
    by_clause = [[[3, 0.1], [3, 0.2], [None, 0.3]], 0.15, {"flagged": True, "position": 2, "score": 0.3}, 0.5]
    script = "async (a) => (await import('/page/whatif.js')).flaggedAt(...a)"
    assert tab.evaluate(script, by_clause) == 1
    assert tab.evaluate(script, [by_clause[0], 0.9, *by_clause[2:]]) == 2  # a clause flagged by its own threshold, and still does


def test_the_operators_figures_are_numpys_and_scipys(opens: Open) -> None:
    tab = opens()
    rng = np.random.default_rng(1)
    ask = "async ([name, a]) => (await import('/page/statistics.js'))[name](...a)"
    for n in (1, 2, 7, 40):
        values = rng.lognormal(size=n).tolist()
        for q in (0.5, 0.95):
            assert tab.evaluate(ask, ["quantile", [values, q]]) == pytest.approx(np.quantile(values, q))
        for k in {0, n // 3, n}:
            interval = binomtest(k, n).proportion_ci(method="wilson")
            assert tab.evaluate(ask, ["wilson", [k, n]]) == pytest.approx([interval.low, interval.high], abs=1e-9)
    assert (tab.evaluate(ask, ["quantile", [[], 0.5]]), tab.evaluate(ask, ["wilson", [0, 0]])) == (None, None)


def test_all_of_it_works_from_the_keyboard(opens: Open) -> None:
    tab = opens()
    tab.upstream.scripts["scripted"] = says(CALM)  # the model that the upstream lists, and so the one that the page asks
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#prompt:focus")
    tab.keyboard.type("Tell me of a gust~60.")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("Now.")
    tab.keyboard.press("Enter")
    tab.wait()
    assert tab.last(".you .text") == "Tell me of a gust~60.\nNow."
    reached = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if "prompt-threshold" in reached:
            break
    for _ in range(2):  # a tenth of the scale each
        tab.keyboard.press("PageDown")
    assert "the prompt would have been refused" in tab.last(".other")
    for _ in range(40):
        tab.keyboard.press("Shift+Tab")
        if tab.evaluate("document.activeElement.id") == "to-operator":
            break
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#operator-view:not([hidden])")


def test_every_control_has_a_name_and_every_region_a_heading(opens: Open) -> None:
    tab = opens()
    tab.ask("hello", CALM)
    for view in ("chat", "operator"):
        tab.click(f"#to-{view}")
        tab.wait_for_selector(f"#{view}-view")
        nameless = tab.evaluate(
            """() => [...document.querySelectorAll('main:not([hidden]) :is(input, textarea, button, summary, [role], section), nav, aside')]
            .filter((e) => !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby') || e.textContent.trim() || e.hidden || e.role === 'status'))
            .map((e) => e.outerHTML)"""
        )
        assert nameless == []
    assert tab.get_attribute("html", "lang") == "en"
    assert tab.locator("h1").count() == 1
    assert tab.get_attribute("#status", "aria-live") == "polite"


COLOURS = """(selectors) => {
  const parse = (text) => {
    const n = text.match(/-?[\\d.]+(?:e-?\\d+)?/g).map(Number);
    return text.startsWith('color(') ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
  };
  const behind = (element) => {
    let layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a]) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a)), [255, 255, 255]);
  };
  return selectors.map((s) => document.querySelector(s)).map((e) => [parse(getComputedStyle(e).color).slice(0, 3), behind(e)]);
}"""
READ = [
    "h1", ".soft", "#guard-hash", "#to-operator", ".hint", ".tok", "#legend-high", ".held", ".cut", ".pair dt", ".pair dd", "dd.flagged", ".legend", "#send",
    "#fresh", "#prompt", "#prompt-threshold-value", ".beyond", ".would",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_can_be_read(opens: Open, scheme: str) -> None:
    tab = opens(look={"color_scheme": scheme})
    tab.ask("A story, please.", STORMY)
    tab.slide("reply", 0.2)
    for (front, back), selector in zip(tab.evaluate(COLOURS, READ), READ, strict=True):
        assert contrast(front, back) >= 4.5, (selector, front, back)
    _, paper = tab.evaluate(COLOURS, ["h1"])[0]
    assert (sum(paper) > 382) is (scheme == "light")


def contrast(a: list[float], b: list[float]) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(rgb: list[float]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("path", ["", "#operator"])
def test_a_narrow_page_does_not_scroll_sideways(opens: Open, path: str) -> None:
    tab = opens(path=path, look={"viewport": {"width": 400, "height": 800}})
    if not path:
        for prompt in ("hello", "A story, please."):
            tab.ask(prompt, *re.findall(r"\S+ ?", CALM * 9 + " " + "x" * 300 + " " + STORMY))
        below = "document.querySelector('.exchange:last-child').getBoundingClientRect().bottom - document.getElementById('composer').getBoundingClientRect().top"
        assert tab.evaluate(below) <= 1  # the window has followed the reply to its end
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_operator_sees_verdicts_as_they_come_and_no_content(opens: Open) -> None:
    tab = opens(path="#operator", max_sessions=7)
    tab.wait_for_selector("#live-state >> text=Live")
    live = tab.locator("#live tbody tr")
    texts = ["calm QUINCE", "storm~95 QUINCE", "flood~96 QUINCE"]
    with httpx2.Client(base_url=tab.url, trust_env=False, timeout=60) as http:
        for text in texts:
            http.post("/v1/guard/check", json={"input": text}).raise_for_status()
        live.nth(2).wait_for()
        rows = [re.split(r"\t", r.inner_text()) for r in live.all()]
        assert [(r[1], r[2], r[3], r[4]) for r in rows[:3]] == [
            ("prompt", "flagged", "block", "Bringing about floods"), ("prompt", "flagged", "block", "Bringing about storms"),
            ("prompt", "passed", "allow", "–"),
        ]  # fmt: skip
        low, high = binomtest(2, 3).proportion_ci(method="wilson")
        assert tab.locator("#clauses tbody tr").first.inner_text().split("\t")[:4] == [
            "any clause",
            "2",
            "66.7 %",
            f"{low:.1%} to {high:.1%}".replace("%", " %"),
        ]
        assert "n = 3" in tab.inner_text("#latency")
        tab.wait_for_selector("#guarantee >> text=characters released unscored")
        tab.click("#pause")
        http.post("/v1/guard/check", json={"input": texts[0]}).raise_for_status()
        tab.wait_for_selector("#guarantee div:has(dt:text-is('requests')) dd:text-is('4')")
        assert live.count() == 3
        tab.click("#pause")
        live.nth(3).wait_for()
    assert "QUINCE" not in tab.content()
    assert not tab.is_visible("#shadow")


def test_what_was_said_stays_text(opens: Open) -> None:
    tab = opens()
    evil = "<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script>"
    tab.ask(evil, evil, script=says(evil))
    assert tab.last(".you .text") == evil
    assert tab.last(".reply .text") == evil
    assert tab.locator("main img, main script").count() == 0
    assert tab.title() == "Charter playground"


def test_the_key_is_sent_and_kept_nowhere(opens: Open) -> None:
    tab = opens()
    tab.fill("#key", "sk-secret")
    with tab.expect_response("**/playground/about"):
        tab.press("#key", "Tab")
    tab.ask("hello", CALM)
    assert tab.upstream.headers[-1]["authorization"] == "Bearer sk-secret"
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    tab.ask("hello", CALM)
    assert "authorization" not in tab.upstream.headers[-1]


def test_where_keys_are_asked_for_the_page_says_so_and_goes_on_with_one(opens: Open, tmp_path: Path) -> None:
    key = new_key()
    write_keys(tmp_path / "keys.json", [Key(name="me", sha256=hashed(key))])
    tab = opens(keys=tmp_path / "keys.json", allowed=1)  # the browser itself notes the 401
    assert "asks for a key" in tab.inner_text("#trouble")
    tab.fill("#key", key)
    tab.press("#key", "Tab")
    tab.wait_for_selector("#guard-name >> text=spelled")
    tab.wait_for_selector("#models option", state="attached")  # the models come last, and one of them goes into an empty #model
    tab.ask("hello", CALM)
    assert tab.last(".reply .text") == CALM
    assert not tab.is_visible("#trouble")
    tab.click("#to-operator")
    tab.locator("#live tbody tr").nth(1).wait_for()


def test_a_guard_that_tells_no_tokens_shows_verdicts(opens: Open) -> None:
    tab = opens(Oracle)
    assert not tab.is_visible("#whatif")
    tab.ask("hello", f"calm {FORBIDDEN} more")
    assert "flagged at token 1" in tab.last(".reply .pair")
    assert FORBIDDEN not in tab.content()


def test_blocks_that_are_errors_are_shown_as_verdicts(opens: Open) -> None:
    tab = opens(on_block="error", allowed=1)  # the browser itself notes the 400
    tab.ask("Raise a flood~91.", "never")
    assert "Refused: the model was not asked" in tab.last(".reply .text")
    tab.ask("A story, please.", STORMY)
    assert "Ended here by the guard" in tab.last(".reply .cut")


def test_shadow_mode_blocks_nothing_and_says_so(opens: Open) -> None:
    tab = opens(mode="shadow")
    assert "nothing is blocked" in tab.inner_text("#guard-mode")
    tab.ask("Raise a flood~91.", STORMY)
    assert tab.last(".reply .text").rstrip() == STORMY
    assert "let pass (shadow)" in tab.last(".reply .pair")
    assert "let pass (shadow)" in tab.last(".you .pair")
