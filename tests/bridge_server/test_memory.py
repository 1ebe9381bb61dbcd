"""Memory does not grow with a clip's length: measured on processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bridge_server import config
from bridge_server.media.probe import probe
from tests.bridge_server.reels import reel


def _peak(folder: Path, shots: int) -> float:
    """What carrying painted frames over `shots` times 1000 frames takes at its highest, MB."""
    clip = reel(folder / f"{shots}.mkv", (1000,) * shots, (64, 64), sound=False)
    count = probe(clip).count
    picture, target = folder / "key.png", folder / f"{shots} restyled.mkv"
    cv2.imwrite(str(picture), np.full((64, 64, 3), 90, np.uint8))
    words = [sys.executable, "-m", "bridge_server", "propagate", str(clip), "-o", str(target)]
    words += ["--cuts", "none", "--propagation", "flow", "--threads", "1", "--mask", str(clip)]
    for number in (*range(0, count, 25), count - 1):
        words += ["--key", f"{number}={picture}"]
    environ = {**os.environ, config.STORE: str(folder / "store"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert probe(target).count == count
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6


@pytest.mark.skipif(os.name == "nt", reason="Windows says a process's peak otherwise")
@pytest.mark.skipif("FRESCO_BRIDGE_LONG" not in os.environ, reason="minutes: make test-long")
def test_three_thousand_frames_take_no_more_memory_than_one_thousand(tmp_path: Path) -> None:
    # 2000 frames more would take 98 MB if they were held; what comes and goes differs by 5 MB.
    assert _peak(tmp_path, 3) < _peak(tmp_path, 1) + 25
