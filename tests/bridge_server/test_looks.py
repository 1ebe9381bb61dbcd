from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge_server import config, descriptor, looks
from bridge_server.config import Config
from bridge_server.request import from_table
from fresco.errors import InvalidInput


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return replace(config.load({}), settings_file=tmp_path / "ü" / "config.toml")


def write(settings: Config, text: str) -> None:
    file = looks.user_file(settings)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_every_shipped_look_makes_a_request(settings: Config) -> None:
    shipped = looks.load(settings)
    assert len(shipped) > 10
    for look in shipped.values():
        table = descriptor.to_request({"Source": "a.mov", **look.values})
        assert from_table(table).clip == "a.mov"
        assert look.title[0].isupper()
        assert look.table()["values"] == look.values


def test_the_users_looks_are_added_and_win(settings: Config) -> None:
    write(
        settings,
        '[mine]\ntitle = "Mine"\nvalues = { prompt = "ink", strength = 1, auto_strength = false }\n'
        '[watercolour]\nvalues = { prompt = "aquarelle" }\n',
    )
    every = looks.load(settings)
    assert every["mine"].values["strength"] == 1
    assert every["watercolour"].values == {"prompt": "aquarelle"}
    assert every["watercolour"].title == "watercolour"
    assert "neon-night" in every


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[mine", "is not TOML"),
        ("mine = 3", r"\[mine\]: must be a table"),
        ("[Mine]", "a name is lower-case"),
        ("[mine]\nprompt = 'x'", "no field 'prompt'; use title and values"),
        ("[mine]\ntitle = 3", "title: 3 cannot be"),
        ("[mine]\nvalues = 3", "values: 3 cannot be"),
        ("[mine.values]\npromt = 'x'", "promt is no parameter"),
        ("[mine.values]\nprompt = 3", "prompt: 3 cannot be; use a text"),
        ("[mine.values]\nsampler = 'fast'", "sampler: 'fast' cannot be; use one of ddpm"),
        ("[mine.values]\nkeyframe_mode = 'no'", "keyframe_mode: 'no' cannot be; use one of auto"),
        ("[mine.values]\nstrength = 1.5", "strength: 1.5 cannot be; use 0.0 to 1.0"),
        ("[mine.values]\nstylise = true", "stylise is nothing that a look can set"),
        ("[mine.values]\nstatus = 'x'", "status is nothing that a look can set"),
    ],
)
def test_mistakes_are_named_with_their_place(settings: Config, text: str, reason: str) -> None:
    write(settings, text)
    with pytest.raises(InvalidInput, match=rf"presets\.toml.*{reason}"):
        looks.load(settings)
