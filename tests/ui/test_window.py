"""The window on a real server with the draft model, by its own buttons and fields."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage, QPalette
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton, QTableWidget, QWidget

from bridge_server import config
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import Edit, JobInfo
from tests.bridge_server import serving
from tests.bridge_server.serving import SMALL
from tests.ui.qt import until
from ui.app import build
from ui.models.jobs import title
from ui.widgets.window import Window

pytestmark = pytest.mark.usefixtures("app")
PROGRAM = [sys.executable, "-m", "bridge_server"]
#: After these nothing more comes by itself.
ENDS = ("done", "failed", "cancelled")
LEFT = Qt.MouseButton.LeftButton
#: The fields of `SMALL`, as the effect has them, and what the tests want beside.
FIELDS = {
    "prompt": SMALL["prompt"],
    "size": SMALL["size"],
    "steps": SMALL["steps"],
    "keyframe_mode": "every",
    "keyframe_every": 4,
    "cut_mode": "none",
    "until": "keyframes",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A world of its own, for this process and the servers that it starts."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(endpoint.FOLDER, str(folder / "run"))
        patch.setenv(config.HOME, str(folder / "home"))
        patch.setenv(config.STORE, str(folder / "store"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder
        if (pid := running()) is not None:
            psutil.Process(pid).kill()
            psutil.Process(pid).wait()


@pytest.fixture(scope="module")
def window(app: QApplication, home: Path) -> Iterator[Window]:
    """A window whose Start button was pressed."""
    window = build(PROGRAM, home / "server.log", "")
    window.show()
    said = seen(window.server.text.text)
    until(lambda: said() == "Server: not running")
    assert window.server.start.isVisible()
    click(window.server.start)
    until(lambda: said() == "Server: ready")
    assert said.words[:3] == ["Server: looking for the server", "Server: not running",
                              "Server: starting"]  # fmt: skip
    assert not window.server.start.isVisible()
    yield window
    window.close()


class seen:  # noqa: N801
    """Remembers what a text was, each time that it was another."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text, self.words = text, [text()]

    def __call__(self) -> str:
        if (now := self._text()) != self.words[-1]:
            self.words.append(now)
        return now


def running() -> int | None:
    try:
        return endpoint.read().pid
    except BridgeError:
        return None


def stop() -> None:
    pid = running()
    assert pid is not None
    psutil.Process(pid).kill()
    until(lambda: running() is None)


def click(button: QPushButton) -> None:
    assert button.isVisible()
    assert button.isEnabled()
    QTest.mouseClick(button, LEFT)


def info(window: Window) -> JobInfo:
    assert window._desk.job.info is not None
    return window._desk.job.info


def reaches(window: Window, state: str) -> JobInfo:
    """Wait until the job that is looked at is in a state."""
    job = window._desk.job
    until(lambda: job.info is not None and job.info.state in (state, *ENDS))
    assert info(window).state == state, info(window).failure
    return info(window)


def submit(window: Window, clip: Path, **fields: Any) -> None:
    """Fill in the dialog, and press its button; nothing is waited for."""
    click(window.restyle)
    dialog = window.dialog
    until(lambda: dialog.isVisible() and dialog.look.count() > 1)
    dialog.clips["Source"].set_value(str(clip))
    for name, value in {**FIELDS, "output": "", **fields}.items():
        dialog.form.editor(name).set_value(value)
    click(dialog.go)


def submitted(window: Window, clip: Path, **fields: Any) -> None:
    """As `submit`, until the job is looked at."""
    before = window._desk.job.id
    submit(window, clip, **fields)
    until(lambda: window._desk.job.id != before and not window.dialog.isVisible())
    until(lambda: window._desk.job.info is not None)


def choose(window: Window, frame: int) -> None:
    grid = window.job.grid
    index = window._desk.job.keyframes.index_of(frame)
    assert index.isValid()
    QTest.mouseClick(grid.viewport(), LEFT, pos=grid.visualRect(index).center())
    until(lambda: window.job.keyframe.title.text() == f"Keyframe at frame {frame}")


def set_own(window: Window, what: str, value: object) -> None:
    """Give the chosen keyframe a value of its own, in the form."""
    view = window.job.keyframe
    view.own[what].setChecked(True)
    view.editors[what].set_value(value)
    click(view.apply)


def column(table: QTableWidget, number: int) -> list[str]:
    items = [table.item(row, number) for row in range(table.rowCount())]
    return [item.text() for item in items if item is not None]


def shows_a_picture(window: Window) -> bool:
    return not window.job.keyframe.picture.image.isNull()


