from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge_server.media import parts


def test_names_are_hidden_and_never_the_same(tmp_path: Path) -> None:
    names = {parts.name(tmp_path, ".mov") for _ in range(50)}
    assert len(names) == 50
    assert all(path.name.startswith(".fresco-") and path.suffix == ".mov" for path in names)


def test_only_parts_of_dead_processes_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = parts.name(tmp_path, ".mp4")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # Linux gives out none so high
    file, folder = parts.name(tmp_path, ".mp4"), parts.name(tmp_path)
    monkeypatch.undo()
    elsewhere = tmp_path / file.name.replace(parts._MACHINE, "0" * 8)
    others = [tmp_path / ".fresco-notes.mp4", tmp_path / "shot.mp4", elsewhere]
    for path in (mine, file, *others):
        path.touch()
    folder.mkdir()
    (folder / "a.0001.png").touch()
    parts.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, *others])


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    parts.sweep(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    parts.remove(tmp_path / "none")
    parts.remove(tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_both_kinds_go_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[int] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        brought.append(os.fstat(handle).st_ino)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    (tmp_path / "a").touch()
    parts.to_disk(tmp_path / "a")
    parts.to_disk(tmp_path)
    folder = [] if os.name == "nt" else [tmp_path.stat().st_ino]
    assert brought == [(tmp_path / "a").stat().st_ino, *folder]


@pytest.mark.parametrize(("held", "moved"), [(3, True), (99, False)])
def test_windows_waits_for_a_target_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, moved: bool
) -> None:
    tries, original = 0, Path.replace

    def replace(path: Path, target: Path) -> Path:
        nonlocal tries
        tries += 1
        if tries <= held:
            raise PermissionError
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(parts, "WINDOWS", True)
    monkeypatch.setattr(parts, "_WAITS", (0.0,) * 4)
    (tmp_path / "a").touch()
    if moved:
        parts.move(tmp_path / "a", tmp_path / "b")
    else:
        with pytest.raises(PermissionError):
            parts.move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").exists() == moved
