"""The window."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QCloseEvent, QKeySequence
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSplitter, QVBoxLayout, QWidget

from host_plugins.link.errors import BridgeError
from ui import words
from ui.models.desk import Desk
from ui.widgets.dialog import RestyleDialog
from ui.widgets.job import JobView
from ui.widgets.job_list import JobList
from ui.widgets.problem import ProblemBar
from ui.widgets.server import ServerBar


class Window(QWidget):
    """Jobs on the left, the one that is looked at on the right."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.setWindowTitle("FreSCo Bridge")
        self._desk, self._of_server = desk, ""
        self.server = ServerBar(desk)
        self.restyle = QPushButton("Restyle a f&ile...")
        self.jobs = JobList(desk.jobs)
        self.job = JobView(desk)
        self.problem = ProblemBar(desk.log, dismissible=True)
        self.dialog = RestyleDialog(desk, self)
        self._arrange()
        self._listen()

    def _arrange(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.server, 1)
        top.addWidget(self.restyle)
        sides = QSplitter(Qt.Orientation.Horizontal)
        sides.addWidget(self.jobs)
        sides.addWidget(self.job)
        sides.setStretchFactor(1, 1)
        sides.setSizes([270, 830])
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self.problem)
        layout.addWidget(sides, 1)
        self.restyle.setShortcut(QKeySequence.StandardKey.Open)
        self.resize(1120, 760)

    def _listen(self) -> None:
        self.restyle.clicked.connect(self.dialog.open)
        self.jobs.picked.connect(self._desk.choose)
        self.job.report.failed.connect(self.problem.say)
        self._desk.job.other.connect(lambda: self.jobs.show_job(self._desk.job.id))
        self._desk.failed.connect(self._on_failed)
        self._desk.server_changed.connect(self._on_server)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """See QWidget. The server and its jobs go on."""
        self.job.close_pictures()
        self._desk.close()
        super().closeEvent(event)

    def _on_failed(self, error: BridgeError) -> None:
        self.problem.say(words.sentence(error))

    def _on_server(self) -> None:
        """Say why there is no server; take back only that, once there is one."""
        problem = self._desk.server.problem
        if problem is not None:
            self._of_server = words.sentence(problem)
            self.problem.say(self._of_server)
        elif self.problem.text.text() == self._of_server:
            self.problem.say("")
