"""What a patch of a frame and a patch of the key frame are compared by."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fresco.propagate.sampling import gaussian

#: Weights of the guides in the squared difference (method, section 9), of each guide's channels
#: together: the source's colour, its edges, the previous output brought here, and the position.
COLOUR, EDGES, PREVIOUS, POSITION = 6.0, 0.5, 0.5, 2.0
#: A grey's difference from its surroundings is small; times this it has the range of a colour.
_EDGE_GAIN, _EDGE_SIGMA = 4.0, 1.0
_LUMA = (0.299, 0.587, 0.114)


def source_guide(frame: Tensor) -> Tensor:
    """Return a source frame's colour and edges, weighted: (1, 3, H, W) → (1, 4, H, W)."""
    luma = (frame * frame.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    edges = (luma - gaussian(luma, _EDGE_SIGMA)) * _EDGE_GAIN
    return torch.cat((frame * math.sqrt(COLOUR / 3), edges * math.sqrt(EDGES)), dim=1)


def style_guide(image: Tensor) -> Tensor:
    """Return a styled image weighted as the guide of the previous output: (1, 3, H, W)."""
    return image * math.sqrt(PREVIOUS / 3)
