from __future__ import annotations

import pytest
import torch

from fresco.propagate import poisson


def dense_differences(height: int, width: int) -> torch.Tensor:
    unit = torch.eye(height * width).reshape(-1, 1, height, width)
    across, down = poisson.differences(unit)
    return torch.cat((across.flatten(1), down.flatten(1)), dim=1).T


@pytest.mark.parametrize(("height", "width"), [(7, 10), (9, 5), (1, 6)])
def test_it_is_the_solution_of_the_dense_normal_equations(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    screen = torch.rand(1, 2, height, width, generator=generator)
    across = torch.rand(1, 2, height, width - 1, generator=generator)
    down = torch.rand(1, 2, height - 1, width, generator=generator)
    weights = torch.tensor([2.5, 0.5])
    solved = poisson.solve(screen, across, down, weights)
    D = dense_differences(height, width)
    for channel, weight in enumerate(weights):
        g = torch.cat((across[0, channel].flatten(), down[0, channel].flatten()))
        matrix = torch.eye(height * width) + weight * D.T @ D
        exact = torch.linalg.solve(matrix, screen[0, channel].flatten() + weight * D.T @ g)
        torch.testing.assert_close(solved[0, channel].flatten(), exact, rtol=0, atol=1e-5)


def test_an_images_own_gradients_give_it_back() -> None:
    image = torch.rand(1, 3, 31, 44)
    solved = poisson.solve(image, *poisson.differences(image), torch.tensor([2.5, 0.5, 0.5]))
    torch.testing.assert_close(solved, image, rtol=0, atol=1e-5)
