from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from bridge_server import config, downloads, library
from bridge_server.cache import Storage
from bridge_server.catalogue import Entry, Licence, Role
from bridge_server.config import Config
from bridge_server.downloads import Progress, Wish, download
from bridge_server.errors import (
    CorruptDownload,
    DownloadFailed,
    LicenceNotAccepted,
    NotAsPinned,
    NotEnoughSpace,
)
from bridge_server.lock import Lock, Pinned
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput, MissingWeights
from tests.bridge_server.conftest import REPOSITORY, WEIGHTS, make_entry
from tests.bridge_server.hub_server import HubServer, git_blob, hub_server, sha256


def transfers(hub: HubServer) -> list[str]:
    """The ranges that were asked for of the weights, in order."""
    return [r.range for r in hub.requests if r.host == "store" and r.path.endswith(WEIGHTS)]


def parts(settings: Config) -> list[Path]:
    return list(settings.folder.rglob("*.part"))


def test_brings_what_is_needed_verified_and_pinned(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    locked = download(entry, settings)

    assert locked == Lock(settings.lock_file).get("styles")
    assert locked.revision == next(iter(hub.repositories[REPOSITORY]))
    assert dict(locked.files) == {
        WEIGHTS: Pinned(len(weights), sha256(weights)),
        "config.json": Pinned(2, sha256(b"{}")),
    }
    folder = library.locate("painter/styles:model.safetensors", Role.LORA, settings=settings).parent
    assert (folder / WEIGHTS).read_bytes() == weights
    assert not (folder / "README.md").exists()
    assert parts(settings) == []


def test_other_programs_find_it_in_the_shared_cache(entry: Entry, settings: Config) -> None:
    locked = download(entry, settings)
    folder = huggingface_hub.snapshot_download(
        REPOSITORY, cache_dir=settings.folder, local_files_only=True
    )
    assert Path(folder).name == locked.revision
    found = huggingface_hub.try_to_load_from_cache(REPOSITORY, WEIGHTS, cache_dir=settings.folder)
    assert Path(str(found)).exists()
    report = huggingface_hub.scan_cache_dir(settings.folder)
    assert not report.warnings
    assert {repo.repo_id: repo.nb_files for repo in report.repos} == {REPOSITORY: 2}


def test_what_another_program_fetched_is_found_verified_and_not_fetched_again(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    for file in (WEIGHTS, "config.json"):
        huggingface_hub.hf_hub_download(
            REPOSITORY, file, cache_dir=settings.folder, endpoint=hub.endpoint
        )
    hub.requests.clear()
    found = library.find(entry, settings)
    assert not found.pinned
    assert {checked.state for checked in library.verify(entry, settings)} == {library.State.GOOD}
    assert hub.requests == []

    download(entry, settings)
    assert transfers(hub) == []
    assert library.find(entry, settings).pinned


def test_a_file_changed_under_its_name_in_the_cache_is_seen(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    for file in (WEIGHTS, "config.json"):
        path = huggingface_hub.hf_hub_download(
            REPOSITORY, file, cache_dir=settings.folder, endpoint=hub.endpoint
        )
        Path(path).write_bytes(b"other")
    states = {checked.file: checked.state for checked in library.verify(entry, settings)}
    assert states == {WEIGHTS: library.State.CHANGED, "config.json": library.State.CHANGED}


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    hub.faults.break_after = [200_000, 150_000]
    locked = download(entry, settings)
    assert transfers(hub) == ["", "bytes=200000-", "bytes=350000-"]
    assert hub.bytes_sent() == len(weights)
    assert locked.files[WEIGHTS].sha256 == sha256(weights)


def test_a_connection_that_breaks_often_but_brings_something_is_not_given_up(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    hub.faults.break_after = [50_000] * 10
    download(entry, settings)
    assert len(transfers(hub)) == 11
    assert hub.bytes_sent() == len(weights)


def test_progress_in_bytes_never_goes_back(hub: HubServer, entry: Entry, settings: Config) -> None:
    hub.faults.break_after = [200_000]
    seen: list[Progress] = []
    locked = download(entry, settings, on_progress=seen.append)
    done = [progress.done for progress in seen]
    total = sum(pinned.size for pinned in locked.files.values())
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert {progress.total for progress in seen} == {total}
    assert any(0 < count < total for count in done)
    assert {progress.file for progress in seen} == {WEIGHTS, "config.json"}


def test_a_connection_that_stays_broken_is_given_up_and_continued_by_the_next_run(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    hub.faults.break_after = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="goes on from there"):
        download(entry, settings)
    assert [part.stat().st_size for part in parts(settings)] == [100_000]
    with pytest.raises(MissingWeights, match="fresco-bridge models download styles"):
        library.find(entry, settings)

    hub.requests.clear()
    download(entry, settings)
    assert transfers(hub) == ["bytes=100000-"]
    assert hub.bytes_sent() == len(weights) - 100_000


def test_a_server_that_ignores_ranges_is_listened_to_from_the_start(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    hub.faults.break_after = [200_000]
    hub.faults.no_ranges = True
    assert download(entry, settings).files[WEIGHTS].sha256 == sha256(weights)
    assert hub.bytes_sent() == 200_000 + len(weights)


def test_errors_that_pass_are_waited_for(hub: HubServer, entry: Entry, settings: Config) -> None:
    hub.faults.refuse = [(503, ""), (429, "")]
    download(entry, settings)
    assert len(hub.requests) > 2


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def lengthened(content: bytes) -> bytes:
    return content + b"more"


@pytest.mark.parametrize("spoil", [flipped, lengthened])
def test_corrupt_files_are_never_put_where_they_would_be_used(
    hub: HubServer, entry: Entry, settings: Config, spoil: Callable[[bytes], bytes]
) -> None:
    hub.faults.spoil = spoil
    with pytest.raises(CorruptDownload, match="another content than its hash says"):
        download(entry, settings)
    assert transfers(hub) == ["", ""], "it is tried once more"
    assert not list(settings.folder.rglob(WEIGHTS))
    assert parts(settings) == []
    assert Lock(settings.lock_file).read() == {}
    with pytest.raises(MissingWeights):
        library.find(entry, settings)

    hub.faults.spoil = None
    download(entry, settings)
    assert library.find(entry, settings).pinned


def test_a_file_that_is_too_short_is_not_taken(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    hub.faults.spoil = lambda content: content[:-1000]
    with pytest.raises(DownloadFailed, match="1000 bytes early"):
        download(entry, settings)
    assert not list(settings.folder.rglob(WEIGHTS))


def test_a_spoilt_part_of_an_earlier_run_is_thrown_away(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    part = Storage(settings.folder, REPOSITORY).part(sha256(weights))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    assert download(entry, settings).files[WEIGHTS].sha256 == sha256(weights)
    assert transfers(hub) == ["bytes=1000-", ""]


def test_small_files_are_checked_by_gits_hash(
    hub: HubServer, entry: Entry, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = next(iter(hub.repositories[REPOSITORY]))
    blob = Storage(settings.folder, REPOSITORY).blob(git_blob(b"{}"))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"[]")
    with pytest.raises(NotAsPinned, match="not the file"):
        download(entry, settings)
    assert blob.read_bytes() == b"[]", "nothing of the user's is changed unasked"
    locked = download(entry, settings, Wish(repair=True))
    assert (locked.revision, blob.read_bytes()) == (commit, b"{}")


def test_a_hub_without_hashes_is_asked_file_by_file(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    hub.faults.no_hashes = True
    assert download(entry, settings).files[WEIGHTS].sha256 == sha256(weights)
    asked = {request.path.split("/")[-1] for request in hub.requests if request.method == "HEAD"}
    assert asked == {WEIGHTS, "config.json"}
    hub.faults.spoil = flipped
    elsewhere = replace(settings, folder=settings.folder / "other")
    with pytest.raises(CorruptDownload):
        download(replace(entry, name="same"), elsewhere)


def test_a_hash_that_is_a_path_writes_nothing_outside(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes, tmp_path: Path
) -> None:
    hub.faults.hash_all = "../../../../escaped"
    download(entry, settings)
    assert library.find(entry, settings).pinned
    assert not list(tmp_path.rglob("escaped*"))


# ------------------------------------------------------------------------------------- space


def test_no_space_is_said_before_anything_is_fetched(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(settings.settings_file.parents[1])
    free = len(weights) + downloads.SPARE
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free))
    with pytest.raises(NotEnoughSpace, match=r"2 MB are needed, 2 MB free.*folder"):
        download(entry, settings)
    assert transfers(hub) == []

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free + 2))
    download(entry, settings)


def test_what_arrived_of_a_file_needs_no_space_again(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.break_after = [500_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        download(entry, settings)
    usage = shutil.disk_usage(settings.folder)
    free = downloads.SPARE + len(weights) - 500_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free - 1))
    with pytest.raises(NotEnoughSpace):
        download(entry, settings)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free))
    download(entry, settings)


def test_what_is_there_already_needs_no_space(
    hub: HubServer, entry: Entry, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    download(entry, settings)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0))
    before = library.find(entry, settings)
    download(entry, settings)
    assert library.find(entry, settings) == before
    assert before.pinned


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A real file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small(
    hub: HubServer, entry: Entry, settings: Config, tiny_disk: Path
) -> None:
    with pytest.raises(NotEnoughSpace, match="1 MB free"):
        download(entry, replace(settings, folder=tiny_disk / "models"))
    assert transfers(hub) == []


def test_a_disk_that_fills_up_meanwhile(
    hub: HubServer,
    entry: Entry,
    settings: Config,
    tiny_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: bytes,
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 40))
    full = replace(settings, folder=tiny_disk)
    with pytest.raises(NotEnoughSpace, match="filled up"):
        download(entry, full)
    kept = parts(full)[0].stat().st_size
    assert 100_000 < kept < len(weights)
    subprocess.run(["mount", "-o", "remount,size=4m", str(tiny_disk)], check=True)
    hub.requests.clear()
    assert download(entry, full).files[WEIGHTS].sha256 == sha256(weights)
    assert transfers(hub) == [f"bytes={kept}-"]


# ----------------------------------------------------------------------- refusals of the hub


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "GatedRepo", "accept its terms at http.*hf auth login"),
        (403, "GatedRepo", "accept its terms at"),
        (401, "RepoNotFound", "shows no repository painter/styles"),
        (401, "", "shows no repository painter/styles"),
        (403, "", "shows no repository"),
        (404, "RevisionNotFound", "no revision 'main'"),
        (404, "EntryNotFound", "not there"),
        (418, "", "status 418"),
    ],
)
def test_refusals_say_what_to_do(
    hub: HubServer, entry: Entry, settings: Config, status: int, code: str, says: str
) -> None:
    hub.faults.refuse = [(status, code)]
    with pytest.raises(DownloadFailed, match=says):
        download(entry, settings)
    assert len(hub.requests) == 1, "asking again would not help"


