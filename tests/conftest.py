"""What all tests share: one thread, offline, and the way to the measured vectors and clips."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.vectors import Vectors

# Tiny models spend their time waking threads; and one thread is one order of summation.
torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"

# No deadlines: the machine may be busy. In CI the same examples every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=2000)
_PROFILE = "ci" if os.environ.get("CI") else "default"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", _PROFILE))

REFERENCE, CLIPS = "FRESCO_BRIDGE_REFERENCE", "FRESCO_BRIDGE_CLIPS"


def _folder(variable: str, what: str) -> Path:
    """The folder that `variable` names; skips where it is unset, fails where it is wrong."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: {what} are not on this machine")
    folder = Path(value)
    assert folder.is_dir(), f"{variable} is set to {folder}, which is no folder"
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of the vectors recorded from the authors' program."""
    return _folder(REFERENCE, "the vectors recorded from the authors' program")


@pytest.fixture(scope="session")
def golden(reference_dir: Path) -> Callable[[str], Vectors]:
    """Load one file of the recorded vectors by its name without suffix."""

    def load(name: str) -> Vectors:
        path = reference_dir / f"{name}.npz"
        assert path.is_file(), f"{REFERENCE} is set but {path.name} is not in it"
        return Vectors(path)

    return load


@pytest.fixture(scope="session")
def clip() -> Callable[[str], Path]:
    """Find one of the real clips by its file name."""

    def find(name: str) -> Path:
        path = _folder(CLIPS, "the real clips") / name
        assert path.is_file(), f"{CLIPS} is set but {name} is not in it"
        return path

    return find
