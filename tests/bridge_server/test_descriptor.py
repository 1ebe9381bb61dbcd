from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server import descriptor
from bridge_server.descriptor import BINDINGS, HOST_ONLY, to_request, to_values
from bridge_server.media.formats import PROFILES
from bridge_server.parameters import PARAMETERS, Kind, Parameter
from bridge_server.request import (
    CHANGES,
    GATES,
    HDR,
    LOSSES,
    PROPAGATIONS,
    Change,
    ControlChoice,
    Keyframes,
    LoraChoice,
    Method,
    PictureChoice,
    Request,
    from_table,
)
from fresco.control import ESTIMATORS
from fresco.errors import InvalidInput
from fresco.samplers import SAMPLERS, presets
from tests.bridge_server.test_request import FULL

NAME = st.from_regex(r"[A-Za-z][\w.-]{0,8}", fullmatch=True)
SHARE = st.floats(0, 1)
TEXT = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=20)
PICTURES = st.builds(PictureChoice, NAME, st.tuples(NAME), SHARE)
FRAMES = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(sorted)
#: What may be said of each.
VALUES = {
    "prompt": TEXT,
    "negative": TEXT,
    "strength": st.floats(0, 1).map(str),
    "seed": st.integers(0, 2**31 - 1).map(str),
    "painted": TEXT.filter(bool),
}
CHANGE = st.sampled_from(CHANGES).flatmap(
    lambda what: st.builds(Change, st.integers(0, 999), st.just(what), VALUES[what])
)
METHOD = st.builds(
    Method,
    spatial=st.none() | st.booleans(),
    temporal_until=st.none() | SHARE,
    iterations=st.none() | st.integers(0, 1000),
    spatial_weight=st.none() | st.floats(0, 1000),
    smooth_at=st.none() | st.lists(SHARE, max_size=3).map(tuple),
    repeat_step_noise=st.none() | st.booleans(),
)
REQUESTS = st.builds(
    Request,
    clip=NAME,
    prompt=TEXT,
    negative=TEXT,
    output=TEXT,
    model=NAME,
    vae=TEXT,
    preset=st.sampled_from(["", *presets()]),
    loras=st.lists(st.builds(LoraChoice, NAME, st.floats(-2, 2)), max_size=2).map(tuple),
    controls=st.just((ControlChoice("none"),))
    | st.lists(st.builds(ControlChoice, NAME, SHARE, NAME | st.just("")), max_size=3).map(tuple),
    pictures=st.lists(st.builds(PictureChoice, NAME, st.tuples(NAME), SHARE), max_size=2).map(
        tuple
    ),
    embeddings=st.lists(NAME, max_size=2).map(tuple),
    clip_skip=st.integers(1, 12),
    sampler=st.sampled_from(["", *SAMPLERS]),
    steps=st.none() | st.integers(1, 99),
    guidance=st.none() | st.floats(0.1, 20),
    strength=st.none() | SHARE,
    seed=st.integers(0, 2**31 - 1),
    keyframes=st.sampled_from(["auto", "auto:3-9"])
    | st.integers(1, 99).map("every:{}".format)
    | FRAMES.map(lambda frames: ",".join(map(str, dict.fromkeys(frames)))),
    cuts=st.sampled_from(["auto", "none", "5,96"]),
    shared_style=st.booleans(),
    batch=st.integers(3, 30),
    start=st.integers(0, 9),
    stop=st.none() | st.integers(10, 99),
    handles=st.integers(0, 9),
    rate=st.sampled_from(["", "24", "30000/1001"]),
    size=st.none() | st.integers(64, 999),
    mask=TEXT,
    feather=st.floats(0, 100),
    subject=TEXT,
    changes=st.lists(CHANGE, max_size=2, unique_by=lambda change: (change.frame, change.what)).map(
        tuple
    ),
    tracks=st.lists(
        CHANGE.filter(lambda change: change.what != "painted"),
        max_size=3,
        unique_by=lambda change: (change.frame, change.what),
    ).map(tuple),
    method=METHOD,
    propagation=st.sampled_from(PROPAGATIONS),
    preserve_colour=st.booleans(),
    codec=st.sampled_from(["", *PROFILES]),
    hdr=st.sampled_from(HDR),
    accept=st.lists(st.sampled_from(LOSSES), unique=True).map(
        lambda found: tuple(loss for loss in LOSSES if loss in found)
    ),
    until=st.sampled_from(GATES),
    overwrite=st.booleans(),
)


def meant(request: Request) -> Request:
    """With keyframes as they are read."""
    return replace(request, keyframes=str(Keyframes.parse(request.keyframes)))


