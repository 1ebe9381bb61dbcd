from __future__ import annotations

import numpy as np
import pytest

from bridge_server.media import transfer
from bridge_server.media.clip import ColourTags
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.transfer import Hdr, Way, from_srgb, to_srgb, way

WAYS = {
    "as shown": way(ColourTags(1, 1, 1)),
    "wide 2020": way(ColourTags(9, 14, 9)),
    "wide P3": way(ColourTags(12, 13, 1)),
    "linear": way(ColourTags(1, 8, 0)),
    "linear 2020": way(ColourTags(9, 8, 0)),
    "pq": way(ColourTags(9, 16, 9), hdr=Hdr.TONE_MAP),
    "hlg": way(ColourTags(9, 18, 9), hdr=Hdr.TONE_MAP),
}


def colours(seed: int = 0, low: float = 0.05, high: float = 0.95) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (3, 20, 20))


@pytest.mark.parametrize("name", WAYS)
def test_the_models_colours_survive_the_way_there_and_back(name: str) -> None:
    """sRGB -> the clip's colours -> sRGB: what the model paints is what the viewer sees."""
    how, painted = WAYS[name], colours()
    signal = from_srgb(painted, how, np.zeros_like(painted))
    assert np.abs(to_srgb(signal, how) - painted).max() < 1e-6


@pytest.mark.parametrize("name", WAYS)
def test_a_clips_own_colours_survive_where_srgb_holds_them(name: str) -> None:
    how = WAYS[name]
    signal = from_srgb(colours(1), how, np.zeros((3, 20, 20)))
    back = from_srgb(to_srgb(signal, how), how, signal)
    assert np.abs(back - signal).max() < 1e-6


def test_codes_of_video_are_taken_as_they_are() -> None:
    signal = colours(2)
    for tags in (ColourTags(1, 1, 1), ColourTags(), ColourTags(6, 6, 6), ColourTags(5, 13, 5)):
        assert np.array_equal(to_srgb(signal, way(tags)), signal)


@pytest.mark.parametrize("name", WAYS)
def test_grey_stays_grey_and_brightness_rises(name: str) -> None:
    ramp = np.linspace(0, 1, 64)[None, None].repeat(3, axis=0)
    shown = to_srgb(ramp, WAYS[name])
    assert np.abs(shown - shown.mean(axis=0)).max() < 2e-4
    assert (np.diff(shown[0, 0]) >= -1e-9).all()
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_primaries_by_published_matrix() -> None:
    """ITU-R BT.2087: linear BT.709 to BT.2020."""
    published = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    computed = np.stack(
        [transfer._to(np.eye(3)[:, i, None, None], 1, 9)[:, 0, 0] for i in range(3)], axis=1
    )
    assert np.abs(computed - published).max() < 1e-4


@pytest.mark.parametrize(
    ("nits", "code"), [(0, 0.0), (100, 0.5081), (203, 0.5807), (1000, 0.7518), (10000, 1.0)]
)
def test_pq_by_published_points(nits: float, code: float) -> None:
    """ITU-R BT.2408 and SMPTE ST 2084."""
    light = np.full((3, 1, 1), nits / transfer.REFERENCE_WHITE)
    assert abs(transfer._pq_signal(light)[0, 0, 0] - code) < 1e-4
    assert (
        abs(transfer._pq_light(np.full((3, 1, 1), code))[0, 0, 0] * 203 - nits) < nits * 2e-3 + 1e-9
    )


def test_hlg_by_published_points() -> None:
    """ITU-R BT.2408: 75 % HLG is the reference white, 203 cd/m² of 1000."""
    white = transfer._hlg_light(np.full((3, 1, 1), 0.75))
    assert abs(white[0, 0, 0] - 1) < 5e-3
    peak = transfer._hlg_light(np.full((3, 1, 1), 1.0))
    assert abs(peak[0, 0, 0] * transfer.REFERENCE_WHITE - 1000) < 1


def test_linear_light_by_srgbs_definition() -> None:
    light = np.array([0.0, 0.0031308, 0.18, 0.5, 1.0])[None, None].repeat(3, axis=0)
    expected = [0.0, 0.040450, 0.461356, 0.735357, 1.0]
    assert np.allclose(to_srgb(light, WAYS["linear"])[0, 0], expected, atol=1e-5)


def test_highlights_come_back_with_their_brightness() -> None:
    light = np.array([8.0, 4.0, 2.0])[:, None, None]
    shown = to_srgb(light, WAYS["linear"])
    assert shown.max() == pytest.approx(1)
    assert np.allclose(from_srgb(shown, WAYS["linear"], light), light, atol=1e-5)
    painted = np.full((3, 1, 1), 0.5)
    assert np.allclose(
        from_srgb(painted, WAYS["linear"], light), 8 * from_srgb(painted, WAYS["linear"], 0 * light)
    )


@pytest.mark.parametrize("code", [16, 18])
def test_hdr_is_refused_unless_asked(code: float) -> None:
    with pytest.raises(UnsupportedMedia, match=r"HDR.*tone-mapping"):
        way(ColourTags(9, code, 9))
    assert way(ColourTags(9, code, 9), hdr=Hdr.TONE_MAP).kind in ("pq", "hlg")


@pytest.mark.parametrize("tags", [ColourTags(10, 1, 1), ColourTags(1, 9, 1), ColourTags(1, 17, 1)])
def test_unknown_colours_are_refused_by_number(tags: ColourTags) -> None:
    with pytest.raises(UnsupportedMedia, match=r"number (10|9|17) of H\.273"):
        way(tags)


def test_float_without_a_word_is_linear() -> None:
    assert way(ColourTags(), floating=True) == Way("linear")
