"""HTTPS by files, over a real process, with a certificate made here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tests.gateway.conftest import Scripted

from charter.errors import CharterError
from charter.gateway.tls import TLS, tls_files

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not installed"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    return certificate(folder, "a")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key, "-out", cert,
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


SERVE = """
import sys
from pathlib import Path
from charter.gateway.serve import run
from charter.gateway.settings import Settings
from charter.gateway.tls import TLS

class Guard:
    name, hash, clauses = "g", "h", ()

run(Guard(), Settings(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), tls=TLS(Path(sys.argv[3]), Path(sys.argv[4])))
"""


def test_clients_that_trust_the_certificate_are_served_and_others_see_nothing(upstream: Scripted, files: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, upstream.url, str(port), *map(str, files)], stderr=subprocess.PIPE, text=True)
    trusting = ssl.create_default_context(cafile=str(files[0]))
    try:
        for _ in range(1_200):
            try:
                health = httpx2.get(f"https://127.0.0.1:{port}/healthz", verify=trusting, trust_env=False)
                break
            except httpx2.ConnectError:
                assert process.poll() is None
                time.sleep(0.05)
        assert health.json()["guard"] == {"name": "g", "hash": "h"}
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx2.get(f"https://127.0.0.1:{port}/healthz", trust_env=False)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        old = ssl.create_default_context(cafile=str(files[0]))
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((httpx2.ConnectError, ssl.SSLError)):
            httpx2.get(f"https://127.0.0.1:{port}/healthz", verify=old, trust_env=False)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def test_files_that_do_not_belong_together_or_are_none_are_one_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = files
    _, other = certificate(tmp_path, "b")
    locked, empty = tmp_path / "locked.key", tmp_path / "empty"
    subprocess.run(["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked], check=True, capture_output=True)
    empty.write_bytes(b"")
    pairs = [
        (cert, other),
        (cert, locked),
        (empty, key),
        (cert, empty),
        (key, cert),
        (tmp_path / "gone", key),
        (cert, tmp_path),
        (cert, None),
        (None, key),
    ]
    for one, two in pairs:
        with pytest.raises(CharterError) as caught:
            tls_files(one, two)
        assert "\n" not in str(caught.value)
    assert tls_files(cert, key) == TLS(cert, key)
    assert tls_files(None, None) is None


def test_the_command_says_so_and_ends_with_2(files: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["serve", "general", "--upstream", "http://127.0.0.1:9/v1", "--tls-cert", str(files[0])]
    run = [sys.executable, "-c", "from charter.cli import main; main()", *arguments]
    found = subprocess.run(run, capture_output=True, text=True, env=dict(os.environ), cwd=tmp_path, timeout=200)
    assert (found.returncode, found.stderr.startswith("error: HTTPS needs both")) == (2, True)
    assert list(tmp_path.iterdir()) == []
