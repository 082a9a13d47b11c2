"""The purifier and the mapper that know the noise level: as made, their gradients, their independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smoothcert.defences import ResidualMapper, UNetPurifier

SIZE = (12, 8)


def purifier(**settings: object) -> UNetPurifier:
    torch.manual_seed(0)
    made = UNetPurifier(SIZE, **{"channels": (8, 16), **settings})  # type: ignore[arg-type]
    return made.eval()


def mapper(**settings: object) -> ResidualMapper:
    torch.manual_seed(0)
    return ResidualMapper(12, **{"groups": 4, "width": 16, **settings}).eval()  # type: ignore[arg-type]


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Weights as after some training: none of them zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))


def features(count: int = 4, *more: int) -> torch.Tensor:
    return torch.randn(count, *more, 12, generator=torch.Generator().manual_seed(3))


def test_both_are_the_identity_before_training_at_every_level() -> None:
    for sigma in (0.0, 0.1, 2.0):
        levels = torch.full((4,), sigma)
        assert torch.equal(purifier()(images(), levels), images())
        assert torch.equal(mapper()(features(), levels), features())
        assert torch.equal(mapper(tokens=True)(features(4, 5), levels), features(4, 5))


def test_a_purifier_returns_its_input_where_there_is_no_noise_whatever_it_learned() -> None:
    made = stirred(purifier())
    assert torch.equal(made(images(), torch.zeros(4)), images())
    assert not torch.allclose(made(images(), torch.full((4,), 0.5)), images())


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_shapes_and_levels_of_the_u_net(patch: int) -> None:
    made = stirred(purifier(patch=patch, channels=(8, 8, 16)))
    assert made(images(), torch.full((4,), 0.5)).shape == images().shape


@pytest.mark.parametrize("kind", ["purifier", "mapper", "tokens"])
def test_an_image_is_answered_by_itself_and_at_its_own_level(kind: str) -> None:
    """In a batch of several levels each row is what it is alone, up to rounding (1e-5, float32, numbers near 1)."""
    made = {"purifier": purifier, "mapper": mapper, "tokens": lambda: mapper(tokens=True)}[kind]()
    inputs = {"purifier": images(), "mapper": features(), "tokens": features(4, 5)}[kind]
    stirred(made)
    levels = torch.tensor([0.0, 0.1, 0.5, 1.0])
    with torch.no_grad():
        together = made(inputs, levels)
        for row in range(4):
            alone = made(inputs[row : row + 1], levels[row : row + 1])
            np.testing.assert_allclose(together[row : row + 1], alone, atol=1e-5)
        assert float((made(inputs, levels.flip(0)) - together).abs().max()) > 1e-3, "the level does nothing"


def test_gradients_reach_the_input_and_every_weight() -> None:
    """Against finite differences along random directions (double precision)."""
    generator = torch.Generator().manual_seed(4)
    for made, inputs in (
        (purifier(), images()),
        (mapper(), features()),
        (mapper(tokens=True), features(4, 5)),
    ):
        module = stirred(made).double()
        levels = torch.full((4,), 0.5, dtype=torch.float64)
        at = inputs.double().requires_grad_(True)
        goal = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
        value = (module(at, levels) * goal).sum()
        gradients = torch.autograd.grad(value, [at, *module.parameters()])
        assert all(bool(gradient.any()) for gradient in gradients)
        way = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            rise = (module(at + 1e-4 * way, levels) - module(at - 1e-4 * way, levels)) * goal
        # the embedding of the level is float32, and so are the answers near it
        assert float((gradients[0] * way).sum()) == pytest.approx(
            float(rise.sum()) / 2e-4, rel=1e-3, abs=1e-2
        )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: UNetPurifier((13, 8)), "not a multiple of patch"),
        (lambda: UNetPurifier(SIZE, (12,)), "multiples of 8"),
        (lambda: UNetPurifier(SIZE, ()), "multiples of 8"),
        (lambda: ResidualMapper(12, groups=5), "groups=5"),
        (lambda: ResidualMapper(12, groups=4, width=10, heads=4), "heads must divide width"),
    ],
)
def test_odd_settings_are_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
