"""How a gateway is set up: everything that an operator decides, fixed when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charter.errors import UpstreamError
from charter.guard.policy import Mode

IN_PROCESS = "embedded"
"""In the place of a URL: the upstream is the guard's own model, in this process."""
OnError = Literal["closed", "open"]
OnBlock = Literal["content_filter", "error", "refusal"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a gateway.

    Raises:
        UpstreamError: the upstream's URL is not one.
    """

    upstream_url: str = field(repr=False)
    """Base URL of the OpenAI-compatible endpoint that is guarded; it ends in /v1. Requests reach no other address. Or IN_PROCESS."""
    upstream_key: str | None = field(default=None, repr=False)
    """Sent to the upstream as its bearer token, in place of the client's; the client's own is passed on where this is None."""
    mode: Mode = "enforce"
    """enforce blocks what is flagged; shadow records verdicts and blocks nothing."""
    on_error: OnError = "closed"
    """When scoring fails or takes too long: closed withholds the text, open lets it pass and counts it as unscored."""
    on_block: OnBlock = "content_filter"
    """What the client sees of a block: the finish reason of a content filter, an error, or `refusal` with that finish reason."""
    refusal: str = "I can't help with that."
    """The operator's words in place of what was withheld, where on_block is refusal."""
    max_body_bytes: int = 1_048_576
    """Largest request; larger ones get 413."""
    max_reply_bytes: int = 16_777_216
    """Largest whole reply, and largest single event of a stream, that is taken from the upstream."""
    max_items: int = 2_048
    """Most turns, texts or tools in one request."""
    max_connections: int = 2_048
    """Connections at once; more of them get 503."""
    headers_timeout_s: float = 20.0
    """Longest that a client may take to send the headers of a request, its connection included."""
    keys: Path | None = None
    """File of the keys that clients must send (`charter keys`); None: anybody may ask."""
    timeout_s: float = 120.0
    """Longest silence of the upstream, longest time that a client may take to send its request, and longest that it may read nothing."""
    score_timeout_s: float = 60.0
    """Longest that one scoring step may take, waiting for a free thread included."""
    score_threads: int = 4
    """Scoring steps at once; more of them wait their turn."""
    max_sessions: int = 128
    """Guard sessions open at once, and conversations of LiteLLM's that are remembered; each holds the backbone's cache of its text."""
    session_idle_s: float = 120.0
    """How long either is kept while nobody asks for it."""
    playground: bool = False
    """Whether there is a page at /, and streams tell each token's score where a request asks for it."""
    log_content: bool = False
    """Whether the audit log holds what was said; verdicts and actions it holds always."""

    def __post_init__(self) -> None:
        if self.upstream_url != IN_PROCESS and not self.upstream_url.startswith(("http://", "https://")):
            raise UpstreamError(f"{self.upstream_url!r} is not the URL of an upstream; it looks like http://127.0.0.1:8000/v1")