def test_the_committed_file_is_the_descriptor() -> None:
    assert descriptor.FILE.read_text(encoding="utf-8") == descriptor.written(), (
        "run python -m bridge_server.descriptor"
    )
    assert descriptor.load() == json.loads(descriptor.written())


def test_every_field_of_a_request_can_be_set() -> None:
    method = {f"method.{each.name}" for each in fields(Method)}
    wanted = {each.name for each in fields(Request)} - {"method"} | method
    clips = {clip["field"] for clip in descriptor.to_table()["clips"]} - {""}
    found = [binding.field for binding in BINDINGS]
    assert {*found, *clips} == wanted
    assert len(found) == len(set(found))


def test_every_parameter_sets_a_field_or_is_the_hosts() -> None:
    bound = [name for binding in BINDINGS for name in binding.names]
    assert len(bound) == len(set(bound))
    assert set(bound) | HOST_ONLY == set(PARAMETERS)
    assert {
        *("stylise", "approve", "cancel", "refresh", "status"),
        *("mode", "job_id", "generation"),
    } == HOST_ONLY


@given(REQUESTS)
def test_a_request_survives_the_interface(request: Request) -> None:
    back = from_table(to_request(to_values(request)))
    expected = meant(request)
    # A switch at its usual value says the same as one that is left open.
    assert replace(back, method=Method(), keyframes=str(Keyframes.parse(back.keyframes))) == (
        replace(expected, method=Method())
    )
    usual = usual_method()
    assert {**usual, **back.method.said()} == {**usual, **request.method.said()}


def usual_method() -> dict[str, Any]:
    from fresco.schedule import Settings

    names = {each.name for each in fields(Method)} - {"temporal_until", "repeat_step_noise"}
    return {name: getattr(Settings(), name) for name in names}


def test_the_full_example_survives() -> None:
    back = from_table(to_request(to_values(FULL)))
    assert back == FULL


#: What a parameter means something beside.
BESIDE: dict[str, dict[str, Any]] = {
    "keyframe_shortest": {"keyframe_longest": PARAMETERS["keyframe_shortest"].high},
    "control_scale": {"control": "canny"},
    "more_controls": {"control": "canny"},
}


def other(parameter: Parameter) -> Any:
    """Another value than the default."""
    special = {"keyframe_list": "0, 24", "cut_list": "96", "smooth_steps": "0.5", "rate": "25"}
    lines = {"more_controls": "depth:0.5", "pictures": "a:0.5=b.png", "changes": "seed@3=4"}
    lines["tracks"] = "strength@3=0.5"
    named = {**special, **lines, "loras": "ink:0.5"}
    if parameter.name in named:
        return named[parameter.name]
    if parameter.kind is Kind.CHOICE:
        choices = parameter.choices if isinstance(parameter.choices, tuple) else parameter.choices()
        return next(
            choice.key for choice in choices if choice.key not in (parameter.default, "list")
        )
    if parameter.kind is Kind.BOOLEAN:
        return not parameter.default
    if parameter.kind is Kind.STRING:
        return "other"
    return parameter.high


@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - HOST_ONLY))
def test_each_parameter_reaches_its_field_and_comes_back(name: str) -> None:
    parameter = PARAMETERS[name]
    values: dict[str, Any] = {"Source": "a.mov", name: other(parameter)}
    if parameter.enabled_when is not None:
        values[parameter.enabled_when[0]] = parameter.enabled_when[1]
    (field,) = [binding.field for binding in BINDINGS if name in binding.names]
    top = field.partition(".")[0]
    values |= BESIDE.get(name, {})
    request = from_table(to_request(values))
    assert getattr(request, top) != getattr(Request("a.mov"), top) or name == "auto_strength"
    back = to_values(request)
    expected = {"keyframe_list": "0,24"}.get(name, values[name])
    if name.startswith("auto_"):  # the number beside it is what counts
        assert back[name] is False
    assert back[name] == expected


def test_what_is_not_given_is_left_out() -> None:
    assert to_request({"Source": "a.mov"}) == {"clip": "a.mov"}
    assert to_request({"Source": "a.mov", "Mask": "", "prompt": "snow"}) == {
        "clip": "a.mov",
        "prompt": "snow",
    }
    defaults = {name: each.default for name, each in PARAMETERS.items() if name not in HOST_ONLY}
    everything = from_table(to_request({"Source": "a.mov", **defaults}))
    assert meant(everything) == Request("a.mov")


