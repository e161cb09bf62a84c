"""A diffusion model opened for looking inside: encode, add noise, one pass watched at named blocks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, LdmKitError
from ldm_kit.models.blocks import block_table, select_blocks
from ldm_kit.models.noise import (
    NoiseLevel,
    draw_noise,
    variance_preserving_level,
)
from ldm_kit.models.paper_timesteps import check_timesteps, paper_timestep
from ldm_kit.models.parts import Place
from ldm_kit.models.watch import Watch, watching

Text = Mapping[str, Tensor]
# What encoded prompts may take of the device's memory: some 4,000 of Stable Diffusion, 250 of Flux.
TEXT_BYTES = 1 << 30


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


@dataclass(frozen=True, eq=False, repr=False)
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
    # Those of them that `load_model` may be told to drop.
    DROPPABLE: ClassVar[tuple[str, ...]] = ()
    # Whether the family has the img2img call whose timesteps the paper took.
    IMG2IMG: ClassVar[bool] = False

    identity: Identity
    denoiser: Any
    parts: Mapping[str, Any]
    device: torch.device
    folder: Path | None = None
    _prompts: dict[str | None, Text] = field(default_factory=dict, repr=False)

    @classmethod
    def more_parts(
        cls,
        index: Mapping[str, Any],
        place: Place,
        prior: str | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Any]:
        """Find what the family needs beside the parts of the pipeline's folder; nothing, by default.

        Parameters
        ----------
        index : mapping
            The pipeline's model_index.json.
        place : Place
            Where the pipeline is.
        prior : str, optional
            What the registry names as its prior.
        dtype : torch.dtype
        device : torch.device
        """
        return {}

    def __repr__(self) -> str:
        """Show what it is in ten lines; the networks themselves are `denoiser` and `parts`, the blocks `blocks()`."""
        networks = {name: part for name, part in self.parts.items() if isinstance(part, nn.Module)}
        if not any(part is self.denoiser for part in networks.values()):
            networks = {"network": self.denoiser, **networks}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in networks.items()}
        each = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
        try:
            kinds = self._table.loc[self._table["stage"], "kind"]
            stages = ", ".join(f"{n} {kind}" for kind, n in kinds.value_counts(sort=False).items())
        except (LdmKitError, RuntimeError) as error:  # a model that cannot be looked into can still be shown
            stages = str(error).splitlines()[0]
        lines = {
            "source": f"{self.identity.source} ({self.identity.revision})",
            "size": f"{sum(sizes.values()):,} parameters" + (f" ({each})" if each else ""),
            "dtype": f"{self.identity.dtype} on {self.device}",
            "stages": stages,
        }
        told = "".join(f"\n  {name}: {line}" for name, line in lines.items())
        return f"{type(self).__name__} {self.identity.model!r}{told}"

    # What a family answers ------------------------------------------------------------------------

    @property
    def takes_noise(self) -> bool:
        """Whether pictures are noised before the network sees them; encoders know noise level 0 alone."""
        return True

    @property
    def reads_text(self) -> bool:
        """Whether the network is told anything by a prompt; if not, ``"none"`` is its only conditioning."""
        return True

    @property
    def unconditional(self) -> str:
        """What the conditioning ``"none"`` stands for, as stores record it: empty for the encoded empty prompt."""
        return ""

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        raise NotImplementedError

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        raise NotImplementedError

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode pictures to latents, (n, channels, height, width), float32, in the denoiser's scale.

        By default the posterior's mean; with `posterior`, a standard normal draw of that shape, a sample.
        """
        raise NotImplementedError

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to pictures; the way back of `encode`."""
        raise NotImplementedError

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt, alone, so that the result depends on nothing else."""
        raise NotImplementedError

    def encode_unconditional(self) -> Text:
        """Give the family's own unconditional input: what its diffusers pipeline sets against the prompt for guidance.

        By default the encoded empty prompt.
        """
        return self.encode_prompt("")

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

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        """Place a noise level (0–1) in this model's schedule.

        Parameters
        ----------
        level : float
            0 to 1; whole percents from 0.01 with ``timesteps="linhardt2024"``.
        timesteps : {"exact", "linhardt2024"}
            ``"exact"``: the level's own; ``"linhardt2024"``: the one that the paper's img2img call ended up with,
            see `ldm_kit.models.paper_timesteps.paper_timestep`.

        Returns
        -------
        NoiseLevel

        Raises
        ------
        UnknownNameError
            For another `timesteps`.
        BadInputError
            If the level is out of range, or the family has no such img2img call.

        Examples
        --------
        >>> model.level(0.3).timestep, model.level(0.3, timesteps="linhardt2024").timestep  # doctest: +SKIP
        (300, 291)
        """
        check_timesteps(timesteps, self.IMG2IMG, type(self).__name__)
        scheduler = self.parts["scheduler"]
        if not hasattr(scheduler, "alphas_cumprod"):
            raise BadInputError(
                f"The scheduler {type(scheduler).__name__} has no variance-preserving schedule (alphas_cumprod), which "
                f"a {type(self).__name__} needs. Load a model that was trained with one."
            )
        alphas = np.asarray(scheduler.alphas_cumprod.double().cpu().numpy(), dtype=np.float64)
        timestep = paper_timestep(level, scheduler) if timesteps == "linhardt2024" else None
        return variance_preserving_level(level, alphas, timestep)

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

    def text(self, prompt: str | None) -> Text:
        """Encode a prompt (None: the unconditional input); the latest are kept, as many as fit in `TEXT_BYTES`."""
        if prompt not in self._prompts:
            with torch.inference_mode():
                text = self.encode_unconditional() if prompt is None else self.encode_prompt(prompt)
            size = sum(part.numel() * part.element_size() for part in text.values())
            while self._prompts and (len(self._prompts) + 1) * size > TEXT_BYTES:
                self._prompts.pop(next(iter(self._prompts)))  # the oldest
            self._prompts[prompt] = text
        return self._prompts[prompt]

    def texts(self, prompts: Sequence[str | None]) -> Text:
        """Encode prompts (None: the unconditional input) and stack them for a batch."""
        encoded = [self.text(prompt) for prompt in prompts]
        return {key: torch.cat([text[key] for text in encoded]) for key in encoded[0]}

    def embedded(self, vectors: Tensor | npt.ArrayLike) -> Text:
        """Take a sequence of vectors as the text (the conditioning ``"embedding"``), so that learnt ones work.

        Parameters
        ----------
        vectors : Tensor or array, shape (tokens, channels)
            What the text encoders would have given; every vector is attended to.

        Returns
        -------
        mapping of str to Tensor
            As `text` gives, for one picture. Where the family also takes a pooled vector, it is that of the
            empty prompt: a value that the denoiser knows, and that says nothing of the picture.

        Raises
        ------
        BadInputError
            If the shape does not fit, or a number is not finite.

        Examples
        --------
        >>> model.embedded(torch.zeros(3, 768))["sequence"].shape  # doctest: +SKIP
        torch.Size([1, 3, 768])
        """
        beside = self.text(None)
        if "sequence" not in beside:
            raise BadInputError(
                f"A {type(self).__name__} attends to no sequence of vectors; give prompts instead."
            )
        given = torch.as_tensor(vectors).to(self.device, self.dtype)
        channels = beside["sequence"].shape[-1]
        if given.ndim != 2 or not len(given) or given.shape[1] != channels:
            raise BadInputError(
                f"The embedding has shape {tuple(given.shape)}; this model takes (tokens, {channels}), one row a "
                "token, one token or more."
            )
        if not torch.isfinite(given).all():
            raise BadInputError(
                f"The embedding holds NaN or infinity in {self.identity.dtype}. Mend it first."
            )
        # SDXL's unconditional pooled vector would be zeros.
        text = {**(self.text("") if "pooled" in beside else beside), "sequence": given[None]}
        if "mask" in text:
            text["mask"] = torch.ones(1, len(given), dtype=text["mask"].dtype, device=self.device)
        return text

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
