"""The effect as a form: a page for each of its pages, made from the descriptor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QFormLayout,
    QFrame,
    QGroupBox,
    QLabel,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from ui.effect import Effect, Group, Page, Parameter
from ui.widgets.fields import Editor, ModelName, editor


class EffectForm(QTabWidget):
    """All parameters that a person sets."""

    def __init__(self, effect: Effect, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._parameters = {each.name: each for each in effect.parameters()}
        self._editors: dict[str, Editor] = {}
        self._labels: dict[str, QLabel] = {}
        for page in effect.pages:
            self.addTab(self._page(page), page.label)
            self.setTabToolTip(self.count() - 1, page.hint)
        self._follow()

    def editor(self, name: str) -> Editor:
        """Return the editor of a parameter."""
        return self._editors[name]

    def values(self) -> dict[str, Any]:
        """Return what is set, of every parameter."""
        return {name: own.value() for name, own in self._editors.items()}

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show these values; all others stay as they are set."""
        for name, value in values.items():
            if name in self._editors:
                self._editors[name].set_value(value)

    def offer(self, models: Sequence[Mapping[str, Any]]) -> None:
        """Offer the models that are on this machine."""
        for name, own in self._editors.items():
            if isinstance(own, ModelName):
                role = self._parameters[name].models
                own.offer([row for row in models if row["role"] == role and row["state"]])

    # --------------------------------------------------------------------------------- its building

    def _page(self, page: Page) -> QWidget:
        inner = QWidget()
        layout = QVBoxLayout(inner)
        for group in page.groups:
            layout.addWidget(self._group(group))
        layout.addStretch()
        area = QScrollArea()
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        return area

    def _group(self, group: Group) -> QWidget:
        box = QGroupBox(group.label)
        form = rows(box)
        for parameter in group.parameters:
            own = editor(parameter)
            self._editors[parameter.name] = own
            self._labels[parameter.name] = row(form, parameter.label, parameter.hint, own)
            own.changed.connect(self._follow)
        return box

    def _follow(self) -> None:
        """Let only those be changed that mean something beside the others."""
        for name in self._editors:
            means = all(self._holds(each) for each in self._above(name))
            self._editors[name].setEnabled(means)
            self._labels[name].setEnabled(means)

    def _above(self, name: str) -> Iterator[Parameter]:
        """Return the parameter, what it depends on, and what that depends on."""
        parameter: Parameter | None = self._parameters[name]
        while parameter is not None:
            yield parameter
            parameter = self._parameters.get(parameter.needs[0]) if parameter.needs else None

    def _holds(self, parameter: Parameter) -> bool:
        other = self._editors.get(parameter.needs[0]) if parameter.needs else None
        return other is None or parameter.needs is None or other.value() == parameter.needs[1]


def rows(box: QWidget) -> QFormLayout:
    """Return a layout of labels and fields, of which the fields grow."""
    form = QFormLayout(box)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
    return form


def row(form: QFormLayout, label: str, hint: str, own: QWidget) -> QLabel:
    """Add a row; returns its label."""
    said = QLabel(label)
    said.setToolTip(hint)
    said.setBuddy(own)
    form.addRow(said, own)
    return said