def test_lists_may_be_given_as_lists() -> None:
    table = to_request(
        {
            "Source": "a",
            "changes": [{"frame": 3, "what": "prompt", "value": "a\nb"}],
            "loras": ["x"],
            "tracks": ["strength@48=0.5", {"frame": 60, "what": "seed", "value": "2"}],
        }
    )
    assert from_table(table).tracks == (Change(48, "strength", "0.5"), Change(60, "seed", "2"))
    assert from_table(table).changes == (Change(3, "prompt", "a\nb"),)
    assert from_table(table).loras == (LoraChoice("x"),)


def test_lines_of_windows_and_continued_ones() -> None:
    told = "prompt@3=one\r\n two\r\n\r\nseed@4=5\r\n"
    request = from_table(to_request({"Source": "a", "changes": told}))
    assert request.changes == (Change(3, "prompt", "one\ntwo"), Change(4, "seed", "5"))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"promt": "x"}, "promt is no parameter"),
        ({"Output": "x"}, "Output is no parameter"),
        ({"prompt": 3}, "prompt: 3 cannot be; use a text"),
        ({"prompt": ["x"]}, "prompt: .* cannot be; use a text"),
        ({"Source": 3}, "Source: 3 cannot be"),
        ({"seed": 1.5}, "seed: 1.5 cannot be; use a whole number"),
        ({"seed": True}, "seed: True cannot be"),
        ({"spatial": 1}, "spatial: 1 cannot be; use true or false"),
        ({"stylise": True}, "stylise: True cannot be; use no value"),
        ({"keyframe_mode": "often"}, "keyframe_mode: 'often' cannot be; use one of auto, every"),
        ({"control": "none", "more_controls": "depth"}, "control is none, and yet"),
        ({"smooth_steps": "soon"}, "smooth_steps: 'soon' cannot be"),
    ],
)
def test_values_that_cannot_be_are_named(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        to_request(values)


def test_choices_are_those_of_the_modules_that_know_them() -> None:
    table = {each["name"]: each for each in descriptor.load()["parameters"]}

    def keys(name: str) -> list[str]:
        return [choice["key"] for choice in table[name]["choices"]]

    assert keys("sampler") == ["", *SAMPLERS]
    assert keys("preset") == ["", *presets()]
    assert keys("control") == ["auto", "none", *ESTIMATORS]
    assert keys("codec") == ["", *PROFILES]
    assert (keys("until"), keys("hdr"), keys("propagation")) == (
        list(GATES),
        list(HDR),
        list(PROPAGATIONS),
    )


def test_the_table_is_as_openfx_wants_it() -> None:
    table = descriptor.load()
    parameters = {each["name"]: each for each in table["parameters"]}
    groups = {each["name"]: each["children"] for each in table["groups"]}
    assert table["contexts"][0] == "Filter"
    assert [page["label"] for page in table["pages"]] == [
        *("Style", "Structure", "Keyframes", "FRESCO", "Output")
    ]
    on_pages = [
        name for page in table["pages"] for group in page["children"] for name in groups[group]
    ]
    assert sorted(on_pages) == sorted(parameters)
    names = [*parameters, *groups, *(page["name"] for page in table["pages"])]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)
    animated = {name for name, each in parameters.items() if each.get("animates")}
    assert animated == {"prompt", "strength", "seed"}
    for each in parameters.values():
        if each["type"] in ("Double", "Integer"):
            assert each["min"] <= each["displayMin"] < each["displayMax"] <= each["max"]
            assert each["min"] <= each["default"] <= each["max"]
            assert each["type"] == "Double" or -(2**31) <= each["min"] <= each["max"] < 2**31
        if each["type"] == "Choice":
            assert each["default"] in [choice["key"] for choice in each["choices"]]
        if each["type"] == "String":
            assert each["stringMode"] in ("SingleLine", "MultiLine", "FilePath")


def test_people_can_read_it() -> None:
    for each in PARAMETERS.values():
        assert each.label[0].isupper(), each.name
        assert each.hint.endswith(".") or ":" in each.hint, each.name  # a sentence, or an example
        assert 15 < len(each.hint) < 200, each.name
        assert len(each.label) <= 32, each.name
        assert each.enabled_when is None or each.enabled_when[0] in PARAMETERS


def test_values_are_read_without_the_method() -> None:
    """The server's loop reads them; it must not wait for torch."""
    code = (
        "from bridge_server import descriptor, looks, config; descriptor.load()\n"
        "descriptor.to_request({'Source': 'a', 'sampler': 'ddim'}); looks.load(config.load({}))\n"
        "import sys; assert not {'torch', 'diffusers', 'av', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_choices_of_slow_modules_are_left_to_them() -> None:
    table = to_request({"Source": "a", "codec": "from a newer version"})
    assert from_table(table).codec == "from a newer version"
    with pytest.raises(InvalidInput, match="until"):
        from_table(to_request({"Source": "a", "until": "never"}))
