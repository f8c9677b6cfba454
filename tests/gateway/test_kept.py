"""The gateway's memory is bounded in number and in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from charter.gateway.kept import Kept


@given(steps=st.lists(st.tuples(st.sampled_from(["put", "get", "pop", "wait"]), st.integers(0, 5)), max_size=60), most=st.integers(1, 4))
def test_it_agrees_with_a_plain_model(steps: list[tuple[str, int]], most: int) -> None:
    now = [0.0]
    kept: Kept[int] = Kept(most, 3.0, lambda: now[0])
    model: dict[str, tuple[float, int]] = {}  # in the order of last use
    for number, (step, key) in enumerate(steps):
        name = str(key)
        model = {k: v for k, v in model.items() if now[0] - v[0] <= 3.0}
        if step == "put":
            model.pop(name, None)
            model[name] = (now[0], number)
            model = dict(list(model.items())[-most:])
            kept.put(name, number)
        elif step == "get":
            found = model.pop(name, None)
            if found:
                model[name] = (now[0], found[1])
            assert kept.get(name) == (found[1] if found else None)
        elif step == "pop":
            found = model.pop(name, None)
            assert kept.pop(name) == (found[1] if found else None)
        else:
            now[0] += key
        model = {k: v for k, v in model.items() if now[0] - v[0] <= 3.0}
        assert (len(kept), kept.full) == (len(model), len(model) >= most)
