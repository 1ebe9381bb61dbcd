"""The built zip in Blender, by Blender's own installer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Inside


@pytest.fixture(scope="module", params=["on", "off"])
def told(request: pytest.FixtureRequest, blender: Inside, extension: Path) -> dict[str, Any]:
    """What a Blender tells that ends, and must end well, with the extension switched on or off."""
    said = blender.run("install.py", extension, request.param)
    return json.loads(said.split("TOLD ")[1])


def test_it_is_switched_on_off_and_on(told: dict[str, Any]) -> None:
    assert told["on"] == [True, False, True]


def test_its_panels_come_and_go(told: dict[str, Any]) -> None:
    first, off, again = told["panels"]
    assert first
    assert off == []
    assert again == first


def test_the_libraries_are_the_zips(told: dict[str, Any], blender: Inside) -> None:
    """Not those of a Python that happens to be there."""
    for name, place in zip(("zmq", "msgpack"), told["wheels"], strict=True):
        assert Path(place).is_relative_to(blender.resources), place
        assert Path(place).parent.name == name
