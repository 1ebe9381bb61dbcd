from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bridge_server.errors import OutsideFolders
from bridge_server.media import confine
from bridge_server.stages import Bench
from fresco import loading
from fresco.callbacks import CancelToken
from fresco.warm import ModelSpec, WarmModels
from tests.fresco import formats


def test_a_model_that_was_swapped_while_it_was_read_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts a link to another's model in its place, and takes it away again."""
    root = tmp_path / "root"
    folder = formats.write_folder(root / "model")
    theirs = tmp_path / "theirs"
    shutil.copytree(folder, theirs)
    real, read = loading.read_base, list[Path]()

    def swapped(path: Path, *more: Any) -> Any:
        folder.rename(root / "aside")
        folder.symlink_to(theirs)
        found = real(path, *more)
        read.append(path.resolve())
        folder.unlink()
        (root / "aside").rename(folder)
        return found

    warm = WarmModels(10**9, torch.device("cpu"))
    job = SimpleNamespace(spec=ModelSpec(folder), settings=SimpleNamespace(halves=2))
    # What `ready` looks at.
    bench: Any = SimpleNamespace(job=job, models=warm, cancel=CancelToken())
    with confine.within((root,), ()):
        monkeypatch.setattr(loading, "read_base", swapped)
        with pytest.raises(OutsideFolders, match="while it was read"):
            Bench.ready(bench)
        assert read == [theirs]
        assert warm.size == 0
        monkeypatch.setattr(loading, "read_base", real)
        assert Bench.ready(bench).model is not None
    assert warm.size > 0
