"""A diffusion model opened for looking inside: encode, add noise, one pass watched at named blocks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.blocks import block_table, select_blocks
from ldm_kit.models.noise import NoiseLevel, draw_noise, variance_preserving_level
from ldm_kit.models.watch import Watch, watching

Text = Mapping[str, Tensor]


@dataclass(frozen=True)
class Identity:
    """What a model is, as a store records it.

    Parameters
    ----------
    model : str
        The name it was asked for by.
    source : str
        Hub id, or the name of the folder it was read from.
    revision : str
        The commit, or a fingerprint of a folder's weights.
    dtype : str
        What the denoiser computes in.
    family : str
        The adapter's name.
    """

    model: str
    source: str
    revision: str
    dtype: str
    family: str

    def as_dict(self) -> dict[str, str]:
        """Give the identity as plain data."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A denoiser with what it needs: made by `load_model`, one small subclass a family.

    Parameters
    ----------
    identity : Identity
    denoiser : torch.nn.Module
        The network that predicts the noise.
    parts : mapping
        The pipeline's other components, by diffusers' names (``vae``, ``text_encoder``, …).
    device : torch.device
    folder : pathlib.Path, optional
        Where the model was read from, if from a local folder.

    Notes
    -----
    There is no classifier-free guidance: a representation is what *one* pass computes. Guidance mixes the
    predictions of two passes, and says nothing of what either holds inside.
    """

    # The parts of a pipeline folder that the family loads, and which of them is the denoiser. Whatever else
    # a folder names (a safety checker, say) is never loaded.
    NEEDED: ClassVar[tuple[str, ...]] = ()
    DENOISER: ClassVar[str] = "unet"
    # Loaded if the folder has them.
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    # Which of them make pictures into latents; these alone are loaded for `latent:NAME`.
    PICTURE_PARTS: ClassVar[tuple[str, ...]] = ("vae",)

    identity: Identity
    denoiser: Any
    parts: Mapping[str, Any]
    device: torch.device
    folder: Path | None = None
    _prompts: dict[str, Text] = field(default_factory=dict, repr=False)

    # What a family answers ------------------------------------------------------------------------

    @property
    def takes_noise(self) -> bool:
        """Whether pictures are noised before the network sees them; encoders know noise level 0 alone."""
        return True

    @property
    def reads_text(self) -> bool:
        """Whether the network is told anything by a prompt; if not, only the empty one is allowed."""
        return True

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        raise NotImplementedError

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        raise NotImplementedError

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Encode pictures to latents, (n, channels, height, width), float32, in the denoiser's scale."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to pictures; the way back of `encode`."""
        raise NotImplementedError

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt, alone, so that the result depends on nothing else."""
        raise NotImplementedError

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run `denoiser` once and return its prediction."""
        raise NotImplementedError

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean latent."""
        raise NotImplementedError

    def text_of_pictures(self, pictures: Sequence[Image.Image]) -> Text:
        """Give what the denoiser is told if it is told the picture itself; only unCLIP models have this.

        A flagged control: it shows the answer to the network, and is never a default.

        Raises
        ------
        BadInputError
            By every model that is conditioned on text.
        """
        raise BadInputError(
            f"{self.identity.model!r} is conditioned on text, not on pictures. The conditioning 'image' is for "
            "unCLIP models such as 'kandinsky-2.2'; leave it out here."
        )

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoder."""
        raise NotImplementedError

    # What all families share ----------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        dtype: torch.dtype = next(self.denoiser.parameters()).dtype
        return dtype

    @property
    def steps(self) -> int:
        """T, the number of steps of the training schedule."""
        return int(self.parts["scheduler"].config.num_train_timesteps)

    @functools.cached_property
    def training_words(self) -> frozenset[str] | None:
        """The words of the captions that the text encoder was trained on, if the folder's words.txt tells."""
        path = None if self.folder is None else self.folder / "words.txt"
        if path is None or not path.is_file():
            return None
        return frozenset(path.read_text(encoding="utf-8").split())

    def level(self, level: float) -> NoiseLevel:
        """Place a noise level (0–1) in this model's schedule.

        Examples
        --------
        >>> model.level(0.3).timestep  # doctest: +SKIP
        300
        """
        alphas = self.parts["scheduler"].alphas_cumprod.double().cpu().numpy()
        return variance_preserving_level(level, np.asarray(alphas, dtype=np.float64))

    def preprocess(self, picture: Image.Image) -> Image.Image:
        """Scale a picture's shorter side to `picture_size` (Lanczos) and cut out the middle."""
        size = self.picture_size
        width, height = picture.size
        scale = size / min(width, height)
        if scale != 1:
            picture = picture.resize(
                (max(size, round(width * scale)), max(size, round(height * scale))),
                Image.Resampling.LANCZOS,
            )
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        return picture.crop((left, top, left + size, top + size)).convert("RGB")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Say what `preprocess` and `encode` do, as data, for a store's request."""
        return {
            "size": self.picture_size,
            "resample": "lanczos",
            "crop": "centre",
            "range": [-1, 1],
            "posterior": "mean",
        }

    def noise(self, names: Sequence[str], seed: int = 0, draw: int = 0) -> Tensor:
        """Draw the noise of each named stimulus, (n, channels, height, width), on the model's device."""
        draws = np.stack([draw_noise(name, self.latent_shape, seed, draw) for name in names])
        return torch.from_numpy(draws).to(self.device)

    def text(self, prompt: str) -> Text:
        """Encode a prompt, or give it from among the last few thousand that were encoded."""
        if prompt not in self._prompts:
            if len(self._prompts) >= 4096:  # forget the oldest; 4,096 prompts of SD take 1 GB
                self._prompts.pop(next(iter(self._prompts)))
            with torch.inference_mode():
                self._prompts[prompt] = self.encode_prompt(prompt)
        return self._prompts[prompt]

    def texts(self, prompts: Sequence[str]) -> Text:
        """Encode prompts and stack them for a batch."""
        encoded = [self.text(prompt) for prompt in prompts]
        return {key: torch.cat([text[key] for text in encoded]) for key in encoded[0]}

    def add_noise(self, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """Noise latents to a level: ``signal * latents + noise_share * noise`` (Ho et al. 2020, eq. 4)."""
        return level.signal * latents + level.noise * noise

    def denoise(self, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run one whole forward pass; returns the prediction, float32."""
        with torch.inference_mode():
            return self.predict(self.denoiser, noised.to(self.dtype), level, text).float()

    def watch(
        self,
        noised: Tensor,
        level: NoiseLevel,
        text: Text,
        blocks: Sequence[str],
        keep: Any = None,
    ) -> Watch:
        """Run one forward pass up to the deepest of `blocks` and return what each gave.

        Parameters
        ----------
        noised : Tensor, shape (n, channels, height, width)
        level : NoiseLevel
        text : mapping of str to Tensor
            From `texts`, one row a picture.
        blocks : sequence of str
            Module paths.
        keep : callable (tensor, layout) -> Any, optional
            What to keep of each output; by default the tensor itself.

        Returns
        -------
        Watch
            ``.seen[block]``.

        Examples
        --------
        >>> seen = model.watch(noised, model.level(0.5), model.texts([""]), ["mid_block"]).seen  # doctest: +SKIP
        """
        with torch.inference_mode(), watching(self.denoiser, blocks, keep) as watch:
            self.predict(self.denoiser, noised.to(self.dtype), level, text)
        return watch

    @functools.cached_property
    def _table(self) -> pd.DataFrame:
        # A twin without weights on the meta device: shapes and order for nothing, at any model size.
        with torch.device("meta"):
            twin = type(self.denoiser).from_config(self.denoiser.config)
            level = self.level(0.5)
            noised = torch.zeros(1, *self.latent_shape)
            text = self.dummy_text(torch.device("meta"))
        return block_table(twin.eval(), lambda net: self.predict(net, noised, level, text))

    def blocks(self) -> pd.DataFrame:
        """List the denoiser's blocks: path, kind, depth in execution order, shape, parameters.

        Returns
        -------
        pandas.DataFrame
            See `ldm_kit.models.blocks.block_table`.

        Examples
        --------
        >>> lk.load_model("tiny-ldm").blocks().query("stage")  # doctest: +SKIP
        """
        return self._table.copy()

    def select_blocks(self, wanted: str | Sequence[str] | None = None) -> list[str]:
        """Turn paths, patterns or kinds into module paths; see `ldm_kit.models.blocks.select_blocks`."""
        return select_blocks(self._table, wanted)
