"""Libraries that talk while they work, kept quiet: what matters they raise."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quietly() -> Generator[None]:
    """Keep the libraries' warnings and progress bars off the screen; errors are still raised."""
    with ExitStack() as restored:
        for library in (diffusers_logging, transformers_logging):
            restored.callback(library.set_verbosity, library.get_verbosity())
            if library.is_progress_bar_enabled():
                restored.callback(library.enable_progress_bar)
            library.set_verbosity(logging.CRITICAL)
            library.disable_progress_bar()
        restored.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