def test_a_file_that_is_listed_but_missing(hub: HubServer, entry: Entry, settings: Config) -> None:
    commit = next(iter(hub.repositories[REPOSITORY]))

    def vanish(progress: Progress) -> None:
        hub.repositories[REPOSITORY][commit].pop(WEIGHTS, None)

    with pytest.raises(DownloadFailed, match="is not there at"):
        download(entry, settings, on_progress=vanish)


def test_a_server_that_is_down(entry: Entry, settings: Config) -> None:
    with pytest.raises(DownloadFailed, match=r"connection to http://127.0.0.1:9 failed.*mirror"):
        download(entry, settings.through("http://127.0.0.1:9"))


def test_an_address_that_is_no_hub(hub: HubServer, entry: Entry, settings: Config) -> None:
    with pytest.raises(DownloadFailed, match="shows no repository"):
        download(entry, settings.through(hub.endpoint + "/elsewhere"))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_variables_that_forbid_the_network_are_obeyed(
    hub: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadFailed, match=f"{variable} is set"):
        download(entry, config.load().through(hub.endpoint))
    assert hub.requests == []


def test_the_library_that_was_loaded_offline_says_so(
    hub: HubServer, entry: Entry, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE is set"):
        download(entry, settings)


# ------------------------------------------------------------------------- hosts and tokens


def test_the_token_goes_to_the_users_hub_and_not_to_where_it_redirects(
    hub: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    download(entry, config.load())
    tokens = {
        host: {r.token for r in hub.requests if r.host == host} for host in ("files", "store")
    }
    assert tokens == {"files": {"Bearer hf_secret"}, "store": {""}}


def test_the_token_does_not_go_to_a_mirror(
    hub: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv(config.MIRROR, hub.endpoint)
    download(entry, config.load())
    assert {request.token for request in hub.requests} == {""}


def test_a_mirror_is_asked_instead_of_the_hub(
    hub: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as mirror:
        mirror.repositories = hub.repositories
        path = config.load().settings_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[models]\nmirror = "{mirror.endpoint}/"\n')
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        download(entry, config.load())
        assert mirror.requests
        assert hub.requests == []


# ------------------------------------------------------------------------------ cancelling


def test_cancelled_in_mid_file_and_continued(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    token = CancelToken()

    def stop(progress: Progress) -> None:
        if progress.done > 100_000:
            token.cancel()

    with pytest.raises(Cancelled):
        download(entry, settings, on_progress=stop, cancel=token)
    kept = parts(settings)[0].stat().st_size
    assert 100_000 < kept < 300_000, "it stopped with the piece in hand"
    hub.requests.clear()
    download(entry, settings)
    assert transfers(hub) == [f"bytes={kept}-"]


@pytest.mark.parametrize("moment", ["before", "while waiting", "while hashing", "for the other"])
def test_cancelled_at_other_moments(
    hub: HubServer,
    entry: Entry,
    settings: Config,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
    weights: bytes,
) -> None:
    from filelock import FileLock

    token = CancelToken()
    guard = Storage(settings.folder, REPOSITORY).guard(sha256(weights))
    if moment == "before":
        token.cancel()
    elif moment == "while waiting":
        monkeypatch.setattr(downloads, "PAUSES", (6.0,))
        hub.faults.refuse = [(503, "")]
    elif moment == "while hashing":
        download(entry, settings)
    else:
        guard.parent.mkdir(parents=True)
    timer = threading.Timer(0.3, token.cancel)
    if moment in ("while waiting", "for the other"):
        timer.start()
    lock, began = FileLock(guard), time.monotonic()
    if moment == "for the other":
        lock.acquire()
    try:
        report = (lambda _: token.cancel()) if moment == "while hashing" else downloads.ignore
        with pytest.raises(Cancelled):
            download(entry, settings, on_progress=report, cancel=token)
        assert time.monotonic() - began < 3
    finally:
        timer.cancel()
        lock.release()


def test_two_at_once_fetch_a_file_once(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    threads = [threading.Thread(target=download, args=(entry, settings)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert hub.bytes_sent() == len(weights)
    assert library.find(entry, settings).pinned


# -------------------------------------------------------------------------------- licences

TERMS = Licence("creativeml-openrail-m", "https://example.org/terms", accept=True)


def test_nothing_is_asked_of_the_hub_before_the_licence_is_accepted(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    bound = replace(entry, licence=TERMS)
    with pytest.raises(LicenceNotAccepted, match=r"example.org/terms.*--accept-licence"):
        download(bound, settings)
    assert hub.requests == []

    accepted = download(bound, settings, Wish(accept_licence=True)).accepted
    assert accepted is not None
    assert accepted.id == "creativeml-openrail-m"
    assert accepted.when.endswith("+00:00")
    download(bound, settings)

    with pytest.raises(LicenceNotAccepted):
        download(replace(bound, licence=replace(TERMS, id="stricter")), settings)


def test_licences_that_bind_nobody_are_not_asked_about(entry: Entry, settings: Config) -> None:
    free = replace(entry, licence=Licence("mit", "https://example.org/mit", accept=False))
    assert download(free, settings).accepted is None


# ------------------------------------------------------------------------------------- pins


def test_a_newer_revision_is_taken_only_when_asked_for(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    first = download(entry, settings).revision
    newer = hub.publish(REPOSITORY, {WEIGHTS: b"newer", "config.json": b"{}"})
    assert download(entry, settings).revision == first
    assert library.find(entry, settings).revision == first
    locked = download(entry, settings, Wish(revision="main"))
    assert (locked.revision, locked.files[WEIGHTS].sha256) == (newer, sha256(b"newer"))
    assert Storage(settings.folder, REPOSITORY).snapshot(first).exists(), "nothing is deleted"


def test_another_content_at_the_pinned_commit_is_refused(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    locked = download(entry, settings)
    before = settings.lock_file.read_bytes()
    hub.repositories[REPOSITORY][locked.revision][WEIGHTS] = flipped(weights)
    with pytest.raises(NotAsPinned, match="commits do not change"):
        download(entry, settings)
    assert settings.lock_file.read_bytes() == before


def test_another_content_of_a_small_file_at_the_pinned_commit_is_refused(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    locked = download(entry, settings)
    hub.repositories[REPOSITORY][locked.revision]["config.json"] = b"[]"
    library.find(entry, settings)
    (Storage(settings.folder, REPOSITORY).snapshot(locked.revision) / "config.json").unlink()
    with pytest.raises(CorruptDownload):
        download(entry, settings)
    assert Lock(settings.lock_file).get("styles") == locked


def test_a_file_changed_on_disk_is_refused_and_repaired_when_asked(
    hub: HubServer, entry: Entry, settings: Config, weights: bytes
) -> None:
    download(entry, settings)
    path = library.find(entry, settings).root / WEIGHTS
    path.resolve().write_bytes(flipped(weights))
    with pytest.raises(NotAsPinned, match=r"Nothing was touched.*--repair"):
        download(entry, settings)
    assert path.read_bytes() == flipped(weights)
    download(entry, settings, Wish(repair=True))
    assert path.read_bytes() == weights


def test_the_lock_that_is_written_can_be_read_by_people_and_programs(
    entry: Entry, settings: Config
) -> None:
    download(entry, settings)
    document = json.loads(settings.lock_file.read_text())
    assert document["version"] == 1
    assert set(document["models"]["styles"]) == {"repository", "revision", "files", "accepted"}


def test_only_hub_models_can_be_downloaded(hub: HubServer, settings: Config) -> None:
    own = Entry("own", "Own", Role.LORA, "test", path="/x.safetensors")
    with pytest.raises(InvalidInput, match="on this machine already"):
        download(own, settings)


def test_a_missing_model_is_fetched_on_the_way_only_if_the_user_said_so(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    with pytest.raises(MissingWeights, match="models download"):
        downloads.ensure(REPOSITORY, Role.LORA, settings)
    assert hub.requests == []
    online = replace(settings, offline=False)
    path = downloads.ensure(REPOSITORY, Role.LORA, online)
    assert path == library.locate(REPOSITORY, Role.LORA, settings=settings)
    hub.requests.clear()
    downloads.ensure(REPOSITORY, Role.LORA, online)
    assert hub.requests == []
    for name in ("fresco-draft-2", "./nowhere"):
        with pytest.raises((InvalidInput, MissingWeights)):
            downloads.ensure(name, None, online)
    with pytest.raises(LicenceNotAccepted):
        downloads.ensure("sd15", Role.BASE, online)
    assert hub.requests == []


def test_without_links_the_file_itself_is_put_in_its_place(
    entry: Entry, settings: Config, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    download(entry, settings)
    path = library.find(entry, settings).root / WEIGHTS
    assert path.read_bytes() == weights
    assert not path.is_symlink()
    assert {checked.state for checked in library.verify(entry, settings)} == {library.State.GOOD}
    download(entry, settings)


def test_pickles_are_fetched_for_annotators_and_for_nothing_else(
    hub: HubServer, settings: Config
) -> None:
    hub.publish(REPOSITORY, {"net.pth": b"pickle", "unet.bin": b"pickle"})
    locked = download(make_entry(Role.ANNOTATOR, files=("net.pth",)), settings)
    assert set(locked.files) == {"net.pth"}
    for files in ((), ("*",)):
        with pytest.raises(InvalidInput, match=r"safetensors|kind that is taken"):
            download(make_entry(Role.BASE, files=files), settings)
