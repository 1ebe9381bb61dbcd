"""What a client may send. Apart from `uploads`, which brings the libraries of pictures along."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send.

    chunk: bytes of a chunk; upload: bytes of an upload; owner: bytes of all of an owner's
    count: uploads of an owner
    upload_s: seconds that an unused one is kept
    spare: bytes that stay free on the disk
    """

    chunk: int = 8 << 20
    upload: int = 64 << 30
    owner: int = 256 << 30
    count: int = 256
    upload_s: float = 86400.0
    spare: int = 256 << 20

    def told(self) -> dict[str, int]:
        """What a client must know of it before it sends anything (PROTOCOL.md, `Welcome`)."""
        return {"chunk": self.chunk, "upload": self.upload, "upload_s": round(self.upload_s)}
