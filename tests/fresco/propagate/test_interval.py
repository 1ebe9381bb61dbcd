from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput
from fresco.propagate import METHODS, Job, interval, intervals
from tests.fresco import cases


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = cases.features(1, 3, height // 4, width // 4, seed=seed).sigmoid()
    grown = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return grown[0].clamp(0, 1)


def moving(scene: Tensor, frames: int = 5, side: int = 64, step: int = 2) -> Tensor:
    """A window that goes over a picture: all of its motion is known."""
    return torch.stack([scene[:, 8 : 8 + side, step * t : step * t + side] for t in range(frames)])


def inner_error(made: Tensor, truth: Tensor) -> float:
    return float((made - truth)[..., 12:-12, 12:-12].abs().mean())


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return moving(texture(80, 96))


@pytest.fixture(scope="module")
def styled() -> Tensor:
    return moving(texture(80, 96, seed=7))


@pytest.mark.parametrize("method", METHODS)
def test_the_source_as_style_gives_back_the_source(clip: Tensor, method: str) -> None:
    made = interval(clip, clip[0], clip[-1], method)
    assert made.shape == (3, 3, 64, 64)
    assert inner_error(made, clip[1:-1]) < 0.005


@pytest.mark.parametrize("method", METHODS)
def test_a_style_of_its_own_follows_the_motion(clip: Tensor, styled: Tensor, method: str) -> None:
    made = interval(clip, styled[0], styled[-1], method)
    assert inner_error(made, styled[1:-1]) < 0.02


def test_a_still_clip_keeps_its_style_to_the_last_digit(styled: Tensor) -> None:
    still = texture(64, 64)[None].repeat(4, 1, 1, 1)
    made = interval(still, styled[0], styled[0])
    torch.testing.assert_close(made, styled[:1].repeat(2, 1, 1, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_flicker_and_fades_do_not_mislead(clip: Tensor, styled: Tensor, method: str) -> None:
    gains = torch.tensor([0.7, 1.0, 0.75, 0.9, 0.6])[:, None, None, None]
    made = interval(clip * gains, styled[0], styled[-1], method)
    assert inner_error(made, styled[1:-1]) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_the_errors_of_a_chain_of_flows_do_not_add_up_under_noise(
    styled: Tensor, method: str
) -> None:
    still = texture(64, 64)[None].repeat(8, 1, 1, 1)
    noise = torch.randn(still.shape, generator=torch.Generator().manual_seed(0)) * 5 / 255
    clip = (still + noise).clamp(0, 1)

    def drifting(source: Tensor, target: Tensor) -> Tensor:
        to_key = float((target - clip[0]).abs().mean()) < 1 / 255
        return torch.full((1, 2, *source.shape[-2:]), 0.0 if to_key else 0.2)

    made = interval(clip, styled[0], None, method, flow=drifting)
    assert inner_error(made[-1:], styled[:1]) < 0.005


def test_a_repeated_pattern_is_followed_past_its_period() -> None:
    waves = torch.arange(144) * (2 * torch.pi / 16)
    pattern = 0.5 + 0.2 * (waves.sin()[:80, None] + waves.sin())
    clip = moving(pattern.expand(3, -1, -1), frames=7, step=5)
    styled = moving(texture(80, 144, seed=7), frames=7, step=5)
    made = interval(clip, styled[0], None)
    # What comes into view from the right is in no key.
    assert float((made[-1] - styled[-1])[..., 12:-12, 12:-44].abs().mean()) < 0.005


def test_one_key_styles_all_frames_beside_it(clip: Tensor, styled: Tensor) -> None:
    after = interval(clip, styled[0], None)
    before = interval(clip, None, styled[-1])
    assert after.shape == before.shape == (4, 3, 64, 64)
    assert inner_error(after[:2], styled[1:3]) < 0.02
    assert inner_error(before[-2:], styled[2:4]) < 0.02


def test_the_left_and_the_right_key_are_treated_alike(clip: Tensor, styled: Tensor) -> None:
    forward = interval(clip, styled[0], None, "patch")
    backward = interval(clip.flip(0), None, styled[0], "patch")
    assert torch.equal(forward, backward.flip(0))


@pytest.mark.parametrize("frames", [1, 2])
def test_nothing_lies_between_neighbours(clip: Tensor, frames: int) -> None:
    some = clip[:frames]
    made = interval(some, some[0], some[-1] if frames == 2 else None)
    assert made.shape == (0, 3, 64, 64)


def test_the_same_bits_again_with_any_number_of_workers(clip: Tensor, styled: Tensor) -> None:
    jobs = [Job(clip[a:b], styled[a], styled[b - 1]) for a, b in ((0, 3), (2, 5), (1, 4))]
    alone = [interval(job.frames, job.left, job.right) for job in jobs]
    for workers in (1, 3):
        for made, expected in zip(intervals(jobs, workers), alone, strict=True):
            assert torch.equal(made, expected)


def test_jobs_are_taken_only_as_workers_come_free(clip: Tensor) -> None:
    taken: list[int] = []

    def jobs() -> object:
        for index in range(4):
            taken.append(index)
            yield Job(clip[:2], clip[0], clip[1])

    next(intervals(jobs(), workers=2))  # pyright: ignore[reportArgumentType]
    assert len(taken) == 2


def test_cancel_is_polled_for_every_frame_of_both_keys(clip: Tensor) -> None:
    class Counting(CancelToken):
        polls = 0

        def check(self) -> None:
            self.polls += 1
            super().check()

    token = Counting()
    interval(clip, clip[0], clip[-1], "flow", cancel=token)
    # Twice on the way of each track to a frame; the strength is of one frame's two sides.
    exposures, tracks, sides = 4, 2 * (3 + 3), 2 * (1 + 3)
    assert token.polls == exposures + tracks + sides
    token.cancel()
    with pytest.raises(Cancelled):
        interval(clip, clip[0], clip[-1], cancel=token)


REFUSED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "method": (lambda clip: interval(clip, clip[0], None, "magic"), "'magic'; use one of"),
    "no key": (lambda clip: interval(clip, None, None), "there is no key"),
    "size": (lambda clip: interval(clip, clip[0, :, :9], None), "left key has shape"),
    "range": (lambda clip: interval(clip, None, clip[0] * 255), "scale them"),
    "one frame": (lambda clip: interval(clip[:1], clip[0], clip[0]), "two keys need two frames"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_worked_with_is_refused(clip: Tensor, name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InvalidInput, match=message):
        call(clip)


def test_keys_that_disagree_change_into_each_other_evenly(clip: Tensor) -> None:
    left, right = (clip[0] * 0.6 + 0.3), (clip[-1] * 0.6 + 0.1)
    made = torch.cat((left[None], interval(clip, left, right), right[None]))
    means = made.mean(dim=(1, 2, 3))
    steps = -means.diff()
    assert float(steps.max()) < 1.5 * float(means[0] - means[-1]) / 4
    assert float(steps.min()) > 0


def test_keys_of_unlike_texture_change_into_each_other_evenly(clip: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    grain = 0.1 * torch.randn(2, 3, 64, 64, generator=generator)
    still = clip[:1].repeat(7, 1, 1, 1)
    left, right = (clip[:1] * 0.5 + 0.25 + grain).clamp(0, 1)
    made = torch.cat((left[None], interval(still, left, right), right[None]))
    steps = made.diff(dim=0).abs().mean(dim=(1, 2, 3))
    assert float(steps.max()) < 1.5 * float((left - right).abs().mean()) / 5
