"""TLS by files: checked before anything is served, so that a wrong file is one sentence and not a traceback at the first client."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from charter.errors import CharterError


@dataclass(frozen=True, slots=True)
class TLS:
    """A certificate with its chain and its private key, both PEM."""

    cert: Path
    key: Path

    def __post_init__(self) -> None:
        for path in (self.cert, self.key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise CharterError(f"{path}: can't be read ({error.strerror}); give --tls-cert and --tls-key a PEM file each") from error
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password="")  # a passphrase is never asked for
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "not PEM, or encrypted"
            raise CharterError(
                f"{self.cert} and {self.key} are no certificate with its private key ({reason}); "
                "both must be PEM, belong together and need no passphrase"
            ) from error


def tls_files(cert: Path | None, key: Path | None) -> TLS | None:
    """What the two options say; None where neither is given.

    Raises:
        CharterError: one is missing, can't be read, or they do not belong together.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise CharterError("HTTPS needs both --tls-cert and --tls-key; give the other one too, or neither")
    return TLS(cert, key)
