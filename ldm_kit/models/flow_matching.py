"""What the flow-matching families share: a noise level is sigma, a prediction is a velocity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ldm_kit.models.latent_diffusion import LatentDiffusion
from ldm_kit.models.noise import NoiseLevel, clean_from_prediction, flow_matching_level
from ldm_kit.models.paper_timesteps import check_timesteps


@dataclass(frozen=True, eq=False, repr=False)
class FlowMatching(LatentDiffusion):
    """A latent diffusion model trained by flow matching: on the straight line between picture and noise."""

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        """Place a noise level (0–1): it is sigma, see `ldm_kit.models.noise.flow_matching_level`.

        ``timesteps="linhardt2024"`` is an error: the paper's call knows no such model.
        """
        check_timesteps(timesteps, self.IMG2IMG, type(self).__name__)
        return flow_matching_level(level, self.steps)

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a velocity into the model's estimate of the clean latent."""
        return clean_from_prediction("flow", noised, prediction, level)
