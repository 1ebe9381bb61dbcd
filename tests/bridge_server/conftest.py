"""A hub on this machine, and settings in a folder of the test's own."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path

import huggingface_hub.constants
import pytest

from bridge_server import config, downloads
from bridge_server.catalogue import Entry, Licence, Role
from bridge_server.config import Config
from tests.bridge_server.hub_server import HubServer, hub_server

REPOSITORY = "painter/styles"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's: no cache, no token, no mirror, no proxy; and the hub may be asked."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN")
    for name in (*names, config.MIRROR, config.FOLDER, config.OFFLINE, config.BUDGET):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(config.HOME, str(tmp_path / "home ü"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(downloads, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(downloads, "SPARE", 1 << 20)


@pytest.fixture
def hub() -> Generator[HubServer, None, None]:
    with hub_server() as server:
        yield server


@pytest.fixture
def settings(hub: HubServer) -> Config:
    return config.load().through(hub.endpoint)


@pytest.fixture(scope="session")
def weights() -> bytes:
    return random.Random(7).randbytes(600_000)


@pytest.fixture
def entry(hub: HubServer, weights: bytes) -> Entry:
    """A model of two files that the hub has and this machine has not."""
    hub.publish(REPOSITORY, {WEIGHTS: weights, "config.json": b"{}", "README.md": b"Hello"})
    return make_entry()


def make_entry(
    role: Role = Role.LORA, licence: Licence | None = None, files: tuple[str, ...] = ()
) -> Entry:
    return Entry("styles", "Styles", role, "test", REPOSITORY, files=files, licence=licence)
