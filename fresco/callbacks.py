"""How a caller watches a run and stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fresco.errors import Cancelled

if TYPE_CHECKING:  # a command that only waits for the server stops by the same token
    from torch import Tensor, nn


class CancelToken:
    """Set from any thread; polled in every step, optimisation iteration and VAE tile."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop at its next poll."""
        self._event.set()

    def check(self) -> None:
        """Stop here if the run was cancelled.

        Raises:
            Cancelled: it was.
        """
        if self._event.is_set():
            raise Cancelled("the run was cancelled.")


@dataclass(frozen=True, slots=True)
class Step:
    """One denoising step, just done.

    index: of the whole schedule, warm-up steps counted
    last: the index of the last step
    timestep: of the training schedule
    clean: (N, c, h, w), the predicted clean latents of the batch's new frames
    preview: makes a cheap picture of them, (N, 3, h, w) in [0, 1] at the latents' size, or larger
        with a preview VAE; costs
        nothing unless it is called
    """

    index: int
    last: int
    timestep: float
    clean: Tensor
    preview: Callable[[], Tensor]


OnStep = Callable[[Step], None]


def ignore(_step: Step) -> None:
    """Watch nothing."""


def never_stop() -> None:
    """Let every iteration go on."""


@contextmanager
def polled(cancel: CancelToken, *modules: nn.Module) -> Generator[None]:
    """Poll `cancel` before every call of `modules`."""

    def poll(_module: nn.Module, _inputs: object) -> None:
        cancel.check()

    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_pre_hook(poll)
            hooks.callback(hook.remove)
        yield
