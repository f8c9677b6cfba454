"""A Ray cluster of two workers on this machine, started once, and the kitchen of the synthesis tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kitchen import constitution, model_server, recordings

from charter.errors import TeacherError
from charter.scale.ray_engine import cluster

__all__ = ["constitution", "model_server", "recordings", "two_workers"]


@pytest.fixture(scope="session")
def two_workers() -> Iterator[None]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'charter[ray]'")
    with ExitStack() as stack:
        for last in (False, True):
            try:
                stack.enter_context(cluster(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000))
                break
            except TeacherError as error:  # Ray gives its own processes half a minute; a machine under load may need more
                if last:
                    pytest.skip(f"Ray does not start here: {error}")
        yield
