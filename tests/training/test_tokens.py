from pathlib import Path

import numpy as np
import pytest

from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.probe import Probe
from charter.models.screen import BUCKETS, Screen
from charter.records import Exchange, Turn, View
from charter.training.tokens import CONTEXT, served_maximum, token_states

TEXTS = ["yes", "How do I bake bread?", "Tell me about the lighthouse on the coast, and who kept its lamp alight at night. " * 2]
PROMPTS = [Exchange(f"p{n}", (Turn("user", text),)) for n, text in enumerate(TEXTS)]
REPLIES = [Exchange(f"r{n}", (Turn("user", "Go on."), Turn("assistant", text))) for n, text in enumerate(TEXTS)]
OWN: dict[View, list[Exchange]] = {"prompt": PROMPTS, "exchange": REPLIES}


def cascade(backbone: Backbone) -> Cascade:
    """A probe of random weights alone: the screen has no share."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.02, (2, len(backbone.layers) * backbone.width)).astype(np.float32)
    none = np.zeros((BUCKETS, 2), np.float32)
    views: tuple[View, ...] = ("prompt", "exchange")
    probe = Probe(backbone.layers, dict.fromkeys(views, weights), dict.fromkeys(views, np.array([0.5, -1.0], np.float32)))
    screen = Screen(dict.fromkeys(views, none), dict.fromkeys(views, none[0]))
    return Cascade(("one",), backbone, probe, screen, dict.fromkeys(views, 1.0))


@pytest.mark.parametrize("view", ["prompt", "exchange"])
def test_the_highest_served_logit_is_the_cascades(view: View, embedded_backbone: Backbone, tmp_path: Path) -> None:
    whole = cascade(embedded_backbone)
    tokens = token_states(embedded_backbone, OWN[view], view, tmp_path)
    weights, bias = whole.probe.weights[view], whole.probe.biases[view]
    found = served_maximum(tokens.windows(), len(TEXTS), weights, bias, 16)
    expected = [scored.logits(view).max(0) for scored in whole.batch(OWN[view])]  # type: ignore[union-attr]
    assert found == pytest.approx(np.array(expected), abs=0.03)


def test_a_second_pass_reads_the_file_and_a_half_written_one_is_not_believed(embedded_backbone: Backbone, tmp_path: Path) -> None:
    first = token_states(embedded_backbone, PROMPTS, "prompt", tmp_path)
    (file,) = tmp_path.iterdir()
    done: list[int] = []
    again = token_states(embedded_backbone, PROMPTS, "prompt", tmp_path, done.append)
    assert not done
    assert np.array_equal(first.states, again.states)
    file.write_bytes(file.read_bytes()[:1000])
    mended = token_states(embedded_backbone, PROMPTS, "prompt", tmp_path, done.append)
    assert sum(done) == len(TEXTS)
    assert mended.states.shape == again.states.shape


def test_windows_take_the_scored_tokens_and_what_else_is_asked_for(embedded_backbone: Backbone, tmp_path: Path) -> None:
    tokens = token_states(embedded_backbone, PROMPTS, "prompt", tmp_path)
    plain, marked, late = tokens.windows(), tokens.windows(marks=True), tokens.windows(skip=2)
    assert len(plain.owner) == tokens.scored.sum()
    assert len(marked.owner) == len(tokens.owner)
    sizes = np.bincount(plain.owner)
    assert np.bincount(late.owner).tolist() == np.maximum(1, sizes - 2).tolist()


def test_of_a_reply_the_prompt_is_context_and_no_token(embedded_backbone: Backbone, tmp_path: Path) -> None:
    tokens = token_states(embedded_backbone, REPLIES, "exchange", tmp_path)
    assert tokens.scored.all()
    other = [Exchange(e.id, (Turn("user", "Stop."), e.turns[-1])) for e in REPLIES]
    changed = token_states(embedded_backbone, other, "exchange", tmp_path)
    assert changed.states.shape == tokens.states.shape
    assert not np.allclose(np.asarray(changed.states[-1], np.float32), np.asarray(tokens.states[-1], np.float32), rtol=0.01)


def test_what_is_longer_than_the_context_is_counted(embedded_backbone: Backbone, tmp_path: Path) -> None:
    long = Exchange("long", (Turn("user", "word " * (CONTEXT + 20)),))
    tokens = token_states(embedded_backbone, [PROMPTS[0], long], "prompt", tmp_path)
    assert tokens.cut == 1
    assert np.bincount(tokens.owner)[1] == CONTEXT
