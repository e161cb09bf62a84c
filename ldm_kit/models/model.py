"""An opened diffusion model: encode images, add noise, run one pass and watch named blocks."""

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
from ldm_kit.models.blocks import Watch, block_table, select_blocks, watching
from ldm_kit.models.hub import Request
from ldm_kit.models.noise import (
    NoiseLevel,
    check_timesteps,
    clean_from_prediction,
    draw_noise,
    flow_matching_level,
    paper_timestep,
    variance_preserving_level,
)

# One encoded conditioning, by the names under which the family's denoiser takes it; one row an image.
Text = Mapping[str, Tensor]
# Device memory for encoded prompts: some 4,000 of Stable Diffusion, 250 of Flux.
TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class Identity:
    """What a model is, as a store records it.

    Parameters
    ----------
    model : str
        The name it was loaded by.
    source : str
        Hub id, or the name of the folder it was read from.
    revision : str
        The commit, or a digest of the folder's files.
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
        """Return the identity as plain data."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False, repr=False)
class OpenedModel:
    """A denoiser with the components it needs, made by `load_model`; one small subclass for each family.

    Parameters
    ----------
    identity : Identity
    denoiser : torch.nn.Module
        The network that predicts the noise.
    components : mapping
        The pipeline's other components, by diffusers' names (``vae``, ``text_encoder``, …).
    device : torch.device
    folder : pathlib.Path, optional
        Where the model was read from, if from a local folder.

    Notes
    -----
    There is no classifier-free guidance: a representation is what *one* pass computes. Guidance mixes the
    predictions of two passes, and shows nothing of what either computes.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> model = lk.load_model("tiny-ldm", device="cpu")
    >>> latents = model.encode([Image.new("RGB", (64, 64))])
    >>> noised = model.add_noise(latents, model.noise(["black.png"]), model.level(0.5))
    >>> model.denoise(noised, model.level(0.5), model.texts(["a cat"])).shape
    torch.Size([1, 4, 16, 16])
    """

    # The components of a pipeline folder that the family loads, and which of them is the denoiser. Whatever else
    # a folder names (such as a safety checker) is never loaded.
    NEEDED: ClassVar[tuple[str, ...]] = ()
    DENOISER: ClassVar[str] = "unet"
    # Loaded if the folder has them; and those of them that `load_model` may drop.
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    DROPPABLE: ClassVar[tuple[str, ...]] = ()
    # Which of them encodes images to latents; it alone is loaded for `latent:NAME`.
    AUTOENCODER: ClassVar[str | None] = None
    # Whether the family has the img2img call of Linhardt et al. (2024).
    IMG2IMG: ClassVar[bool] = False
    # Whether it was trained by flow matching, on the straight line between latent and noise.
    FLOW_MATCHING: ClassVar[bool] = False

    identity: Identity
    denoiser: Any
    components: Mapping[str, Any]
    device: torch.device
    folder: Path | None = None
    _prompts: dict[str | None, Text] = field(default_factory=dict, repr=False)

    @classmethod
    def more_components(cls, pipeline: Any, request: Request) -> dict[str, Any]:
        """Return what the family needs beside the components of the pipeline's folder; nothing, by default."""
        return {}

    def __repr__(self) -> str:
        """Summarise the model in ten lines; the networks are `denoiser` and `components`, the blocks `blocks()`."""
        networks = {name: one for name, one in self.components.items() if isinstance(one, nn.Module)}
        if not any(one is self.denoiser for one in networks.values()):
            networks = {"network": self.denoiser, **networks}
        sizes = {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}
        each = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
        try:
            kinds = self._table.loc[self._table["stage"], "kind"]
            stages = ", ".join(f"{n} {kind}" for kind, n in kinds.value_counts(sort=False).items())
        except (LdmKitError, RuntimeError) as error:  # a model without a table of blocks can still be shown
            stages = str(error).splitlines()[0]
        return (
            f"{type(self).__name__} {self.identity.model!r}\n"
            f"  source: {self.identity.source} ({self.identity.revision})\n"
            f"  size: {sum(sizes.values()):,} parameters{f' ({each})' if each else ''}\n"
            f"  dtype: {self.identity.dtype} on {self.device}\n"
            f"  stages: {stages}"
        )

    # What a family defines ------------------------------------------------------------------------

    @property
    def takes_noise(self) -> bool:
        """Whether images are noised before the network sees them; controls know noise level 0 alone."""
        return True

    @property
    def reads_text(self) -> bool:
        """Whether a prompt conditions the network; if not, ``"none"`` is its only conditioning."""
        return True

    @property
    def unconditional(self) -> str:
        """What the conditioning ``"none"`` stands for, as stores record it: empty for the encoded empty prompt."""
        return ""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width); of a model over pixels that of the image."""
        raise NotImplementedError

    @property
    def image_size(self) -> int:
        """Side of the square images that the model was trained on, in pixels."""
        return self.latent_shape[1]

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode images to latents, (n, channels, height, width), float32; here pixels in −1…1.

        With an autoencoder they are the posterior's mean in the denoiser's scale; or, with `posterior`, a standard normal
        sample of that shape, a sample of it.
        """
        return to_pixels([self.preprocess(image) for image in images], self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to images, the inverse of `encode`."""
        return to_images(latents)

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt, alone, so that the result depends on nothing else."""
        raise NotImplementedError

    def encode_unconditional(self) -> Text:
        """Encode the family's unconditional input: what its diffusers pipeline contrasts the prompt with for guidance."""
        return self.encode_prompt("")

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what `encode_prompt` returns for one image, for eight tokens."""
        config = self.denoiser.config
        # diffusers' names for the channels of the sequence that a denoiser attends to
        names = ("joint_attention_dim", "caption_channels", "encoder_hid_dim", "cross_attention_dim")
        channels = next(int(config[name]) for name in names if config.get(name))
        return {
            "sequence": (8, channels),
            "mask": (8,),
            "pooled": (config.get("pooled_projection_dim") or 1,),
        }

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the keyword arguments of the denoiser's forward pass."""
        raise NotImplementedError

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run `denoiser` once; returns the prediction alone, where the network predicts a variance with it."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        inputs = self.denoiser_inputs(noised, timesteps, text)
        prediction: Tensor = denoiser(**inputs, return_dict=False)[0]
        return prediction[:, : noised.shape[1]]

    def text_of_pictures(self, images: Sequence[Image.Image]) -> Text:
        """Encode images as a conditioning; only unCLIP models have this.

        A control: it shows the stimulus itself to the network, and is never a default.

        Raises
        ------
        BadInputError
            By every model that is conditioned on text.
        """
        raise BadInputError(
            f"{self.identity.model!r} is conditioned on text, not on images; 'image' is for unCLIP models ('kandinsky-2.2')."
        )

    def _weightless(self) -> nn.Module:
        """Return the denoiser without weights, in float32 on the meta device."""
        with torch.device("meta"):
            twin: nn.Module = type(self.denoiser).from_config(self.denoiser.config)
        return twin.eval()

    # What all families share ----------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        parameter = next(self.denoiser.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype

    @property
    def steps(self) -> int:
        """T, the number of steps of the training schedule."""
        return int(self.components["scheduler"].config.num_train_timesteps)

    @functools.cached_property
    def training_words(self) -> frozenset[str] | None:
        """Words of the captions that the text encoder was trained on, from the folder's words.txt; None without one."""
        if self.folder is None or not (self.folder / "words.txt").is_file():
            return None
        return frozenset((self.folder / "words.txt").read_text(encoding="utf-8").split())

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        """Place a noise level in this model's schedule.

        Parameters
        ----------
        level : float
            0 to 1; whole percents from 0.01 with ``timesteps="linhardt2024"``.
        timesteps : {"exact", "linhardt2024"}
            ``"exact"``: the level's own; ``"linhardt2024"``: the timestep at which the img2img call of that paper
            starts, see `ldm_kit.models.noise.paper_timestep`.

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
        >>> import ldm_kit as lk
        >>> model = lk.load_model("tiny-ldm", device="cpu")
        >>> model.level(0.3).timestep, model.level(0.3, timesteps="linhardt2024").timestep
        (300, 291)
        """
        check_timesteps(timesteps, self.IMG2IMG, type(self).__name__)
        if self.FLOW_MATCHING:
            return flow_matching_level(level, self.steps)
        scheduler = self.components["scheduler"]
        if not hasattr(scheduler, "alphas_cumprod"):
            raise BadInputError(
                f"The scheduler {type(scheduler).__name__} has no variance-preserving schedule (alphas_cumprod)."
            )
        alphas = np.asarray(scheduler.alphas_cumprod.double().cpu().numpy(), dtype=np.float64)
        timestep = paper_timestep(level, scheduler) if timesteps == "linhardt2024" else None
        return variance_preserving_level(level, alphas, timestep)

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Compute predicted x₀, the clean latent that a prediction implies."""
        kind = "flow" if self.FLOW_MATCHING else str(self.components["scheduler"].config.prediction_type)
        return clean_from_prediction(kind, noised, prediction, level)

    def preprocess(self, image: Image.Image) -> Image.Image:
        """Scale an image's shorter side to `image_size` (Lanczos) and crop the centre."""
        size = self.image_size
        width, height = image.size
        scale = size / min(width, height)
        if scale != 1:
            image = image.resize(
                (max(size, round(width * scale)), max(size, round(height * scale))),
                Image.Resampling.LANCZOS,
            )
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return image.crop((left, top, left + size, top + size)).convert("RGB")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What `preprocess` and `encode` do, as data, for a store's request."""
        return {
            "size": self.image_size,
            "resample": "lanczos",
            "crop": "centre",
            "range": [-1, 1],
            "posterior": "none",
        }

    def noise(self, names: Sequence[str], seed: int = 0, draw: int = 0) -> Tensor:
        """Sample the noise of each named stimulus, (n, channels, height, width), on the model's device."""
        samples = np.stack([draw_noise(name, self.latent_shape, seed, draw) for name in names])
        return torch.from_numpy(samples).to(self.device)

    def text(self, prompt: str | None) -> Text:
        """Encode a prompt (None: the unconditional input); the latest are cached, as many as fit in `TEXT_BYTES`."""
        if prompt not in self._prompts:
            with torch.inference_mode():
                text = self.encode_unconditional() if prompt is None else self.encode_prompt(prompt)
            size = sum(tensor.numel() * tensor.element_size() for tensor in text.values())
            while self._prompts and (len(self._prompts) + 1) * size > TEXT_BYTES:
                self._prompts.pop(next(iter(self._prompts)))  # the oldest
            self._prompts[prompt] = text
        return self._prompts[prompt]

    def texts(self, prompts: Sequence[str | None]) -> Text:
        """Encode prompts (None: the unconditional input) and stack them for a batch."""
        encoded = [self.text(prompt) for prompt in prompts]
        return {key: torch.cat([text[key] for text in encoded]) for key in encoded[0]}

    def embedded(self, vectors: Tensor | npt.ArrayLike) -> Text:
        """Take a sequence of vectors as the encoded prompt (the conditioning ``"embedding"``), such as learnt ones.

        Parameters
        ----------
        vectors : Tensor or array, shape (tokens, channels)
            In place of the text encoders' output; every vector is attended to.

        Returns
        -------
        mapping of str to Tensor
            As `text` returns, for one image. Where the family also takes a pooled vector, it is that of the
            empty prompt: a value that the denoiser knows, and that is independent of the image.

        Raises
        ------
        BadInputError
            If the shape does not fit, or a number is not finite.

        Examples
        --------
        >>> import ldm_kit as lk
        >>> model = lk.load_model("tiny-ldm", device="cpu")
        >>> tokens, channels = model.text("a cat")["sequence"].shape[1:]
        >>> model.embedded(torch.zeros(3, channels))["sequence"].shape[1]
        3
        """
        beside = self.text(None)
        if "sequence" not in beside:
            raise BadInputError(f"A {type(self).__name__} attends to no sequence of vectors; use prompts.")
        sequence = torch.as_tensor(vectors).to(self.device, self.dtype)
        channels = beside["sequence"].shape[-1]
        if sequence.ndim != 2 or not len(sequence) or sequence.shape[1] != channels:
            raise BadInputError(
                f"The embedding has shape {tuple(sequence.shape)}; this model takes (tokens, {channels}), tokens ≥ 1."
            )
        if not torch.isfinite(sequence).all():
            raise BadInputError(f"The embedding contains NaN or infinity in {self.identity.dtype}.")
        # SDXL's unconditional pooled vector would be zeros.
        text = {**(self.text("") if "pooled" in beside else beside), "sequence": sequence[None]}
        if "mask" in text:
            text["mask"] = torch.ones(1, len(sequence), dtype=text["mask"].dtype, device=self.device)
        return text

    def add_noise(self, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """Noise latents to a level: ``level.signal * latents + level.noise * noise`` (Ho et al. 2020, eq. 4)."""
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
        """Run one forward pass up to the deepest of `blocks` and return what each computed.

        Parameters
        ----------
        noised : Tensor, shape (n, channels, height, width)
        level : NoiseLevel
        text : mapping of str to Tensor
            From `texts`, one row an image.
        blocks : sequence of str
            Module paths.
        keep : callable (tensor, layout) -> Any, optional
            Turns each output into what is returned; by default the tensor itself.

        Returns
        -------
        Watch
            ``.seen[block]``.

        Examples
        --------
        >>> import ldm_kit as lk
        >>> model = lk.load_model("tiny-ldm", device="cpu")
        >>> noised = model.noise(["apple"])
        >>> model.watch(noised, model.level(0.5), model.texts([""]), ["mid_block"]).seen["mid_block"].shape
        torch.Size([1, 128, 2, 2])
        """
        with torch.inference_mode(), watching(self.denoiser, blocks, keep) as watch:
            self.predict(self.denoiser, noised.to(self.dtype), level, text)
        return watch

    @functools.cached_property
    def _table(self) -> pd.DataFrame:
        """Table of blocks, from one pass on the meta device: no weights, no arithmetic, at any model size."""
        level = self.level(0.5 if self.takes_noise else 0.0)
        noised = torch.zeros(1, *self.latent_shape, device="meta")
        text = {name: torch.zeros(1, *shape, device="meta") for name, shape in self.text_shapes.items()}
        return block_table(self._weightless(), lambda twin: self.predict(twin, noised, level, text))

    def blocks(self) -> pd.DataFrame:
        """List the denoiser's blocks in the order in which they finish.

        Returns
        -------
        pandas.DataFrame
            Columns ``block`` (module path), ``kind``, ``depth`` (0 for the block that finishes first), ``layout``,
            ``shape`` (of one image), ``channels``, ``parameters``, ``stage`` (whether it is one of the
            stages that are watched by default).

        Raises
        ------
        BadInputError
            If the output of a stage is not declared; see `register_output_layout`.

        Examples
        --------
        >>> import ldm_kit as lk
        >>> lk.load_model("tiny-ldm", device="cpu").blocks().query("stage")["block"].tolist()[:2]
        ['down_blocks.0', 'down_blocks.1']
        """
        return self._table.copy()

    def select_blocks(self, wanted: str | Sequence[str] | None = None) -> list[str]:
        """Turn paths, patterns or kinds into module paths, in network order.

        Parameters
        ----------
        wanted : str or sequence of str, optional
            Paths (``"mid_block"``), patterns (``"up_blocks.*"``: a ``*`` stands for one name between dots, at the
            front for all that comes before, as in ``"*.resnets.1"``) or kinds (``"up"``, ``"resnet"``; of a transformer
            ``"transformer"``, and ``"single"`` for Flux's single-stream blocks). None: the stages.

        Raises
        ------
        UnknownNameError
            For every name that matches nothing; a pattern never passes silently.

        Examples
        --------
        >>> import ldm_kit as lk
        >>> lk.load_model("tiny-ldm", device="cpu").select_blocks("mid")
        ['mid_block']
        """
        return select_blocks(self._table, wanted)

    def _tokens(self, prompt: str, tokenizer: str = "tokenizer", length: int = 0) -> tuple[Tensor, Tensor]:
        """Tokenise a prompt, padded to full length as in diffusers' pipelines: token numbers and mask, (1, length)."""
        tokenise = self.components[tokenizer]
        length = length or tokenise.model_max_length
        tokens = tokenise(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)


def to_pixels(images: Sequence[Image.Image], device: torch.device) -> Tensor:
    """Stack RGB images of one size as (n, 3, height, width) in −1…1, float32."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).to(device, torch.float32) / 127.5 - 1


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels in −1…1, (n, 3, height, width), into images; values beyond are clipped."""
    values = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(array) for array in values.permute(0, 2, 3, 1).cpu().numpy()]
