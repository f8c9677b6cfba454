"""A gateway of several workers, for tests that kill one of them.

python crowd.py UPSTREAM PORT GUARD-FILE FOLDER WORKERS [watch] [keys=FILE]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from apart import Guard

from charter.gateway.audit.log import open_log
from charter.gateway.serve import run_workers
from charter.gateway.settings import Settings
from charter.gateway.watch import Watch

if __name__ == "__main__":
    upstream, port, file, folder, workers, *more = sys.argv[1:]
    keys = next((Path(m.removeprefix("keys=")) for m in more if m.startswith("keys=")), None)

    def load() -> Guard:
        return Guard(Path(file))

    run_workers(
        int(workers),
        lambda: (load(), load, None),  # type: ignore[arg-type, return-value]
        Settings(upstream, keys=keys),
        "127.0.0.1",
        int(port),
        partial(open_log, f"{folder}/log.db"),
        watch=Watch(Path(file)) if "watch" in more else None,
    )
