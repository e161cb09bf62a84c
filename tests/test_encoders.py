"""Models without noise: vision models, the VAE's latent, the text encoder, pixels; and untrained ones."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import KINDS, PATCHES, livened, save_blobs, save_tiny_clip, save_tiny_vision
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import BadInputError, ModelNotFoundError, UnknownNameError
from ldm_kit.models.hub import Place
from ldm_kit.models.model import Identity
from ldm_kit.models.registry import find_model, packaged, registered_models
from ldm_kit.models.vision import VisionEncoder, load_processor


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return save_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def vision_folders(tmp_path_factory):
    """A folder a kind, made when it is first used."""
    made: dict[str, object] = {}
    root = tmp_path_factory.mktemp("vision")

    def folder(kind: str):
        if kind not in made:
            made[kind] = save_tiny_vision(root / kind, kind, processor=processor_of(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def processor_of(kind: str):
    """The kind of processor that the real models of a kind bring, made small."""
    import transformers as t

    if kind in ("convnext", "convnextv2", "resnet", "regnet"):
        return t.ConvNextImageProcessorPil(size={"shortest_edge": 32})
    if kind == "mobilenetv2":  # 64 pixels leave its last maps 2 × 2 positions
        return t.MobileNetV2ImageProcessorPil(
            size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
        )
    if kind.startswith("dinov2"):
        return t.BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    if kind == "clip-vision":
        return t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return t.ViTImageProcessorPil(size={"height": 32, "width": 32})


def assert_same(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


# What is requested ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "kind", "source", "untrained", "label"),
    [
        ("tiny-ldm", "model", str(packaged("tiny-ldm")), False, "tiny-ldm"),
        (
            "vision:facebook/dinov2-base",
            "vision",
            "facebook/dinov2-base",
            False,
            "vision:facebook/dinov2-base",
        ),
        ("untrained:latent:sd1.5", "latent", registered_models()["sd1.5"].source, True, "latent:sd1.5"),
        ("text:untrained:sd1.5", "text", registered_models()["sd1.5"].source, True, "text:sd1.5"),
        ("pixels", "pixels", "", False, "pixels"),
        ("pixels:128", "pixels", "128", False, "pixels:128"),
        ("dinov2-base", "vision", "facebook/dinov2-base", False, "dinov2-base"),
        ("untrained:dinov2-base", "vision", "facebook/dinov2-base", True, "dinov2-base"),
    ],
)
def test_prefixes_name_what_is_requested(requested, kind, source, untrained, label):
    found = find_model(requested)
    assert (found.kind, found.source, found.untrained, found.label) == (kind, source, untrained, label)


def test_a_folder_is_named_without_the_way_to_it_even_with_a_colon(tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    found = find_model(f"vision:{folder}")
    assert (found.kind, found.source, found.label) == ("vision", str(folder), "vision:a:b")


@pytest.mark.parametrize(
    ("requested", "error", "message"),
    [
        ("vison:x/y", UnknownNameError, "Unknown prefix 'vison'. Did you mean 'vision'?"),
        ("latent:dinov2-base", BadInputError, "latent and vision at once"),
        ("text:latent:sd1.5", BadInputError, "text and latent at once"),
        ("vision:", BadInputError, "names no model"),
        ("untrained:pixels", BadInputError, "Pixels have no weights"),
        ("pixels:0", BadInputError, "1 to 1024"),
        ("pixels:big", BadInputError, "1 to 1024"),
        ("latent:tiny-ldn", UnknownNameError, "Did you mean 'tiny-ldm'"),
        ("C:\\models\\mine", UnknownNameError, "Unknown model"),
    ],
)
def test_what_cannot_be_opened_is_an_error(requested, error, message):
    with pytest.raises(error, match=message):
        lk.load_model(requested, device="cpu")


# Preprocessing ----------------------------------------------------------------------------------------


# As repositories have them, the first versions of transformers wrote the older ones: what is done to an image by hand,
# (shorter side, or exact height and width; crop).
CLIP = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}
BIT = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224}
PROCESSORS = {
    "clip": ({**CLIP, "do_center_crop": True, "image_mean": [0.48, 0.46, 0.41]}, 224, (224, 224)),
    "clip, values as they are": ({**CLIP, "do_normalize": False, "do_rescale": False}, 224, (224, 224)),
    "clip, smaller than its crop": ({**CLIP, "size": {"shortest_edge": 100}}, 100, (224, 224)),
    "clip, not scaled": (
        {**CLIP, "do_resize": False, "crop_size": {"height": 20, "width": 10}},
        None,
        (20, 10),
    ),
    "dinov2": ({**BIT, "resample": 3}, 256, (224, 224)),
    "vit": ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, (224, 224), (224, 224)),
    "siglip": ({"image_processor_type": "SiglipImageProcessor"}, (224, 224), (224, 224)),
    "convnext": ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}, 256, (224, 224)),
    "convnext, large": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
        (384, 384),
        (384, 384),
    ),
    "deit": (
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "resample": 3},
        (256, 256),
        (224, 224),
    ),
    "dinov3": (
        {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 2},
        (224, 224),
        (224, 224),
    ),
    "absent": (None, 96, (96, 96)),
}


def encoder_with(folder, kind, config):
    """A vision model without a network: its preprocessing alone."""
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    network = SimpleNamespace(model_type=f"{kind}_vit", image_size=96)
    processor = load_processor(Place(str(folder)), network)
    identity = Identity(kind, kind, "0", "float32", "VisionEncoder")
    return VisionEncoder(identity, torch.nn.Identity(), {"processor": processor}, torch.device("cpu"))


def by_hand(image, scaled, height, width, processor):
    """Scale and crop with Pillow alone; float64 values."""
    if isinstance(scaled, int):
        longer = int(scaled * max(image.size) / min(image.size))
        scaled = (longer, scaled) if image.width <= image.height else (scaled, longer)
    if scaled is not None:
        image = image.resize(scaled[::-1], Image.Resampling(int(processor.resample)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    shown = np.asarray(image.crop((left, top, left + width, top + height)))
    values = shown.transpose(2, 0, 1) / (255 if processor.do_rescale else 1)
    if processor.do_normalize:
        mean, std = (np.reshape(x, (3, 1, 1)) for x in (processor.image_mean, processor.image_std))
        values = (values - mean) / std
    return shown, values


@pytest.mark.parametrize("kind", PROCESSORS)
def test_preprocessing_is_what_the_models_configuration_says(kind, tmp_path):
    config, scaled, crop = PROCESSORS[kind]
    model = encoder_with(tmp_path, kind, config)
    rng = np.random.default_rng(0)
    for width, height in ((300, 200), (181, 333), (224, 224), (50, 61)):
        image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        shown, values = by_hand(image, scaled, *crop, model.components["processor"])
        assert np.array_equal(model.preprocess(image), shown)
        encoded = model.encode([image])
        assert encoded.shape == (1, *model.latent_shape)
        assert_same(encoded[0], values)
        assert np.array_equal(model.decode(encoded)[0], shown)
    assert json.loads(json.dumps(model.preprocessing)) == model.preprocessing


def test_images_of_several_sizes_are_an_error(tmp_path):
    model = encoder_with(tmp_path, "clip", {**CLIP, "do_center_crop": False})
    with pytest.raises(BadInputError, match="several sizes.*crop_size"):
        _ = model.latent_shape


# Vision models ----------------------------------------------------------------------------------------

# What an image's one vector is, where the model itself gives none.
WITHOUT_POOLER = {
    "ijepa": lambda state: state.mean(1),
    "vit-msn": lambda state: state[:, 0],
    "data2vec": lambda state: state[:, 0],
}


@pytest.mark.parametrize("kind", KINDS)
def test_vision_features_equal_transformers_own(kind, vision_folders, stimuli):
    """Its own processor, its own hidden states; none of our hooks, cuts or pooling."""
    from transformers import AutoModel

    folder = vision_folders(kind)
    model = lk.load_model(f"vision:{folder}", device="cpu")
    store = lk.extract(model, stimuli, noise_levels=[0.0], batch_size=4, progress=False)
    plain, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    opened = [stimuli.open(name) for name in stimuli.names]
    values = processor_of(kind)(opened, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = plain.eval()(values, output_hidden_states=True)
    *layers, last = model.select_blocks()
    assert last == "embedding"
    prefix = KINDS[kind][3]
    states = output.hidden_states[1:] if len(output.hidden_states) > len(layers) else output.hidden_states
    assert len(states) == len(layers)
    for layer, state in zip(layers, states, strict=True):
        pooled = state.mean((2, 3)) if prefix is None else state[:, prefix:].mean(1)
        assert_same(store[layer, 0.0, "none"], pooled)
    embedding = output.get("pooler_output")
    if embedding is None:
        embedding = WITHOUT_POOLER[kind](output.last_hidden_state)
    assert_same(store["embedding", 0.0, "none"], embedding.flatten(1))


def test_clip_gives_its_image_embedding_from_any_of_its_forms(tmp_path, stimuli):
    from transformers import CLIPModel, CLIPVisionModelWithProjection

    whole = save_tiny_clip(tmp_path / "clip")
    plain = CLIPModel.from_pretrained(whole).eval()
    half = CLIPVisionModelWithProjection(plain.config.vision_config)
    half.config.projection_dim = 12
    half = CLIPVisionModelWithProjection(half.config)
    half.load_state_dict({k: v for k, v in plain.state_dict().items() if k.startswith("vis")})
    half.save_pretrained(tmp_path / "half")
    for folder in (whole, tmp_path / "half"):
        model = lk.load_model(f"vision:{folder}", device="cpu")
        values = model.encode([stimuli.open(name) for name in stimuli.names])
        with torch.no_grad():
            expected = plain.visual_projection(plain.vision_model(values).pooler_output)
        store = lk.extract(model, stimuli, blocks="embedding", noise_levels=[0.0], progress=False)
        assert_same(store["embedding", 0.0, "none"], expected)


def test_random_weights_of_a_pooler_never_pass_for_learnt_ones(tmp_path, stimuli):
    """A classifier is saved without the pooler, which AutoModel would then make up."""
    from transformers import ViTConfig, ViTForImageClassification

    classifier = livened(ViTForImageClassification(ViTConfig(**PATCHES))).eval()
    classifier.save_pretrained(tmp_path)
    model = lk.load_model(f"vision:{tmp_path}", device="cpu")
    store = lk.extract(model, stimuli, blocks="embedding", noise_levels=[0.0], progress=False)
    with torch.no_grad():
        state = classifier.vit(model.encode([stimuli.open(name) for name in stimuli.names])).last_hidden_state
    assert_same(store["embedding", 0.0, "none"], state[:, 0])


@pytest.mark.parametrize("kind", ["dinov2", "convnext", "swin"])
def test_vision_features_do_not_change_with_the_batch_size(kind, vision_folders, stimuli):
    model = lk.load_model(f"vision:{vision_folders(kind)}", device="cpu")
    one, seven = (
        lk.extract(model, stimuli, noise_levels=[0.0], batch_size=size, progress=False) for size in (1, 7)
    )
    for key in one.cells():
        assert_same(seven[key], one[key])


def test_a_vision_pass_stops_at_the_deepest_block_that_is_asked_for(vision_folders, stimuli):
    model = lk.load_model(f"vision:{vision_folders('vit')}", device="cpu")
    whole = lk.extract(model, stimuli, noise_levels=[0.0], progress=False)
    calls = []
    for name, module in model.denoiser.named_modules():
        if name.startswith("layers.") and name.count(".") == 1:
            module.register_forward_hook(lambda m, i, o, name=name: calls.append(name))
    part = lk.extract(model, stimuli[:2], blocks="layers.0", noise_levels=[0.0], progress=False)
    assert calls == ["layers.0"]
    assert_same(part["layers.0", 0.0, "none"], whole["layers.0", 0.0, "none"][:2])
    again = lk.extract(model, stimuli, noise_levels=[0.0], progress=False)  # nothing is left of the hooks
    assert_same(again["embedding", 0.0, "none"], whole["embedding", 0.0, "none"])


def test_tokens_and_maps_are_kept_without_what_stands_in_front(vision_folders, stimuli):
    model = lk.load_model(f"vision:{vision_folders('dinov2-registers')}", device="cpu")
    store = lk.extract(model, stimuli, noise_levels=[0.0], pooling="none", progress=False)
    assert store["encoder.layer.0", 0.0, "none"].shape == (9, 16, 16)
    assert store["embedding", 0.0, "none"].shape == (9, 16)


def test_the_block_table_tells_kinds_and_layouts(vision_folders):
    table = lk.load_model(f"vision:{vision_folders('resnet')}", device="cpu").blocks()
    assert list(table["kind"]) == ["stage"] * 4 + ["readout"]
    assert list(table["layout"]) == ["map"] * 4 + ["vector"]
    assert list(table["channels"]) == [8, 12, 16, 20, 20]
    assert table["stage"].all()
    assert (table["parameters"].iloc[:4] > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("text", "reads no images.*text:NAME"),
        ("masked", "ViTMAELayer.*register_output_layout"),
        ("lacking", r"lack \d+ entries, the first is 'layers"),
        ("pickled", "safetensors"),
        ("damaged", r"preprocessor_config\.json.*not a valid JSON"),
        ("empty", r"no config\.json.*Open a diffusion model without"),
    ],
)
def test_what_is_no_vision_model_is_an_error(tmp_path, make, message):
    import transformers as t
    from safetensors.torch import load_file, save_file

    tmp_path /= "model"
    tmp_path.mkdir()
    weights = tmp_path / "model.safetensors"
    if make == "text":
        small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        t.BertModel(t.BertConfig(**small, intermediate_size=8)).save_pretrained(tmp_path)
    elif make == "masked":  # hides patches at random, a batch at a time
        t.ViTMAEModel(t.ViTMAEConfig(**PATCHES)).save_pretrained(tmp_path)
    elif make != "empty":
        save_tiny_vision(tmp_path, "vit")
    if make == "lacking":
        save_file(
            {k: v for k, v in load_file(weights).items() if "layers.1" not in k and "layer.1" not in k},
            weights,
            {"format": "pt"},
        )
    elif make == "pickled":
        torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
        weights.unlink()
    elif make == "damaged":
        (tmp_path / "preprocessor_config.json").write_text("{not json")
    error = BadInputError if make in ("text", "masked") else ModelNotFoundError
    with pytest.raises(error, match=message):
        lk.load_model(f"vision:{tmp_path}", device="cpu")


def test_an_alias_opens_a_vision_model(monkeypatch, tmp_path, vision_folders):
    own = tmp_path / "models.yaml"
    own.write_text(f"mine:\n  source: vision:{vision_folders('vit')}\n")
    monkeypatch.setenv("LDM_KIT_MODELS", str(own))
    model = lk.load_model("mine", device="cpu")
    assert (model.identity.model, model.identity.source, model.identity.family) == (
        "mine",
        "vit",
        "VisionEncoder",
    )
    assert lk.load_model("untrained:mine", device="cpu").identity.model == "mine-untrained"
    own.write_text("control:\n  source: untrained:tiny-ldm\n")
    assert lk.load_model("control", device="cpu").identity.revision.endswith("of seed 0")


# Without noise, without text --------------------------------------------------------------------------


def test_an_encoder_takes_no_noise_and_reads_no_text(vision_folders):
    model = lk.load_model(f"vision:{vision_folders('vit')}", device="cpu")
    assert (model.takes_noise, model.reads_text) == (False, False)
    level = model.level(0)
    assert (level.level, level.timestep, level.sigma, level.signal, level.noise) == (0.0, 0, 0.0, 1.0, 0.0)
    values = torch.randn(2, *model.latent_shape)
    noise = model.noise(["a", "b"], seed=3)
    assert noise.shape == values.shape
    assert not noise.any()
    assert torch.equal(model.add_noise(values, noise, level), values)
    with pytest.raises(BadInputError, match=r"0\.3.*takes no noise.*noise_levels=\[0\.0\]"):
        model.level(0.3)
    with pytest.raises(BadInputError, match="outside 0 to 1"):
        model.level(30)
    with pytest.raises(BadInputError, match="reads no text such as 'a cat'.*'none'"):
        model.texts(["", "a cat"])


def test_the_empty_prompt_is_refused_by_a_model_that_reads_no_text(sd_folder):
    stimuli = lk.load_dataset("emoji").stimuli[:2]
    ask = {"noise_levels": [0.0], "conditionings": ["none", "empty"], "progress": False}
    with pytest.raises(
        BadInputError, match="'pixels' reads no text, .* conditioned on 'empty'.*'none' alone"
    ):
        lk.extract(lk.load_model("pixels"), stimuli, **ask)
    store = lk.extract(lk.load_model(f"text:{sd_folder}", device="cpu"), stimuli, **ask)
    assert_same(store["mean", 0.0, "empty"], store["mean", 0.0, "none"])


def test_a_diffusion_model_takes_noise_and_reads_text(sd_folder):
    model = lk.load_model(sd_folder, device="cpu")
    assert (model.takes_noise, model.reads_text) == (True, True)
    with pytest.raises(BadInputError, match="conditioned on text, not on images"):
        model.text_of_pictures([])


# Latent, pixels, text ---------------------------------------------------------------------------------


def test_the_latent_is_the_diffusion_models_own_and_needs_its_vae_alone(tmp_path, stimuli):
    folder = save_tiny_stable_diffusion(tmp_path)
    whole = lk.load_model(folder, device="cpu")
    opened = [stimuli.open(name) for name in stimuli.names]
    expected = whole.encode(opened)
    for part in ("unet", "text_encoder"):
        next((folder / part).glob("*.safetensors")).unlink()
    model = lk.load_model(f"latent:{folder}", device="cpu")
    assert model.identity.model == "latent:model"
    assert model.preprocessing == whole.preprocessing
    store = lk.extract(model, stimuli, noise_levels=[0.0], pooling="none", batch_size=4, progress=False)
    assert store.blocks == ("latent",) or list(store.blocks) == ["latent"]
    assert_same(store["latent", 0.0, "none"], expected)
    assert np.array_equal(model.decode(expected[:1])[0], whole.decode(expected[:1])[0])
    draw = torch.ones(1, *model.latent_shape)
    assert not torch.equal(model.encode(opened[:1], posterior=draw), model.encode(opened[:1]))


def test_pixels_are_the_pictures(stimuli):
    model = lk.load_model("pixels:16", device="cpu")
    store = lk.extract(model, stimuli, noise_levels=[0.0], pooling="none", progress=False)
    opened_image = model.preprocess(stimuli.open(stimuli.names[2]))
    expected = np.asarray(opened_image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
    assert_same(store["pixels", 0.0, "none"][2], expected)
    assert lk.load_model("pixels", device="cpu").latent_shape == (3, 64, 64)


def test_text_is_the_padded_encoders_own_at_the_prompts_tokens(sd_folder, stimuli):
    """Compared with a padded run, as Stable Diffusion has it, cut by hand at the end mark."""
    model = lk.load_model(f"text:{sd_folder}", device="cpu")
    assert (model.takes_noise, model.reads_text) == (False, True)
    assert model.select_blocks() == ["last_token", "mean"]
    blocks = ["last_token", "mean", "layers.0.last_token", "layers.0.mean"]
    store = lk.extract(
        model,
        stimuli,
        blocks=blocks,
        noise_levels=[0.0],
        conditionings=["label", "none"],
        template="{name}",
        progress=False,
    )
    tokenizer, encoder = model.components["tokenizer"], model.components["text_encoder"]
    for row, prompt in enumerate(store.prompts("label")):
        ids = tokenizer(prompt, padding="max_length", max_length=16, return_tensors="pt").input_ids
        with torch.no_grad():
            output = encoder(ids, output_hidden_states=True)
        end = ids[0].tolist().index(tokenizer.eos_token_id)
        for prefix, state in (("", output.last_hidden_state), ("layers.0.", output.hidden_states[1])):
            assert_same(store[prefix + "last_token", 0.0, "label"][row], state[0, end])
            assert_same(store[prefix + "mean", 0.0, "label"][row], state[0, : end + 1].mean(0))
    alike = store["mean", 0.0, "none"]
    assert (alike == alike[0]).all()
    with pytest.raises(BadInputError, match="reads text alone"):
        model.decode(torch.zeros(1, 1, 1, 1))


def test_a_long_prompt_is_cut_where_the_encoder_ends(sd_folder):
    model = lk.load_model(f"text:{sd_folder}", device="cpu")
    a, b = model.text("a" * 40), model.text("a" * 50)
    assert torch.equal(a["mean"], b["mean"])


# Untrained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requested", ["", "latent:", "text:", "vision:"])
def test_untrained_networks_are_seeded_and_need_no_weights(requested, tmp_path, vision_folders):
    folder = (
        save_tiny_stable_diffusion(tmp_path) if requested != "vision:" else save_tiny_vision(tmp_path, "vit")
    )
    part = {"": "denoiser", "vision:": "denoiser", "latent:": "vae", "text:": "text_encoder"}[requested]

    def weights(model):
        network = model.denoiser if part == "denoiser" else model.components[part]
        return torch.cat([p.flatten() for p in network.parameters()])

    trained = weights(lk.load_model(requested + str(folder), device="cpu"))
    own = {"": "unet", "latent:": "vae", "text:": "text_encoder", "vision:": "."}[requested]
    next((folder / own).glob("*.safetensors")).unlink()
    state = torch.random.get_rng_state()
    model = lk.load_model(f"untrained:{requested}{folder}", device="cpu", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    same = lk.load_model(requested + str(folder), device="cpu", pretrained=False, seed=1)
    other = lk.load_model(requested + str(folder), device="cpu", pretrained=False, seed=2)
    assert model.identity == same.identity
    assert model.identity.model.endswith("-untrained")
    assert model.identity.revision.endswith("of seed 1")
    assert torch.equal(weights(model), weights(same))
    for different in (trained, weights(other)):
        assert not torch.equal(weights(model), different)
    assert len(model.blocks())


def test_vae_and_text_encoder_of_an_untrained_denoiser_stay(sd_folder):
    trained = lk.load_model(sd_folder, device="cpu")
    model = lk.load_model(f"untrained:{sd_folder}", device="cpu")
    for part in ("vae", "text_encoder"):
        for a, b in zip(
            trained.components[part].parameters(), model.components[part].parameters(), strict=True
        ):
            assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "pixart"])
def test_every_family_has_its_latent_text_and_untrained_forms(family, tmp_path):
    import tiny_families

    folder = getattr(tiny_families, f"save_tiny_{family}")(tmp_path)
    model = lk.load_model(folder, device="cpu")
    opened_image = [Image.linear_gradient("L").convert("RGB")]
    latent = lk.load_model(f"latent:{folder}", device="cpu")
    assert torch.equal(latent.encode(opened_image), model.encode(opened_image))
    text = lk.load_model(f"text:{folder}", device="cpu").text("a cat")
    assert torch.isfinite(text["mean"]).all()
    untrained = lk.load_model(f"untrained:{folder}", device="cpu")
    assert list(untrained.blocks()["block"]) == list(model.blocks()["block"])
    name, weight = next(iter(untrained.denoiser.named_parameters()))
    assert not torch.equal(weight, model.denoiser.get_parameter(name))


# Everywhere -------------------------------------------------------------------------------------------


def test_nothing_opens_a_socket(no_network, monkeypatch, vision_folders, sd_folder):
    monkeypatch.setenv("LDM_KIT_OFFLINE", "1")
    for requested in (
        f"vision:{vision_folders('vit')}",
        f"latent:{sd_folder}",
        f"text:{sd_folder}",
        "pixels",
    ):
        model = lk.load_model(requested, device="cpu")
        model.watch(
            model.encode([Image.new("RGB", (40, 40))]),
            model.level(0),
            model.texts([""]),
            model.select_blocks(),
        )
    with pytest.raises(ModelNotFoundError, match="the offline switch is on"):
        lk.load_model("vision:facebook/dinov2-base")
    with pytest.raises(ModelNotFoundError, match="the offline switch is on"):
        lk.load_model("latent:sd1.5")


@pytest.mark.slow
def test_every_baseline_runs_on_the_emoji(vision_folders):
    stimuli = lk.load_dataset("emoji").stimuli[:3]
    for requested in (
        "pixels",
        "latent:tiny-ldm",
        "text:tiny-ldm",
        "untrained:tiny-ldm",
        f"vision:{vision_folders('vit')}",
    ):
        model = lk.load_model(requested, device="cpu")
        levels = [0.5] if model.takes_noise else [0.0]
        conditioning = "label" if model.reads_text else "none"
        store = lk.extract(model, stimuli, noise_levels=levels, conditionings=conditioning, progress=False)
        for key in store.cells():
            assert np.isfinite(store[key]).all()
            assert len(np.unique(store[key], axis=0)) == 3
