"""Editors of the effect's parameters, one for each kind of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from PySide6.QtCore import QEvent, QObject, QStandardPaths, Qt, Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QCompleter,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QSlider,
    QSpinBox,
    QWidget,
)

from ui.effect import Parameter

#: Steps of a slider; lines of a text that may have several; decimals that are usual.
_STEPS, _LINES, _DECIMALS = 100, 3, 3
_INT32 = 2**31 - 1
#: What a number's box has room for, with its buttons; letters that a box of choices has room for.
_WIDEST, _LETTERS = "0000000.0000", 12


class Editor(QWidget):
    """Shows a value and lets it be changed.

    changed: by the user or by `set_value`
    """

    changed = Signal()

    def __init__(self, *widgets: QWidget) -> None:
        super().__init__()
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        for widget in widgets:
            self._row.addWidget(widget)
        self._first = widgets[0]
        self.setFocusProxy(self._first)

    def describe(self, label: str, hint: str) -> None:
        """Tell people, and programs that read the screen aloud, what this is for."""
        self.setToolTip(hint)
        self._first.setAccessibleName(label)
        self._first.setAccessibleDescription(hint)

    def value(self) -> Any:
        """Return what is set."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show a value."""
        raise NotImplementedError


class TextLine(Editor):
    """A text of one line."""

    def __init__(self) -> None:
        self._edit = QLineEdit()
        super().__init__(self._edit)
        self._edit.textChanged.connect(self.changed)

    def value(self) -> str:
        """See Editor."""
        return self._edit.text().strip()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._edit.setText(str(value))


class TextBlock(Editor):
    """A text of several lines; Tab goes on to the next field."""

    def __init__(self) -> None:
        self._edit = QPlainTextEdit()
        self._edit.setTabChangesFocus(True)
        lines = _LINES * QFontMetrics(self._edit.font()).lineSpacing()
        self._edit.setFixedHeight(lines + 12)
        super().__init__(self._edit)
        self._edit.textChanged.connect(self.changed)

    def value(self) -> str:
        """See Editor."""
        return self._edit.toPlainText().strip()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        lines: list[Any] = value if isinstance(value, list) else [value]
        self._edit.setPlainText("\n".join(map(str, lines)))


class FilePath(Editor):
    """A file; its name may be typed, or dropped here.

    save: it is one to be written
    """

    def __init__(self, title: str, save: bool = False, kinds: str = "") -> None:
        self._edit = QLineEdit()
        self._edit.setClearButtonEnabled(True)
        browse = QPushButton("Browse...")
        browse.setAccessibleName(f"{title}: browse")
        super().__init__(self._edit, browse)
        self._title, self._save, self._kinds = title, save, kinds
        self._edit.textChanged.connect(self.changed)
        browse.clicked.connect(self._browse)

    def value(self) -> str:
        """See Editor."""
        return self._edit.text().strip()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._edit.setText(str(value))

    def _browse(self) -> None:
        films = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.MoviesLocation)
        ask = QFileDialog.getSaveFileName if self._save else QFileDialog.getOpenFileName
        chosen, _ = ask(self, self._title, self.value() or films, self._kinds)
        if chosen:
            self.set_value(chosen)


class Choice(Editor):
    """One of several keys, shown by their labels."""

    def __init__(self, choices: Iterable[tuple[str, str]]) -> None:
        self._box = _narrow(QComboBox())
        for key, label in choices:
            self._box.addItem(label, key)
        super().__init__(_calm(self._box))
        self._box.currentIndexChanged.connect(self.changed)

    def value(self) -> str:
        """See Editor."""
        return self._box.currentData()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._box.setCurrentIndex(max(0, self._box.findData(value)))


class Switch(Editor):
    """On or off."""

    def __init__(self) -> None:
        self._box = QCheckBox()
        super().__init__(self._box)
        self._box.toggled.connect(self.changed)

    def value(self) -> bool:
        """See Editor."""
        return self._box.isChecked()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._box.setChecked(bool(value))


