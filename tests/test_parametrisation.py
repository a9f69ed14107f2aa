"""What networks predict: targets of training and denoised estimates are each other's inverse."""

import pytest
import torch

from realcompo_core.errors import RealCompoError
from realcompo_core.sampling.parametrisation import PARAMETRISATIONS, parametrisation


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_a_network_that_answers_the_target_denoises_exactly(name):
    """Noise a latent as in training, scale it as in sampling: D from the target is the latent."""
    kind = parametrisation(name)
    latent, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha in (0.99, 0.5, 0.004):
        sigma = ((1 - alpha) / alpha) ** 0.5
        x = latent + sigma * noise
        noisy = alpha**0.5 * latent + (1 - alpha) ** 0.5 * noise  # what a training step shows the network
        torch.testing.assert_close(kind.scale_input(x, sigma), noisy)
        output = kind.target(latent, noise, torch.tensor(alpha, dtype=torch.float64))
        torch.testing.assert_close(kind.denoised(x, output, sigma), latent)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_sampling_starts_from_noise_of_unit_variance_to_the_network(name):
    kind = parametrisation(name)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (14.6, 4096.0):
        torch.testing.assert_close(kind.scale_input(kind.initial_latent(noise, sigma), sigma), noise)


def test_an_unknown_name_is_refused():
    with pytest.raises(RealCompoError, match="'score'.*epsilon, v_prediction, sample"):
        parametrisation("score")