def test_a_whole_run_from_the_file_to_the_report(
    window: Window, clip: Path, tmp_path: Path
) -> None:
    job, keyframes = window.job, window._desk.job.keyframes
    submitted(window, clip, output=str(tmp_path / "made.mp4"))
    assert job.title.text() == f"{clip.name}: {SMALL['prompt']}"
    said, steps = seen(job.far.text), set[str]()

    def at_gate() -> bool:
        said()
        steps.update(row.step for row in keyframes._rows if row.step and row.preview)
        return info(window).state in ("waiting", "failed")

    until(at_gate)
    assert any(text.startswith("Styling keyframes") for text in said.words), said.words
    assert said.words[-1].startswith("Look at the keyframes.")
    assert steps  # previews came, as pictures
    until(lambda: [row.frame for row in keyframes._rows] == [0, 4, 8])

    choose(window, 4)
    until(lambda: shows_a_picture(window))
    before = job.keyframe.picture.image.copy()
    assert not job.keyframe.apply.isEnabled()
    set_own(window, "prompt", "pencil sketch")
    until(lambda: info(window).revision == 2)
    reaches(window, "waiting")
    until(lambda: job.keyframe.picture.image != before)
    row = keyframes.row_of(4)
    assert row is not None
    assert row.changed == ("prompt",)
    assert job.keyframe.own["prompt"].isChecked()
    assert not job.keyframe.apply.isEnabled()

    click(job.buttons["approve"])
    reaches(window, "done")
    until(job.report.isVisible)
    assert (tmp_path / "made.mp4").exists()
    assert str(tmp_path / "made.mp4") in job.report.file.text()
    facts = column(job.report.table, 0)
    assert {"frames", "rate"} <= set(facts)
    assert set(column(job.report.table, 1)) <= {"kept", "changed"}
    assert not any(button.isVisible() for button in job.buttons.values())
    assert window.problem.text.text() == ""


def test_a_change_of_what_is_done_makes_another_version(window: Window) -> None:
    first = reaches(window, "done")
    choose(window, 0)
    assert "version" in window.job.keyframe.apply.text()
    set_own(window, "seed", 5)
    until(lambda: window._desk.job.id != first.job)
    second = reaches(window, "done")
    assert second.parent == first.job
    assert Path(second.output).name == "made 2.mp4"
    assert Path(second.output).read_bytes() != Path(first.output).read_bytes()
    assert [own.job for own in window._desk.jobs][:2] == [second.job, first.job]
    window.jobs.setCurrentIndex(window._desk.jobs.index(1))
    until(lambda: window._desk.job.id == first.job and window.job.report.isVisible())


def test_somebody_else_was_faster(window: Window, clip: Path, tmp_path: Path) -> None:
    submitted(window, clip, output=str(tmp_path / "b.mp4"))
    job = reaches(window, "waiting")
    choose(window, 8)
    with Client() as other:
        change = Edit(job=job.job, base=1, frame=8, what="seed", value="9")
        other.ask(messages.EDIT, change, 30)
    # The window does not know it yet: nothing of it was run since.
    window._desk.job.edit(8, {"strength": "0.5"})
    until(window.problem.isVisible)
    assert "changed" in window.problem.text.text()
    until(lambda: info(window).revision == 2)
    reaches(window, "waiting")
    assert window._desk.job.changes_at(8) == {"seed": "9"}
    until(lambda: window.job.keyframe.own["seed"].isChecked())
    assert window.job.keyframe.editors["seed"].value() == 9

    window.job.keyframe.own["seed"].setChecked(False)  # as the whole clip again
    click(window.job.keyframe.apply)
    until(lambda: info(window).revision == 3)
    assert window._desk.job.changes_at(8) == {}
    click(window.problem.dismiss)
    assert not window.problem.isVisible()


def test_a_keyframe_is_painted_by_hand(window: Window, tmp_path: Path) -> None:
    reaches(window, "waiting")
    own = QImage(96, 64, QImage.Format.Format_RGB32)
    own.fill(QColor("magenta"))
    own.save(str(tmp_path / "painted.png"))
    choose(window, 0)
    set_own(window, "painted", str(tmp_path / "painted.png"))
    until(lambda: window._desk.job.changes_at(0) != {})
    reaches(window, "waiting")
    until(lambda: window.job.keyframe.picture.image.pixelColor(5, 5) == QColor("magenta"))


def test_a_job_rests_and_goes_on(window: Window, clip: Path, tmp_path: Path) -> None:
    submitted(window, clip, output=str(tmp_path / "c.mp4"), steps=30)
    click(window.job.buttons["pause"])
    reaches(window, "paused")
    click(window.job.buttons["resume"])
    until(lambda: info(window).state in ("queued", "running"))
    click(window.job.buttons["cancel"])
    reaches(window, "cancelled")
    assert window.job.far.text() == "Cancelled."