class Whole(Editor):
    """A whole number."""

    def __init__(self, parameter: Parameter) -> None:
        self._box = QSpinBox()
        low, high = parameter.bounds
        self._box.setRange(max(-_INT32, int(low)), min(_INT32, int(high)))
        super().__init__(_calm(self._box))
        self._box.valueChanged.connect(self.changed)

    def value(self) -> int:
        """See Editor."""
        return self._box.value()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._box.setValue(int(value))


class _Decimal(QDoubleSpinBox):
    """Shows 0.2 and not 0.200000000."""

    def textFromValue(self, value: float) -> str:  # noqa: N802
        return self.locale().toString(value, "g", 7)


class Number(Editor):
    """A number, with a slider for its usual span."""

    def __init__(self, parameter: Parameter) -> None:
        self._box, self._slider = _Decimal(), QSlider(Qt.Orientation.Horizontal)
        low, high = parameter.bounds
        self._low, self._high = parameter.shown
        self._box.setDecimals(_DECIMALS if not 0 < low < 1e-3 else 9)
        self._box.setRange(low, high)
        self._box.setMinimumWidth(QFontMetrics(self._box.font()).horizontalAdvance(_WIDEST))
        self._box.setSingleStep((self._high - self._low) / 20)
        self._slider.setRange(0, _STEPS)
        self._slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the number beside it is enough
        super().__init__(_calm(self._box), _calm(self._slider))
        self._row.setStretchFactor(self._slider, 1)
        self._box.valueChanged.connect(self._on_value)
        self._slider.sliderMoved.connect(self._on_moved)

    def value(self) -> float:
        """See Editor."""
        return round(self._box.value(), self._box.decimals())

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._box.setValue(float(value))
        self._on_value()

    def _on_value(self) -> None:
        share = (self._box.value() - self._low) / (self._high - self._low)
        self._slider.setValue(round(_STEPS * min(1.0, max(0.0, share))))
        self.changed.emit()

    def _on_moved(self, step: int) -> None:
        self._box.setValue(self._low + step / _STEPS * (self._high - self._low))


class ModelName(Editor):
    """The name of a model: one of those that are here, or typed."""

    def __init__(self) -> None:
        self._box = _narrow(QComboBox())
        self._box.setEditable(True)
        self._box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        completer = QCompleter(self._box.model(), self._box)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self._box.setCompleter(completer)
        super().__init__(_calm(self._box))
        self._box.currentTextChanged.connect(self.changed)

    def value(self) -> str:
        """See Editor."""
        return self._box.currentText().strip()

    def set_value(self, value: Any) -> None:
        """See Editor."""
        self._box.setCurrentText(str(value))

    def offer(self, models: Iterable[Mapping[str, Any]]) -> None:
        """Offer models; what is set stays."""
        before = self.value()
        self._box.clear()
        for model in models:
            self._box.addItem(model["name"])
            self._box.setItemData(
                self._box.count() - 1, model["title"], Qt.ItemDataRole.ToolTipRole
            )
        self.set_value(before)


def editor(parameter: Parameter) -> Editor:
    """Return an editor of a parameter, which shows its default."""
    made = _made(parameter)
    made.set_value(parameter.default)
    made.describe(parameter.label, parameter.hint)
    return made


def _made(parameter: Parameter) -> Editor:
    if parameter.kind == "String":
        return _text(parameter)
    if parameter.kind == "Choice":
        return Choice(parameter.choices)
    if parameter.kind == "Boolean":
        return Switch()
    return Whole(parameter) if parameter.kind == "Integer" else Number(parameter)


def _text(parameter: Parameter) -> Editor:
    if parameter.mode == "MultiLine":
        return TextBlock()
    if parameter.mode == "FilePath":
        return FilePath(parameter.label, save=True)
    return ModelName() if parameter.models else TextLine()


def _narrow(box: QComboBox) -> QComboBox:
    """Let a box be narrower than its longest choice."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(_LETTERS)
    return box


class _Calm(QObject):
    """Keeps the wheel, which scrolls the page, from changing what lies below the pointer."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget):
            if watched.hasFocus():
                return False
            event.ignore()
            return True
        return super().eventFilter(watched, event)


def _calm(widget: QWidget) -> QWidget:
    if isinstance(widget, QAbstractSpinBox | QComboBox):
        widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_Calm(widget))
    return widget
