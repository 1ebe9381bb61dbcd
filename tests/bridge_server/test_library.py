from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_server import additions, catalogue, config, downloads, library
from bridge_server.catalogue import Entry, Role
from bridge_server.config import Config
from bridge_server.errors import NotAsPinned
from bridge_server.library import State, locate
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput, MissingWeights
from tests.bridge_server.conftest import REPOSITORY, WEIGHTS
from tests.bridge_server.hub_server import HubServer


def test_what_is_missing_is_named_with_its_command_and_no_request_is_made(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    for name, role in [("sd15", Role.BASE), ("lcm-lora-sd15", None), (REPOSITORY, Role.LORA)]:
        words = f"{name} --role lora" if name == REPOSITORY else name
        with pytest.raises(MissingWeights, match=f"`fresco-bridge models download {words}`"):
            locate(name, role, settings=replace(settings, offline=False))
    assert hub.requests == []


def test_nothing_is_asked_of_the_hub_when_it_is_here(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    downloads.download(catalogue.load(settings).find(REPOSITORY, Role.LORA), settings)
    hub.requests.clear()
    folder = locate(REPOSITORY, Role.LORA, settings=settings)
    assert (folder / WEIGHTS).read_bytes() == weights
    assert locate(REPOSITORY, subset=WEIGHTS, settings=settings) == folder / WEIGHTS
    assert hub.requests == []
    for subset in ("vae", "../x", f"../{folder.name}"):
        with pytest.raises(MissingWeights, match="has no"):
            locate(REPOSITORY, subset=subset, settings=settings)


def test_a_model_of_one_file_is_that_file(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    name = f"{REPOSITORY}:{WEIGHTS}"
    downloads.download(catalogue.load(settings).find(name, Role.LORA), settings)
    assert locate(name, Role.LORA, settings=settings).read_bytes() == weights


def test_a_file_that_went_missing_or_short(hub: HubServer, entry: Entry, settings: Config) -> None:
    downloads.download(entry, settings)
    path = library.find(entry, settings).root / WEIGHTS
    path.resolve().write_bytes(b"short")
    with pytest.raises(NotAsPinned, match="--repair"):
        library.find(entry, settings)
    path.unlink()
    with pytest.raises(MissingWeights, match=r"not complete.*model\.safetensors"):
        library.find(entry, settings)
    states = {checked.file: checked.state for checked in library.verify(entry, settings)}
    assert states == {WEIGHTS: State.MISSING, "config.json": State.GOOD}
    downloads.download(entry, settings, downloads.Wish(repair=True))
    assert library.find(entry, settings).pinned


def test_verify_sees_one_changed_bit(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    downloads.download(entry, settings)
    path = library.find(entry, settings).root / WEIGHTS
    path.resolve().write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    states = {checked.file: checked.state for checked in library.verify(entry, settings)}
    assert states == {WEIGHTS: State.CHANGED, "config.json": State.GOOD}


def test_verify_can_be_stopped(hub: HubServer, entry: Entry, settings: Config) -> None:
    downloads.download(entry, settings)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        library.verify(entry, settings, token)


def test_a_pipeline_that_another_program_fetched_in_part_is_missing(settings: Config) -> None:
    snapshot = settings.folder / "models--painter--styles" / "snapshots" / ("a" * 40)
    index = {
        "_class_name": "P",
        "unet": ["d", "U"],
        "vae": ["d", "V"],
        "safety_checker": ["x", "y"],
    }
    write(snapshot / "model_index.json", json.dumps(index).encode())
    write(snapshot / "unet" / "model.safetensors", b"u")
    with pytest.raises(MissingWeights):
        locate(REPOSITORY, settings=settings)
    write(snapshot / "vae" / "model.safetensors", b"v")
    assert locate(REPOSITORY, settings=settings) == snapshot


def test_of_several_revisions_the_one_that_main_was(settings: Config) -> None:
    root = settings.folder / "models--painter--styles"
    for commit in ("a" * 40, "b" * 40, "c" * 40):
        write(root / "snapshots" / commit / WEIGHTS, b"w")
    write(root / "refs" / "main", b"b" * 40)
    assert locate(REPOSITORY, settings=settings).parent.name == "b" * 40


# ------------------------------------------------------------------------------ local files


def test_local_files_and_folders_are_taken_as_they_are(tmp_path: Path, settings: Config) -> None:
    file = write(tmp_path / "mit Leerzeichen" / "ü.safetensors", b"w")
    assert locate(str(file), Role.LORA, settings=settings) == file
    assert locate(str(file.parent), Role.BASE, settings=settings) == file.parent
    with pytest.raises(MissingWeights, match="correct the path"):
        locate(str(tmp_path / "no.safetensors"), settings=settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"no \.safetensors file"):
        locate(str(tmp_path / "empty"), Role.BASE, settings=settings)


def test_paths_in_the_users_catalogue_count_from_it(settings: Config) -> None:
    file = write(settings.catalogue_file.parent / "looks" / "my.safetensors", b"w")
    write(settings.catalogue_file, b'[my-look]\nrole = "lora"\npath = "looks/my.safetensors"\n')
    assert locate("my-look", Role.LORA, settings=settings) == file
    file.unlink()
    with pytest.raises(MissingWeights, match="looks"):
        locate("my-look", Role.LORA, settings=settings)


def test_the_bundled_model(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "package_files", lambda _package: tmp_path)
    with pytest.raises(MissingWeights, match=r"come with the package.*reinstall"):
        locate("fresco-draft", Role.BASE, settings=settings)
    write(tmp_path / "data" / "draft" / "unet" / "m.safetensors", b"w")
    write(tmp_path / "data" / "draft" / "model_index.json", b"{}")
    assert locate("fresco-draft", Role.BASE, settings=settings) == tmp_path / "data" / "draft"


# ----------------------------------------------------------------------------------- pickles


@pytest.fixture
def annotator(hub: HubServer) -> Entry:
    hub.publish(REPOSITORY, {"net.pth": b"a pickle"})
    return Entry("net", "Net", Role.ANNOTATOR, "test", REPOSITORY, files=("net.pth",))


def test_a_pickle_is_handed_out_only_while_it_is_what_was_pinned(
    hub: HubServer, annotator: Entry, settings: Config
) -> None:
    text = f'[net]\nrole = "annotator"\nrepository = "{REPOSITORY}"\nfiles = ["net.pth"]\n'
    write(settings.catalogue_file, text.encode())
    downloads.download(annotator, settings)
    path = locate("net", Role.ANNOTATOR, settings=settings)
    assert path.read_bytes() == b"a pickle"
    path.resolve().write_bytes(b"A pickle")
    with pytest.raises(NotAsPinned, match="not what was downloaded"):
        locate("net", Role.ANNOTATOR, settings=settings)


def test_a_pickle_that_another_program_fetched_must_be_pinned_first(
    hub: HubServer, annotator: Entry, settings: Config
) -> None:
    import huggingface_hub

    huggingface_hub.hf_hub_download(
        REPOSITORY, "net.pth", cache_dir=settings.folder, endpoint=hub.endpoint
    )
    name = f"{REPOSITORY}:net.pth"
    with pytest.raises(NotAsPinned, match="another program fetched"):
        locate(name, Role.ANNOTATOR, settings=settings)
    hub.requests.clear()
    downloads.download(catalogue.load(settings).find(name, Role.ANNOTATOR), settings)
    assert [request.host for request in hub.requests] == ["files"], "only the listing is asked for"
    assert locate(name, Role.ANNOTATOR, settings=settings).read_bytes() == b"a pickle"


def test_a_pickle_of_the_users_own_is_pinned_when_it_is_added(
    tmp_path: Path, settings: Config
) -> None:
    path = write(tmp_path / "own.pth", b"a pickle")
    with pytest.raises(NotAsPinned, match=r"never pinned.*models add NAME"):
        locate(str(path), Role.ANNOTATOR, settings=settings)
    additions.add("own", str(path), {"role": "annotator"}, settings)
    assert locate("own", Role.ANNOTATOR, settings=settings) == path
    assert locate(str(path), Role.ANNOTATOR, settings=settings) == path

    path.write_bytes(b"A pickle")
    with pytest.raises(NotAsPinned, match="changed since it was added"):
        locate("own", Role.ANNOTATOR, settings=settings)
    assert [c.state for c in library.verify(catalogue.load(settings)["own"], settings)] == [
        State.CHANGED
    ]


@pytest.mark.parametrize("role", [None, Role.BASE, Role.LORA, Role.EMBEDDING])
def test_pickles_are_refused_for_diffusion(
    tmp_path: Path, settings: Config, role: Role | None
) -> None:
    path = write(tmp_path / "model.ckpt", b"a pickle")
    with pytest.raises(InvalidInput, match="is a pickle, which can run code"):
        locate(str(path), role, settings=settings)


# --------------------------------------------------------------------------------- additions


def test_adding_keeps_what_the_user_wrote(settings: Config, tmp_path: Path) -> None:
    write(settings.catalogue_file, b"# mine\n[sd15] # less\nrecommended = { steps = 9 }\n")
    file = write(tmp_path / "a.safetensors", b"w")
    additions.add("look", str(file), {"role": "lora", "title": 'A "look"'}, settings)
    additions.add("far", "painter/styles:b.safetensors", {"role": "lora"}, settings)
    text = settings.catalogue_file.read_text()
    assert text.startswith("# mine\n[sd15] # less\n")
    known = catalogue.load(settings)
    assert (known["look"].path, known["look"].title) == (str(file), 'A "look"')
    assert known["far"].files == ("b.safetensors",)

    additions.remove("look", settings)
    assert "look" not in catalogue.load(settings)
    assert file.exists()
    with pytest.raises(InvalidInput, match="only what you added can be removed"):
        additions.remove("taesd", settings)


@pytest.mark.parametrize(
    ("target", "fields", "says"),
    [
        ("./nowhere.safetensors", {"role": "lora"}, "nothing at"),
        ("nowhere", {"role": "lora"}, "neither a hub id"),
        ("painter/styles:x.pt", {"role": "lora"}, "is a pickle"),
        ("painter/styles", {"role": "controlnet"}, "control: is missing"),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    settings: Config, target: str, fields: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        additions.add("new", target, fields, settings)
    assert not settings.catalogue_file.exists()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_settings_are_read_when_none_are_given() -> None:
    write(config.load().catalogue_file, b"[x")
    with pytest.raises(InvalidInput, match="not TOML"):
        locate("sd15")
