from __future__ import annotations

import json
from typing import Any

from ui import effect

TABLE: dict[str, Any] = json.loads(effect.FILE.read_text())


def test_every_parameter_that_a_person_sets_is_on_a_page_once() -> None:
    wanted = {
        each["name"]
        for each in TABLE["parameters"]
        if each["type"] != "PushButton" and each["field"] and "hosts" not in each
    }
    names = [each.name for each in effect.shipped().parameters()]
    assert sorted(names) == sorted(wanted)
    assert all(each.label and each.hint for each in effect.shipped().parameters())


def test_pages_and_clips_are_the_descriptors() -> None:
    found = effect.shipped()
    assert [page.label for page in found.pages] == [each["label"] for each in TABLE["pages"]]
    assert all(group.parameters for page in found.pages for group in page.groups)
    clips = [each for each in TABLE["clips"] if each["name"] != "Output"]
    assert [(own.name, own.optional) for own in found.clips] == [
        (each["name"], each["optional"]) for each in clips
    ]


def test_only_what_differs_is_asked_for() -> None:
    found = effect.shipped()
    usual = {each.name: each.default for each in found.parameters()}
    usual |= {each.name: "" for each in found.clips}
    assert found.set_values(usual) == {}
    changed = usual | {"Source": "a.mov", "steps": 7, "cross_frame": False}
    assert found.set_values(changed) == {"Source": "a.mov", "steps": 7, "cross_frame": False}


def test_what_may_differ_from_keyframe_to_keyframe_is_known() -> None:
    animated = {each["name"] for each in TABLE["parameters"] if each.get("animates")}
    assert {each.name for each in effect.shipped().animated} == animated


def test_other_hosts_parameters_and_empty_groups_are_left_out() -> None:
    one = {"name": "a", "type": "Integer", "label": "A", "hint": "", "default": 1, "field": "a"}
    other_hosts = {**one, "name": "b", "hosts": ["openfx"]}
    its_own = {**one, "name": "c", "field": ""}
    table = {
        "id": "x",
        "clips": [],
        "parameters": [one, other_hosts, its_own],
        "groups": [
            {"name": "g", "label": "G", "children": ["a", "b"]},
            {"name": "h", "label": "H", "children": ["b", "c"]},
        ],
        "pages": [
            {"name": "p", "label": "P", "hint": "", "children": ["g", "h"]},
            {"name": "q", "label": "Q", "hint": "", "children": ["h"]},
        ],
    }
    (page,) = effect.read(table).pages
    assert [group.label for group in page.groups] == ["G"]
    assert [own.name for own in page.groups[0].parameters] == ["a"]
