"""Which files of a repository a model consists of."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import PurePosixPath

from bridge_server.catalogue import PICKLES, Entry
from fresco.errors import InvalidInput

WEIGHTS = ".safetensors"
_CONFIGURATION = frozenset({".json", ".model", ".txt"})
#: Parts of a pipeline that the method has no use for.
UNUSED = frozenset({"feature_extractor", "safety_checker"})


def choose(entry: Entry, paths: Sequence[str]) -> list[str]:
    """Pick the paths of `entry` out of all `paths` of its repository.

    Raises:
        InvalidInput: a pattern meets nothing, or the choice is not clear, or not safe.
    """
    possible = sorted(path for path in paths if _is_plain(path) and _is_data(path, entry))
    chosen = _by_patterns(entry, possible) if entry.files else _by_layout(entry, possible)
    if not any(PurePosixPath(path).suffix in PICKLES | {WEIGHTS} for path in chosen):
        raise InvalidInput(
            f"{entry.name}: {entry.repository} has no {WEIGHTS} file among what was asked for; "
            "other formats can run code when they are loaded: use a converted repository."
        )
    return chosen


def _is_plain(path: str) -> bool:
    """Whether `path` stays inside the folder that it is put into, on every system."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not (set(path) & set('\\:<>"|?*\0'))
        and not ({".", "..", "/"} & set(parts) or path.startswith("/"))
    )


def _is_data(path: str, entry: Entry) -> bool:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in _CONFIGURATION | {WEIGHTS} or (suffix in PICKLES and entry.role.takes_pickles)


def _by_patterns(entry: Entry, paths: Sequence[str]) -> list[str]:
    for pattern in entry.files:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise InvalidInput(
                f"{entry.name}: {entry.repository} has no file {pattern!r} of a kind that is "
                "taken; correct the files of this model in models.toml."
            )
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in entry.files)]


def _by_layout(entry: Entry, paths: Sequence[str]) -> list[str]:
    """Take a pipeline's folders, or the single model at the top; half precision where there is."""
    safe = [path for path in paths if PurePosixPath(path).suffix not in PICKLES]
    if "model_index.json" in safe:
        parts = [path for path in safe if _folder(path) and path.split("/")[0] not in UNUSED]
        return ["model_index.json", *_one_precision(parts)]
    top = _one_precision([path for path in safe if not _folder(path)])
    weights = {_stem(path) for path in top if path.endswith(WEIGHTS)}
    if len(weights) > 1:
        names = sorted(path for path in safe if path.endswith(WEIGHTS))
        raise InvalidInput(
            f"{entry.name}: {entry.repository} holds several models; "
            f'name one, as in "{entry.repository}:{names[0]}". There are: {", ".join(names)}.'
        )
    return top


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _stem(path: str) -> str:
    """Return a weights file's name without its shard number: x-00001-of-00002 → x."""
    stem = PurePosixPath(path).name.removesuffix(WEIGHTS)
    head, _, tail = stem.partition("-0")
    return head if "-of-" in tail else stem


def _one_precision(paths: Sequence[str]) -> list[str]:
    """Per folder, drop the weights that are there in half precision too, and other variants."""
    kept: list[str] = []
    for _, group in groupby(sorted(paths, key=_folder), key=_folder):
        files = list(group)
        weights = [path for path in files if path.endswith(WEIGHTS)]
        half = [path for path in weights if ".fp16" in PurePosixPath(path).name]
        plain = [path for path in weights if "." not in _stem(path)]
        best = half or plain or weights
        kept += [path for path in files if path not in weights or path in best]
    return kept
