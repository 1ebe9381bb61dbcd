# SPDX-License-Identifier: Apache-2.0
"""Where the training pictures come from: packages, the files taken from them, their licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A package and the pictures taken from it.

    include: globs below the unpacked package; exclude: words that a path must not contain.
    kind: `photo` (whole picture), `cutout` (transparent background), `bundle` (Qt resource file
    from which the JPEG and WebP pictures are carved).
    """

    package: str
    include: tuple[str, ...]
    licence: str
    kind: str = "photo"
    exclude: tuple[str, ...] = ()
    registry: str = "debian"
    version: str = ""
    """Only for wheels: the pinned version."""


_LAND = "usr/share/games/endless-sky/images"
_STAMPS = "usr/share/tuxpaint/stamps"
_QRC = "usr/share/gcompris-qt/rcc"

SOURCES: tuple[Source, ...] = (
    Source(
        "endless-sky-data",
        (f"{_LAND}/land/*", f"{_LAND}/scene/*"),
        "public domain, CC-BY-SA-3.0, CC-BY-SA-4.0 (per file in debian/copyright)",
    ),
    Source(
        "gcompris-qt-data",
        tuple(
            f"{_QRC}/{name}.rcc"
            for name in (
                "explore_monuments",
                "explore_farm_animals",
                "explore_world_animals",
                "explore_world_music",
                "categorization",
                "details",
                "erase",
                "paintings",
            )
        ),
        "CC0, public domain, CC-BY, CC-BY-SA, GPL-3+ (per file in debian/copyright)",
        kind="bundle",
    ),
    Source("kphotoalbum", ("usr/share/kphotoalbum/demo/*.jpg",), "GPL-2+", exclude=("logo",)),
    Source(
        "tuxpaint-data",
        ("usr/share/tuxpaint/templates/*.jpg", "usr/share/tuxpaint/starters/*.jpg"),
        "GPL-2+",
    ),
    Source(
        "tuxpaint-stamps-default",
        tuple(
            f"{_STAMPS}/{name}/**/*.png"
            for name in (
                "animals",
                "food",
                "household",
                "clothes",
                "town",
                "plants",
                "hobbies",
                "vehicles",
                "people",
                "seasonal",
                "sports",
            )
        ),
        "GPL-2",
        kind="cutout",
        exclude=("flags", "roadsigns", "_mirror", "_flip"),
    ),
    Source(
        "mate-backgrounds",
        ("usr/share/backgrounds/mate/nature/*", "usr/share/backgrounds/mate/abstract/*"),
        "GPL-2+, CC-BY-SA (per file in debian/copyright)",
    ),
    Source("lomiri-wallpapers", ("usr/share/**/*.jpg", "usr/share/**/*.png"), "CC-BY-SA-3.0"),
    Source(
        "lomiri-wallpapers-16.04",
        ("usr/share/**/*.jpg", "usr/share/**/*.png"),
        "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0 (per file in debian/copyright)",
    ),
    Source(
        "lomiri-wallpapers-20.04",
        ("usr/share/**/*.jpg", "usr/share/**/*.png"),
        "CC-BY-SA-4.0 (per file in debian/copyright)",
    ),
    Source("ukui-wallpapers", ("usr/share/backgrounds/*",), "CC-BY-SA-3.0"),
    Source(
        "gnome-backgrounds",
        ("usr/share/backgrounds/**/*.jpg", "usr/share/backgrounds/**/*.webp"),
        "CC-BY-SA-3.0, CC-BY-SA-2.0, CC-BY-2.0 (debian/copyright)",
    ),
    Source(
        "plasma-workspace-wallpapers",
        ("usr/share/wallpapers/*/contents/images/1920x1080.*",),
        "CC-BY-SA-4.0, LGPL-3 (metadata of each wallpaper); packaging GPL-2+",
    ),
    Source(
        "scikit-image",
        tuple(
            f"skimage/data/{name}"
            for name in (
                "astronaut.png",
                "chelsea.png",
                "coffee.png",
                "rocket.jpg",
                "motorcycle_left.png",
                "brick.png",
                "grass.png",
                "gravel.png",
                "hubble_deep_field.jpg",
            )
        ),
        "BSD-3-Clause; the pictures CC0 or public domain (skimage/data/README.txt)",
        registry="pypi",
        version="0.17.2",
    ),
    Source(
        "scikit-learn",
        ("sklearn/datasets/images/*.jpg",),
        "CC-BY-2.0 (sklearn/datasets/images/README.txt)",
        registry="pypi",
        version="1.9.1",
    ),
)
