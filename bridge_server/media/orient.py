"""Turning pictures upright for the model and back, by the container's display matrix.

Only quarter turns and mirrors turn a picture; a matrix of any other angle, scale or shift is kept
for the player and does not move a pixel here.
"""

from __future__ import annotations

from torch import Tensor

#: By (a, b, c, d) of x' = a x + c y, y' = b x + d y, y down: whether the picture is first mirrored
#: left to right, and its quarter turns counter-clockwise.
_TURNS = {
    (1, 0, 0, 1): (False, 0),
    (0, -1, 1, 0): (False, 1),
    (-1, 0, 0, -1): (False, 2),
    (0, 1, -1, 0): (False, 3),
    (-1, 0, 0, 1): (True, 0),
    (0, -1, -1, 0): (True, 3),
    (1, 0, 0, -1): (True, 2),
    (0, 1, 1, 0): (True, 1),
}


def turn(matrix: tuple[int, ...] | None) -> tuple[bool, int]:
    """Return whether the picture is mirrored first, and its quarter turns counter-clockwise."""
    if matrix is None:
        return False, 0
    a, b, c, d = (matrix[place] / 65536 for place in (0, 1, 3, 4))
    return _TURNS.get((round(a), round(b), round(c), round(d)), (False, 0))


def upright(image: Tensor, matrix: tuple[int, ...] | None) -> Tensor:
    """Return `image` (..., H, W) as the player shows it."""
    mirrored, quarters = turn(matrix)
    return (image.flip(-1) if mirrored else image).rot90(quarters, (-2, -1))


def stored(image: Tensor, matrix: tuple[int, ...] | None) -> Tensor:
    """Return an upright `image` (..., H, W) as it is stored; the inverse of `upright`."""
    mirrored, quarters = turn(matrix)
    turned = image.rot90(-quarters, (-2, -1))
    return turned.flip(-1) if mirrored else turned