def test_a_failure_is_said_with_what_to_do_and_its_log_copied(
    window: Window, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no film")
    submitted(window, broken)
    until(lambda: info(window).state == "failed" and window._desk.job.made is not None)
    problem = window.job.problem
    assert "broken.mp4" in problem.text.text()
    click(problem.copy)
    copied = QGuiApplication.clipboard().text()
    assert copied.startswith(problem.text.text())
    assert "Traceback" in copied
    assert window.job.buttons["retry"].isVisible()


def test_what_is_refused_is_said_in_the_dialog_which_stays_open(
    window: Window, tmp_path: Path, clip: Path
) -> None:
    dialog = window.dialog
    submit(window, tmp_path / "nowhere.mp4")
    until(lambda: "nowhere.mp4" in dialog.said.text())
    assert dialog.isVisible()
    assert dialog.go.isEnabled()
    dialog.clips["Source"].set_value("")
    assert not dialog.go.isEnabled()
    dialog.clips["Source"].set_value(str(clip))
    look = next(own for own in window._desk.looks if "propagation" in own["values"])
    dialog.look.setCurrentIndex(dialog.look.findText(look["title"]))
    dialog.look.activated.emit(dialog.look.currentIndex())
    assert dialog.form.values() | look["values"] == dialog.form.values()
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()


def test_everything_is_reached_by_keys_in_the_order_in_which_it_is_seen(window: Window) -> None:
    window.activateWindow()
    window.restyle.setFocus()
    until(window.restyle.hasFocus)
    order: list[QWidget] = []
    while (now := QApplication.focusWidget()) is not None and now not in order:
        order.append(now)
        QTest.keyClick(now, Qt.Key.Key_Tab)
    named = {window.restyle, window.jobs, window.job.grid, window.job.problem.copy,
             window.job.buttons["retry"]}  # fmt: skip
    assert named <= set(order)
    places = [order.index(each) for each in (window.restyle, window.jobs,
              window.job.buttons["retry"], window.job.problem.copy, window.job.grid)]  # fmt: skip
    assert places == sorted(places)


def test_it_is_readable_in_the_light_and_in_the_dark(window: Window, app: QApplication) -> None:
    """The colours of texts and of what is behind them are the palette's, whatever it is."""
    usual = app.palette()
    try:
        for behind, text in (("#fafafa", "#101010"), ("#202020", "#f0f0f0")):
            palette = QPalette(QColor(behind))
            for role in (QPalette.ColorRole.Base, QPalette.ColorRole.Window):
                palette.setColor(role, QColor(behind))
            for role in (QPalette.ColorRole.Text, QPalette.ColorRole.WindowText):
                palette.setColor(role, QColor(text))
            app.setPalette(palette)
            QApplication.processEvents()
            image = window.grab().toImage()
            at = window.jobs.mapTo(window, window.jobs.rect().bottomLeft())
            assert image.pixelColor(at.x() + 9, at.y() - 9) == QColor(behind)
            assert distance(image, QColor(text)) < 40  # it is drawn with it somewhere
    finally:
        app.setPalette(usual)


def distance(image: QImage, colour: QColor) -> int:
    """How far the most similar point of an image is from a colour."""
    image = image.convertToFormat(QImage.Format.Format_RGB32)
    points = np.frombuffer(image.constBits(), np.uint8).reshape(-1, 4)[:, :3].astype(int)
    wanted = np.array([colour.blue(), colour.green(), colour.red()])
    return int(np.abs(points - wanted).sum(axis=1).min())


def test_a_server_that_is_killed_is_told_and_started_again(
    window: Window, clip: Path, tmp_path: Path
) -> None:
    submitted(window, clip, output=str(tmp_path / "d.mp4"), until="done")
    name = window._desk.job.id
    until(lambda: info(window).state == "running")
    stop()
    until(lambda: window.server.text.text() == "Server: not running")
    assert "has ended" in window.problem.text.text()
    assert not window.job.buttons["cancel"].isEnabled()
    click(window.server.start)
    reaches(window, "done")
    assert window._desk.job.id == name
    assert (tmp_path / "d.mp4").exists()
    assert not window.problem.isVisible()
    assert window.jobs.currentIndex().data() == title(info(window))


def test_a_window_on_a_job_by_the_beginning_of_its_id(window: Window, home: Path) -> None:
    old = next(own for own in window._desk.jobs if Path(own.output).name == "made.mp4")
    second = build(PROGRAM, home / "server.log", old.job[:9])
    second.show()
    until(lambda: second.job.report.isVisible())
    assert second._desk.job.id == old.job
    assert second.jobs.currentIndex().data(Qt.ItemDataRole.UserRole).job == old.job
    second.close()
    unknown = build(PROGRAM, home / "server.log", "nobody")
    unknown.show()
    until(unknown.problem.isVisible)
    assert "nobody" in unknown.problem.text.text()
    unknown.close()


def test_the_server_goes_on_when_the_window_is_closed(window: Window) -> None:
    window.close()
    assert running() is not None
    with Client() as client:
        assert serving.info(client, window._desk.job.id).state == "done"
