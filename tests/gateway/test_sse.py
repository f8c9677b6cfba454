"""Events are the same however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.gateway.sse import EventReader, EventTooLarge, frame


def read(blocks: list[bytes], limit: int = 10_000) -> list[str]:
    reader = EventReader(limit)
    return [event for block in blocks for event in reader.push(block)] + list(reader.flush())


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1), max_size=5),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]), comment=st.sampled_from(["", ": ping", "event: x", "id: 3", "nonsense"]), data=st.data(),
)  # fmt: skip
def test_events_survive_any_cut_line_end_and_comment(texts: list[str], line_end: str, comment: str, data: st.DataObject) -> None:
    lines = [line for text in texts for line in ([comment] if comment else []) + [*(f"data: {part}" for part in text.split("\n")), ""]]
    whole = "".join(line + line_end for line in lines).encode()
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=10) | st.just(list(range(len(whole)))))
    assert read([whole[a:b] for a, b in pairwise(sorted({0, len(whole), *cuts}))] if whole else []) == texts


def test_a_line_end_of_two_bytes_may_be_cut_between_them() -> None:
    assert read([b"data: a\r", b"\ndata: b\r", b"\n\r\n"]) == ["a\nb"]


def test_lines_of_data_are_joined_and_a_missing_space_or_blank_line_is_forgiven() -> None:
    assert read([b"data:a\ndata: b\n\ndata:  c"]) == ["a\nb", " c"]
    assert read([b"\xef\xbb\xbfdata: a\n\n"]) == ["a"]
    assert read([b"data: \xff\n\n"]) == ["\ufffd"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1))
def test_what_is_framed_is_read_again(text: str) -> None:
    assert read([frame(text)]) == ([text] if text.strip("\n") or text.count("\n") else [])


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_an_event_over_the_limit_is_an_error_after_those_before_it(size: int) -> None:
    whole = b"data: ok\n\ndata: " + b"x" * 200 + b"\n\n"
    seen: list[str] = []
    reader = EventReader(100)

    def read_on() -> None:
        for start in range(0, len(whole), size):
            for event in reader.push(whole[start : start + size]):
                seen.append(event)

    with pytest.raises(EventTooLarge):
        read_on()
    assert seen == ["ok"]


def test_many_events_each_below_the_limit_are_none() -> None:
    assert len(read([b"data: " + b"x" * 80 + b"\n\n"] * 50, 100)) == 50
