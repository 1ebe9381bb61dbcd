"""What the panel knows, without widgets and without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QModelIndex, Qt
from PySide6.QtGui import QColor, QImage, QImageWriter

from host_plugins.link.messages import JobInfo, JobList, Keyframe, Preview, Progress
from tests.ui.qt import until
from ui.models.jobs import JobsModel
from ui.models.keyframes import KeyframesModel, Row
from ui.models.pictures import Pictures
from ui.models.versions import another, changes_at, free

pytestmark = pytest.mark.usefixtures("app")
ROLE = Qt.ItemDataRole
NOWHERE = QModelIndex()


def job(name: str, created: float = 0.0, state: str = "queued") -> JobInfo:
    return JobInfo(job=name, state=state, seq=1, created=created, title=f"title of {name}")


def names(model: JobsModel) -> list[str]:
    return [own.job for own in model]


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (640, 360)) -> Path:
    image = QImage(*size, QImage.Format.Format_RGB32)
    image.fill(QColor(colour))
    assert image.save(str(path))
    return path


def jpeg(colour: str) -> bytes:
    image = QImage(64, 36, QImage.Format.Format_RGB32)
    image.fill(QColor(colour))
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    assert QImageWriter(buffer, QByteArray(b"jpeg")).write(image)
    return bytes(buffer.data().data())


# -------------------------------------------------------------------------------------------- jobs


def test_new_jobs_come_first_and_known_ones_stay_where_they_are() -> None:
    model = JobsModel()
    model.replace(JobList(jobs=(job("b", 2), job("a", 1))))
    model.update(job("c", 3))
    model.update(job("a", 1, "running"))
    assert names(model) == ["c", "b", "a"]
    model.move("a", Progress(stage="translate", done=1, total=2, eta_s=5))
    index = model.index(2)
    assert index.data() == "title of a"
    assert index.data(ROLE.AccessibleTextRole) == "title of a: styling keyframes, 50 %, 5 s left"
    model.move("unknown", Progress(stage="translate", done=1, total=2))
    assert model.rowCount() == 3


def test_older_jobs_are_asked_for_once_until_they_came() -> None:
    model = JobsModel()
    wanted: list[str] = []
    model.wanted.connect(wanted.append)
    model.replace(JobList(jobs=(job("b", 2), job("a", 1)), more=True))
    while model.canFetchMore(NOWHERE):
        model.fetchMore(NOWHERE)
    assert wanted == ["a"]
    model.extend(JobList(jobs=(job("a", 1), job("0", 0)), more=True))
    assert names(model) == ["b", "a", "0"]
    assert model.canFetchMore(NOWHERE)
    model.extend(JobList(more=True))
    assert not model.canFetchMore(NOWHERE)


def test_a_job_is_found_by_the_beginning_of_its_id() -> None:
    model = JobsModel()
    model.replace(JobList(jobs=(job("abc"), job("abd"))))
    assert model.find("ab") == "abc"
    assert model.find("abd") == "abd"
    assert model.find("x") == "x"


def test_the_same_jobs_are_shown_anew_without_losing_what_is_chosen() -> None:
    model = JobsModel()
    told = JobList(jobs=(job("b", 2), job("a", 1)))
    model.replace(told)
    resets: list[bool] = []
    model.modelReset.connect(lambda: resets.append(True))
    model.replace(JobList(jobs=(job("b", 2, "done"), job("a", 1))))
    assert resets == []
    assert model.index(0).data(ROLE.UserRole).state == "done"
    model.replace(JobList(jobs=(job("c", 3), *told.jobs)))
    assert resets == [True]


# --------------------------------------------------------------------------------------- keyframes


def test_keyframes_are_read_when_they_are_looked_at(tmp_path: Path) -> None:
    model = KeyframesModel()
    told = [Keyframe(frame=frame, path=str(picture(tmp_path / f"{frame}.png"))) for frame in (8, 0)]
    model.replace(told, {"changes": [{"frame": 8, "what": "prompt", "value": "x"}]})
    assert [model.index(at).data() for at in (0, 1)] == ["0", "8 *"]
    assert "changed: prompt" in model.index(1).data(ROLE.ToolTipRole)
    assert model._pictures._kept == {}
    assert model.index(1).data(ROLE.DecorationRole) is None
    changed: list[int] = []
    model.dataChanged.connect(lambda first, _last: changed.append(first.row()))
    until(lambda: changed)
    assert changed == [1]
    image = model.index(1).data(ROLE.DecorationRole)
    assert (image.width(), image.height()) == (320, 180)
    assert image.pixelColor(5, 5) == QColor("red")
    assert list(model._pictures._kept) == [told[0].path]
    model.close()


def test_a_preview_is_shown_until_the_keyframe_is_there(tmp_path: Path) -> None:
    model = KeyframesModel()
    model.preview(Preview(frames=(4, 0), step=1, last=19), [jpeg("blue"), jpeg("green")])
    assert [model.index(at).data() for at in (0, 1)] == ["0\nstep 2 of 20", "4\nstep 2 of 20"]
    assert model.index(1).data(ROLE.DecorationRole).pixelColor(9, 9).blue() > 200
    made = Keyframe(frame=4, path=str(tmp_path / "not read.png"))
    model.add(made, jpeg("red"))
    assert model.index(1).data() == "4"
    assert model.index(1).data(ROLE.DecorationRole).pixelColor(9, 9).red() > 200
    model.replace([made], {})  # of 0 there is still no more than a preview
    assert [own.frame for own in model._rows] == [0, 4]
    model.clear_previews()
    assert [own.frame for own in model._rows] == [4]
    assert model.row_of(4) == Row(4, made.path, True)
    model.close()


def test_a_picture_that_cannot_be_read_is_nothing_and_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = Pictures(100)
    read: list[str] = []
    pictures.read.connect(read.append)
    for name in ("broken.png", "missing.png"):
        path = str(tmp_path / name)
        assert pictures.get(path) is None
        assert pictures.get(path) is None
        until(lambda path=path: path in read)
        found = pictures.get(path)
        assert found is not None
        assert found.isNull()
    assert len(read) == 2
    pictures.close()


def test_only_so_many_pictures_are_kept(tmp_path: Path) -> None:
    pictures = Pictures(32, kept=3)
    for number in range(10):
        path = str(picture(tmp_path / f"{number}.png"))
        pictures.get(path)
        until(lambda path=path: path in pictures._kept)
        pictures.get(str(tmp_path / "0.png"))
    assert len(pictures._kept) <= 3
    assert str(tmp_path / "9.png") in pictures._kept
    pictures.close()


# ---------------------------------------------------------------------------------------- versions


def test_another_version_is_the_request_with_the_change_in_a_file_of_its_own() -> None:
    request = {
        "clip": "a.mov",
        "changes": [
            {"frame": 4, "what": "prompt", "value": "old"},
            {"frame": 4, "what": "seed", "value": "3"},
            {"frame": 8, "what": "prompt", "value": "stays"},
        ],
    }
    done = JobInfo(job="a", state="done", seq=1, output="/films/a restyled.mov", request=request)
    taken = {Path("/films/a restyled 2.mov")}
    made = another(done, 4, {"prompt": "new", "seed": None}, taken.__contains__)
    assert made["changes"] == [
        {"frame": 8, "what": "prompt", "value": "stays"},
        {"frame": 4, "what": "prompt", "value": "new"},
    ]
    assert (made["clip"], made["output"]) == ("a.mov", str(Path("/films/a restyled 3.mov")))
    assert len(request["changes"]) == 3
    assert changes_at(request, 4) == {"prompt": "old", "seed": "3"}


def test_a_free_name_goes_on_counting() -> None:
    assert free(Path("a 7.mov"), lambda _: False) == Path("a 8.mov")
    assert free(Path("7.mov"), lambda _: False) == Path("7 2.mov")


# --------------------------------------------------------------------------------------- the rules


def imported(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(told.stdout.split())


def test_models_need_no_widgets_and_the_panel_nothing_of_the_work() -> None:
    assert "PySide6.QtWidgets" not in imported("ui.models.desk")
    whole = imported("ui.app")
    assert not whole & {"cv2", "torch", "numpy", "fresco", "bridge_server", "av"}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="these references are not counted there")
def test_qt_counts_references_as_python_does() -> None:
    """A release that does not ends the process, after some minutes."""
    index = QModelIndex()
    before = sys.getrefcount(None)
    for _ in range(1000):
        index.data()
    assert sys.getrefcount(None) > before - 500
