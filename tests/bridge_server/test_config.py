from __future__ import annotations

from pathlib import Path

import pytest

from bridge_server import config
from bridge_server.config import HUB, Config
from fresco.errors import InvalidInput


def load(tmp_path: Path, text: str = "", **environ: str) -> Config:
    if text:
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    return config.load({config.HOME: str(tmp_path), **environ})


def test_home_holds_everything(tmp_path: Path) -> None:
    settings = load(tmp_path)
    files = [settings.settings_file, settings.catalogue_file, settings.lock_file, settings.folder]
    assert [path.name for path in files] == ["config.toml", "models.toml", "models.lock", "models"]
    assert {path.parent for path in files} == {tmp_path}


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.endpoint, settings.sends_token) == (HUB, True)
    assert (settings.offline, settings.forbidden) == (True, "")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HF_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_the_models_folder_is_the_cache_that_others_use(
    environ: dict[str, str], folder: str
) -> None:
    assert config.load(environ).folder == Path(folder).expanduser()


def test_how_a_server_runs(tmp_path: Path) -> None:
    assert load(tmp_path).server == config.ServerSettings()
    text = (
        '[server]\nlisten = "tcp://0.0.0.0:7420"\nloopback = true\nclients = ["a"]\n'
        'roots = ["/films", "~/x"]\ndevices = ["cpu"]\nthreads = 3\nhang = 60\n'
    )
    told = load(tmp_path, text).server
    assert (told.listen, told.loopback, told.clients) == ("tcp://0.0.0.0:7420", True, ("a",))
    assert told.roots == (Path("/films"), Path.home() / "x")
    assert (told.devices, told.threads, told.hang) == (("cpu",), 3, 60)


@pytest.mark.parametrize(
    "text",
    [
        "server = 1",
        "[server]\nport = 1",
        "[server]\nlisten = 7420",
        "[server]\nloopback = 1",
        '[server]\nclients = "a"',
        "[server]\nclients = [1]",
        '[server]\nroots = ["films"]',
        '[server]\nroots = [""]',
        "[server]\nthreads = true",
        "[server]\nthreads = -1",
        "[server]\nhang = 0",
        "[server]\nhang = nan",
    ],
)
def test_a_server_that_cannot_be(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="server"):
        load(tmp_path, text)


def test_what_beats_what(tmp_path: Path) -> None:
    text = '[models]\nmirror = "https://m.example/"\nfolder = "/from/file"\noffline = false\n'
    settings = load(tmp_path, text, HF_ENDPOINT="https://h.example", HF_HUB_CACHE="/cache")
    assert (settings.endpoint, settings.sends_token) == ("https://m.example", False)
    assert (settings.folder, settings.offline) == (Path("/from/file"), False)

    over = load(
        tmp_path,
        FRESCO_BRIDGE_MIRROR="http://e.example:81",
        FRESCO_BRIDGE_MODELS="/from/env",
        FRESCO_BRIDGE_OFFLINE="yes",
    )
    assert (over.endpoint, over.sends_token) == ("http://e.example:81", False)
    assert (over.folder, over.offline) == (Path("/from/env"), True)

    assert over.through("https://once.example").endpoint == "https://once.example"


def test_the_users_own_hub_gets_the_users_token(tmp_path: Path) -> None:
    settings = load(tmp_path, HF_ENDPOINT="https://hub.example/")
    assert (settings.endpoint, settings.sends_token) == ("https://hub.example", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[models", "config.toml is not TOML"),
        ("models = 1", "must be a table"),
        ('[models]\nmirrors = "x"', r"\[models\]: there is no setting 'mirrors'; use one of"),
        ("[models]\noffline = 1", r"offline: 1 cannot be; write true or false"),
        ('[models]\nmirror = "hf-mirror.example"', "no web address; write https"),
        ('[models]\nmirror = "file:///x"', "no web address"),
        ('[models]\nmirror = "https://host:port"', "no web address"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        load(tmp_path, text)


def test_a_flag_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="FRESCO_BRIDGE_OFFLINE is 'maybe'; set it to 1 or 0"):
        load(tmp_path, FRESCO_BRIDGE_OFFLINE="maybe")


def test_the_budget_of_the_store(tmp_path: Path) -> None:
    assert load(tmp_path).store_budget is None
    assert load(tmp_path, 'store_budget = "20 GB"\n').store_budget == 20 * 10**9
    assert load(tmp_path, "store_budget = 12345\n[models]\noffline = false\n").store_budget == 12345
    assert load(tmp_path, FRESCO_BRIDGE_STORE_BUDGET="1.5 TiB").store_budget == 3 * 2**39
    assert load(tmp_path, FRESCO_BRIDGE_STORE_BUDGET="0").store_budget == 0
    assert load(tmp_path, FRESCO_BRIDGE_STORE_BUDGET="").store_budget == 12345


@pytest.mark.parametrize(
    ("told", "bytes_"),
    [(7, 7), ("7", 7), ("7B", 7), ("0.5 kB", 500), ("2 kib", 2048), (" 3 MB ", 3_000_000)],
)
def test_sizes(told: str | int, bytes_: int) -> None:
    assert config.parse_size(told, "here") == bytes_


@pytest.mark.parametrize(
    "told", ["", "-1", -1, "1e9", "20 G", "twenty GB", True, 1.5, None, "1 ib"]
)
def test_what_is_no_size(told: object) -> None:
    with pytest.raises(InvalidInput, match=r'here: .* is no size; write "20 GB"'):
        config.parse_size(told, "here")


def test_a_budget_that_is_none_says_where(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"config\.toml, store_budget: 'much' is no size"):
        load(tmp_path, 'store_budget = "much"')
