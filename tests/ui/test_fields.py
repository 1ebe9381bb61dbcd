"""Editors of parameters: every one of the effect, and what is odd about some."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QSlider, QSpinBox

from ui import effect
from ui.effect import Parameter
from ui.widgets import fields
from ui.widgets.fields import ModelName, Number, Whole
from ui.widgets.form import EffectForm

pytestmark = pytest.mark.usefixtures("app")
EFFECT = effect.shipped()
NAMED = {each.name: each for each in EFFECT.parameters()}


def other(parameter: Parameter) -> object:
    """A value that is not the default."""
    if parameter.kind == "Boolean":
        return not parameter.default
    if parameter.kind == "Choice":
        return next(key for key, _ in parameter.choices if key != parameter.default)
    if parameter.kind == "String":
        return "other words"
    low, high = parameter.bounds
    return type(parameter.default)(low if parameter.default != low else min(high, low + 1))


@pytest.mark.parametrize("name", NAMED)
def test_every_parameter_shows_its_default_and_takes_another_value(name: str) -> None:
    parameter = NAMED[name]
    own = fields.editor(parameter)
    assert own.value() == parameter.default
    assert type(own.value()) is type(parameter.default)
    told: list[bool] = []
    own.changed.connect(lambda: told.append(True))
    own.set_value(other(parameter))
    assert own.value() == other(parameter)
    assert told
    first = own.focusProxy()
    assert first is not None
    assert (first.accessibleName(), first.accessibleDescription()) == (
        parameter.label,
        parameter.hint,
    )


def test_numbers_stay_within_their_bounds_and_the_slider_within_its_own() -> None:
    number = Number(NAMED["guidance"])
    slider = number.findChildren(QSlider)[0]
    number.set_value(1000)
    assert (number.value(), slider.value()) == (100.0, slider.maximum())
    slider.sliderMoved.emit(slider.maximum() // 2)
    assert number.value() == 7.5
    whole = Whole(NAMED["seed"])
    whole.set_value(2**31 - 1)
    assert whole.value() == 2**31 - 1


def test_the_wheel_changes_only_what_has_the_focus() -> None:
    whole = Whole(NAMED["batch"])
    whole.set_value(8)
    whole.show()
    box = whole.findChildren(QSpinBox)[0]
    turn = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, 0), QPoint(0, 120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(box, turn)
    assert whole.value() == 8
    whole.activateWindow()
    box.setFocus()
    QApplication.processEvents()
    assert box.hasFocus()
    QApplication.sendEvent(box, turn)
    assert whole.value() == 9
    whole.close()


def test_models_are_offered_and_what_is_set_stays() -> None:
    own = ModelName()
    own.set_value("mine")
    own.offer([{"name": "one", "title": "One"}, {"name": "two", "title": "Two"}])
    assert own.value() == "mine"
    assert own._box.count() == 2


def test_the_form_has_every_page_and_follows_what_is_set() -> None:
    form = EffectForm(EFFECT)
    assert [form.tabText(at) for at in range(form.count())] == [own.label for own in EFFECT.pages]
    assert form.values() == {each.name: each.default for each in EFFECT.parameters()}
    assert not form.editor("strength").isEnabled()
    form.editor("auto_strength").set_value(False)
    assert form.editor("strength").isEnabled()
    form.editor("auto_temporal_until").set_value(False)
    assert form.editor("temporal_until").isEnabled()
    form.editor("temporal").set_value(False)  # nothing below it means anything any more
    assert not form.editor("temporal_until").isEnabled()
    form.set_values({"prompt": "a look", "of a newer server": 1})
    assert form.values()["prompt"] == "a look"
    assert form.values()["auto_strength"] is False


def test_the_form_offers_models_of_the_right_role() -> None:
    form = EffectForm(EFFECT)
    form.offer([
        {"name": "sd15", "title": "", "role": "base", "state": "here"},
        {"name": "far", "title": "", "role": "base", "state": ""},
        {"name": "ema", "title": "", "role": "vae", "state": "pinned"},
    ])  # fmt: skip
    base, vae = form.editor("model"), form.editor("vae")
    assert isinstance(base, ModelName)
    assert isinstance(vae, ModelName)
    assert [base._box.itemText(at) for at in range(base._box.count())] == ["sd15"]
    assert [vae._box.itemText(at) for at in range(vae._box.count())] == ["ema"]
    assert (base.value(), vae.value()) == ("fresco-draft", "")
