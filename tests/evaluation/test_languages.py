from __future__ import annotations

import pytest

from charter.evaluation.languages import UNKNOWN, Languages, code


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Which trains go to the seaside on Sunday mornings, and where do I buy a ticket?", "en"),
        ("Welche Z\u00fcge fahren am Sonntagmorgen ans Meer, und wo bekomme ich eine Fahrkarte?", "de"),
        ("\u041a\u0430\u043a\u0438\u0435 \u043f\u043e\u0435\u0437\u0434\u0430 \u0438\u0434\u0443\u0442 \u043a \u043c\u043e\u0440\u044e \u0432 \u0432\u043e\u0441\u043a\u0440\u0435\u0441\u0435\u043d\u044c\u0435 \u0443\u0442\u0440\u043e\u043c?", "ru"),
        ("12 + 30", UNKNOWN),
        ("", UNKNOWN),
    ],
)  # fmt: skip
def test_a_language_is_named_where_it_is_sure(text: str, language: str) -> None:
    assert Languages()(text) == language


@pytest.mark.parametrize(
    ("said", "found"),
    [("en", "en"), ("pt-BR", "pt"), ("zh_Hans", "zh"), ("yue", "yue"), ("Chinese", "zh"), ("mixed", None), ("mostly en", None), ("", None), (None, None), (7, None)],
)  # fmt: skip
def test_a_row_names_its_language_by_a_code_or_in_english(said: object, found: str | None) -> None:
    assert code(said) == found
