"""What is installed, whether it loads, and whether it is ours."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module, metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bridge_server
from bridge_server.probes import libraries
from bridge_server.probes.finding import Finding, State

if TYPE_CHECKING:
    from packaging.requirements import Requirement

AREA = "versions"
DISTRIBUTION = "fresco-bridge"
#: What the work is done with: names of distributions, and of their modules.
LIBRARIES = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "numpy": "numpy",
    "opencv-python": "cv2",
    "av": "av",
    "openimageio": "OpenImageIO",
}
#: Distributions that all install the module cv2, over each other.
_OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
#: Our top-level modules. Others use such names too.
_MODULES = ("fresco", "bridge_server", "ui", "host_plugins")
_OWN_ENVIRONMENT = "install fresco-bridge into an environment of its own (python -m venv)"


def python(bits: int = sys.maxsize.bit_length() + 1) -> Iterator[Finding]:
    """Which Python runs this.

    bits: of its addresses
    """
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if bits < 64:
        hint = "install a 64-bit Python, and fresco-bridge with it"
        yield Finding(AREA, "python", State.PROBLEM, f"{text}: {bits} bits; torch needs 64", hint)
    else:
        yield Finding(AREA, "python", State.OK, f"{text}, {sys.executable}")


def ours(installed: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Which version of this program runs, and from where."""
    folder = Path(bridge_server.__file__).parent.parent
    try:
        yield Finding(AREA, DISTRIBUTION, State.OK, f"{installed(DISTRIBUTION)}, {folder}")
    except metadata.PackageNotFoundError:
        text = f"not installed; runs from {folder}"
        yield Finding(AREA, DISTRIBUTION, State.NOTE, text, f"pip install -e {folder}")


def requirements(
    declared: Sequence[str] | None = None, installed: Callable[[str], str] = metadata.version
) -> Iterator[Finding]:
    """Whether everything that is needed is there, and new enough.

    declared: requirements as a package's metadata has them; ours where None
    """
    if declared is None:
        try:
            declared = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            return
    needed = _needed(declared, "")
    bad = list(_unfit(needed, installed))
    yield from bad
    if not bad:
        text = f"all {len(needed)} packages that are needed are there, and new enough"
        yield Finding(AREA, "requirements", State.OK, text)


def extra(
    name: str,
    declared: Sequence[str] | None = None,
    installed: Callable[[str], str] = metadata.version,
) -> Iterator[Finding]:
    """What an extra needs that is not there, or of another version; nothing where all is well.

    declared: as of `requirements`
    """
    if declared is None:
        try:
            declared = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            return
    base = {each.name for each in _needed(declared, "")}
    needed = [each for each in _needed(declared, name) if each.name not in base]
    yield from _unfit(needed, installed)


def _needed(declared: Sequence[str], extra: str) -> list[Requirement]:
    """The requirements that count on this machine."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in declared]
    return [each for each in wanted if not each.marker or each.marker.evaluate({"extra": extra})]


def _unfit(needed: Sequence[Requirement], installed: Callable[[str], str]) -> Iterator[Finding]:
    for each in needed:
        try:
            found = installed(each.name)
        except metadata.PackageNotFoundError:
            found = ""
        if not found or not each.specifier.contains(found, prereleases=True):
            text = f"{each.specifier or 'any version'} is needed, {found or 'none'} is installed"
            hint = f'pip install "{each.name}{each.specifier}"'
            yield Finding(AREA, each.name, State.PROBLEM, text, hint)


def library(
    distribution: str,
    load: Callable[[str], Any] = import_module,
    tool: str | None = None,
) -> Iterator[Finding]:
    """Whether one of `LIBRARIES` loads.

    tool: what installs system packages here; looked for where None
    """
    try:
        module = load(LIBRARIES[distribution])
    except (ImportError, OSError) as error:
        missing = libraries.named_in(str(error))
        hint = f"pip install --force-reinstall --no-deps {distribution}"
        if missing:
            hint = libraries.command([missing], libraries.tool() if tool is None else tool)
        yield Finding(AREA, distribution, State.PROBLEM, f"does not load: {error}", hint)
        return
    yield Finding(AREA, distribution, State.OK, _version(distribution, module))


def _version(distribution: str, module: Any) -> str:
    version = str(getattr(module, "__version__", "loads"))
    if distribution != "av":
        return version
    parts = (
        f"{name} {'.'.join(map(str, number))}" for name, number in module.library_versions.items()
    )
    return f"{version} with FFmpeg's {', '.join(parts)}"


def opencv(installed: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Whether OpenCV is installed once only; two of its distributions overwrite each other."""
    there = [name for name in _OPENCVS if _is_there(name, installed)]
    if len(there) > 1:
        text = f"{' and '.join(there)} are installed over each other"
        hint = (
            f"pip uninstall -y {' '.join(there)}, then "
            "pip install --force-reinstall --no-deps opencv-python"
        )
        yield Finding(AREA, "cv2", State.PROBLEM, text, hint)


def _is_there(name: str, installed: Callable[[str], str]) -> bool:
    try:
        return bool(installed(name))
    except metadata.PackageNotFoundError:
        return False


def modules(
    root: Path = Path(bridge_server.__file__).parent.parent,
    location: Callable[[str], Path | None] | None = None,
    owners: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Finding]:
    """Whether our modules' names lead to ours.

    root: the folder that they are in
    location: the folder that a name leads to
    owners: distributions by the top-level modules that they install
    """
    from packaging.utils import canonicalize_name

    location = location or found_at
    owners = metadata.packages_distributions() if owners is None else owners
    for name in _MODULES:
        if not (root / name).is_dir():
            continue
        at = location(name)
        if at is None or at.resolve() != (root / name).resolve():
            text = f"import {name} leads to {at or 'nothing'}, not to {root / name}"
            yield Finding(AREA, name, State.PROBLEM, text, _OWN_ENVIRONMENT)
        strangers = {canonicalize_name(each) for each in owners.get(name, ())} - {DISTRIBUTION}
        if strangers:
            text = f"{', '.join(sorted(strangers))} installs a module of this name too"
            yield Finding(AREA, name, State.PROBLEM, text, _OWN_ENVIRONMENT)


def found_at(name: str) -> Path | None:
    """Return the folder of the package that `import name` finds."""
    spec = util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if places:
        return Path(places[0])
    return Path(spec.origin) if spec and spec.origin else None
