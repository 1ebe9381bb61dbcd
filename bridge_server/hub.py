"""Talking to the hub: what a repository holds, and the bytes of one file.

Everything goes through huggingface_hub's session, so its proxies and certificates are used. The
bytes are streamed here and not by its download functions: those begin a file anew in every
process, cannot be stopped between pieces of 10 MB, and say nothing of a file's hash.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from bridge_server.errors import DownloadFailed
from fresco.errors import FrescoError

#: Seconds without an answer, or without a byte, after which a connection counts as broken.
PATIENCE = 20.0

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Files are named by it.
_ETAG = re.compile(r"[\w-]+", re.ASCII)


class Interrupted(DownloadFailed):
    """It may work on the next try."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository, as the hub describes it.

    etag: SHA-256 of large files, git's SHA-1 of small ones; other hubs may use anything
    """

    path: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit; size is -1 and etag empty where none is stated."""

    commit: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True, slots=True)
class Stream:
    """The bytes of a file from `start` on: where it was asked to, or 0 if that was refused."""

    start: int
    pieces: Iterator[bytes]


class Hub:
    """A hub at an address; the user's token goes along only if `sends_token`."""

    def __init__(self, endpoint: str, sends_token: bool) -> None:
        self.endpoint = endpoint
        self._token = None if sends_token else False
        self._api = HfApi(endpoint=endpoint, token=self._token)

    def listing(self, repository: str, revision: str) -> Listing:
        """Ask what `repository` holds at `revision`.

        Raises:
            Interrupted, DownloadFailed: it cannot be had; says why.
        """
        with self._explained(repository, revision):
            info = self._api.model_info(
                repository, revision=revision, files_metadata=True, timeout=PATIENCE
            )
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise DownloadFailed(f"{self.endpoint} names no commit of {repository}; is it a hub?")
        files = (_described(file) for file in info.siblings or ())
        return Listing(info.sha, {file.path: file for file in files})

    def describe(self, repository: str, commit: str, path: str) -> RemoteFile:
        """Ask for one file what the listing left out.

        Raises:
            Interrupted, DownloadFailed: it cannot be had; says why.
        """
        with self._explained(repository, commit):
            said = get_hf_file_metadata(
                self._url(repository, commit, path),
                token=self._token,
                timeout=PATIENCE,
                endpoint=self.endpoint,
            )
        if said.size is None or not said.etag or not _ETAG.fullmatch(said.etag):
            raise DownloadFailed(f"{self.endpoint} does not say what {path} of {repository} is.")
        return RemoteFile(path, said.size, said.etag)

    @contextmanager
    def stream(
        self, repository: str, commit: str, path: str, start: int
    ) -> Generator[Stream, None, None]:
        """Fetch a file from byte `start` on.

        Raises:
            Interrupted, DownloadFailed: also while the pieces are read.
        """
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = self._url(repository, commit, path)
        with (
            self._explained(repository, commit),
            get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=PATIENCE
            ) as response,
        ):
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            yield Stream(_start(response), response.iter_bytes())

    def _url(self, repository: str, commit: str, path: str) -> str:
        return hf_hub_url(repository, path, revision=commit, endpoint=self.endpoint)

    @contextmanager
    def _explained(self, repository: str, revision: str) -> Generator[None, None, None]:
        """Turn what the hub and the network raise into one of ours."""
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise DownloadFailed(offline("HF_HUB_OFFLINE")) from error
        except HfHubHTTPError as error:
            raise self._answered(error, repository, revision) from error
        except httpx2.HTTPError as error:
            raise Interrupted(
                f"the connection to {self.endpoint} failed ({_said(error)}); check the network, "
                "or set a mirror with --mirror."
            ) from error
        except ValueError as error:
            raise DownloadFailed(f"{self.endpoint} answered in no hub's terms: {error}.") from error

    def _answered(self, error: HfHubHTTPError, repository: str, revision: str) -> FrescoError:
        page, status = f"{self.endpoint}/{repository}", error.response.status_code
        if isinstance(error, RevisionNotFoundError):
            return DownloadFailed(f"{repository} has no revision {revision!r}; see {page}.")
        if isinstance(error, RemoteEntryNotFoundError):
            return DownloadFailed(f"a file of {repository} is not there at {revision}; see {page}.")
        if isinstance(error, GatedRepoError):
            return DownloadFailed(
                f"{repository} is given only to those who asked for it: accept its terms at "
                f"{page}, log in with `hf auth login`, and try again.{self._no_token()}"
            )
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
            return DownloadFailed(
                f"{self.endpoint} shows no repository {repository} ({status}): it does not exist, "
                f"or is private; if it is yours, log in with `hf auth login`.{self._no_token()}"
            )
        kind = Interrupted if status in _TRANSIENT else DownloadFailed
        return kind(f"{self.endpoint} refused with status {status}; try again later.")

    def _no_token(self) -> str:
        return " Your token is not sent to a mirror." if self._token is False else ""


def offline(variable: str) -> str:
    """Say that `variable` forbids downloads."""
    return f"{variable} is set, which forbids all downloads; unset it for this command."


def _described(file: RepoSibling) -> RemoteFile:
    etag = (file.lfs.sha256 if file.lfs else file.blob_id) or ""
    size = -1 if file.size is None else file.size
    return RemoteFile(file.rfilename, size, etag if _ETAG.fullmatch(etag) else "")


def _start(response: httpx2.Response) -> int:
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None:
        raise Interrupted("the server sent a part of the file without saying which.")
    return int(match[1])


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
