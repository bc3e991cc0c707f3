"""CLIP, SigLIP and SigLIP 2 through transformers: any of their checkpoints, by hub id or from a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from rushes.backbones.base import Backbone, TextBatch, Words, checked_texts

if TYPE_CHECKING:  # transformers costs seconds, and is needed only once a checkpoint is
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Loaded = TypeVar("Loaded")
FAMILIES = ("clip", "siglip", "siglip2")  # transformers' model types; a SigLIP 2 of fixed resolution is a "siglip"


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How a frame becomes what the image tower takes; the values are the checkpoint's own.

    fit      "crop": shorter side to `scale` pixels, then the centre square of `side`; "squash": the whole frame into
             that square, proportions lost; "patches": the largest size of (nearly) the frame's own proportions that
             holds at most `scale` patches of `side` pixels (SigLIP 2 naflex)
    resize   the filter; wide enough not to alias when shrinking, as PIL's is
    """

    fit: Literal["crop", "squash", "patches"]
    scale: int
    side: int
    resize: Literal["bilinear", "bicubic"]
    factor: float  # pixel values 0-255 are multiplied by it before mean and std
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Clip(Backbone):
    """Two towers pre-trained on image-text pairs, with a feature for every word.

    Sentence and frame features are exactly the checkpoint's own embeddings. A word's feature is its last state put
    through what the checkpoint does to the sentence's state: in CLIP the final layer norm and the text projection (as
    DRL, X-CLIP and their kin do), in SigLIP the final layer norm and the head. Marks of start and end are words too.

    Padding. CLIP's text tower is causal, so what follows the end mark changes nothing. SigLIP's was trained on texts
    padded to one length *without* a mask, and reads the sentence off the last place, mostly padding: to be right, texts
    are padded to that length here, whatever the batch's own width, and the mask still tells real words from padding.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Backbone.Config):
        towers: dict[str, Any]  # transformers' configuration, whole: it alone rebuilds the towers
        transform: Transform
        max_words: int  # at most the text tower's positions (CLIP 77, SigLIP 64)

    config: Config
    towers: Any  # a PreTrainedModel; its attributes differ from family to family

    def __init__(self, config: Config, towers: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        text, vision = towers.config.text_config, towers.config.vision_config
        self.family: str = towers.config.model_type
        self.dim = towers.config.projection_dim if self.family == "clip" else text.projection_size
        if self.family != "clip" and (vision.hidden_size != self.dim or not vision.vision_use_head):
            raise ValueError(
                f"this {self.family} has no common space: text {self.dim} numbers, image {vision.hidden_size}, "
                f"image head {vision.vision_use_head}; use a checkpoint with both towers' heads"
            )
        self.positions: int = text.max_position_embeddings
        if not 0 < config.max_words <= self.positions:
            raise ValueError(f"max_words is {config.max_words}; this checkpoint reads 1 to {self.positions}")
        transform = config.transform
        if transform.fit != "patches" and transform.side != vision.image_size:
            raise ValueError(f"frames become {transform.side} pixels wide, the image tower takes {vision.image_size}")
        self.config = config
        self.towers = towers
        self.tokenizer = tokenizer
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        if not isinstance(pad, int) and not isinstance(end, int):
            raise ValueError("the tokenizer has neither a padding nor an end token; is it this checkpoint's own?")
        self.padding: Any = pad if isinstance(pad, int) else end
        self.max_words = config.max_words
        self.squash = transform.fit != "crop"  # naflex, too, sees the whole frame
        self.image_size = transform.scale if transform.fit != "patches" else int(transform.scale**0.5) * transform.side
        for name in ("logit_scale", "logit_bias"):  # a method has a temperature of its own
            if hasattr(towers, name):
                getattr(towers, name).requires_grad_(False)

    @classmethod
    def pretrained(cls, name: str, *, max_words: int | None = None) -> Clip:
        """The checkpoint in the folder `name`, or of that hub id: fp32, safetensors only, pickle is never read.

        A checkpoint that is in the hub's local cache is used as it is; only else is the hub asked. LookupError tells
        what is missing or cannot be reached, ValueError what this class cannot do.
        """
        import transformers

        hub = transformers.AutoConfig.from_pretrained
        settings: PretrainedConfig = _load(name, "config.json", lambda local: hub(name, local_files_only=local))
        if settings.model_type not in FAMILIES:
            raise LookupError(f"{name} is a {settings.model_type!r} checkpoint; rushes.backbones.clip reads {FAMILIES}")
        tower_class, processor_class = {
            "clip": (transformers.CLIPModel, transformers.CLIPImageProcessorPil),
            "siglip": (transformers.SiglipModel, transformers.SiglipImageProcessorPil),
            "siglip2": (transformers.Siglip2Model, transformers.Siglip2ImageProcessorPil),
        }[settings.model_type]
        processor = _load(
            name,
            "preprocessor_config.json",
            lambda local: processor_class.from_pretrained(name, local_files_only=local),
        )
        tokenizer = _load(
            name,
            "the tokenizer's files",
            lambda local: transformers.AutoTokenizer.from_pretrained(name, local_files_only=local),
        )
        towers, told = _load(
            name,
            "weights as safetensors",
            lambda local: tower_class.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, local_files_only=local
            ),
        )
        if told["missing_keys"]:
            lacking = sorted(told["missing_keys"])
            raise ValueError(f"{name} lacks {len(lacking)} weights, {lacking[0]} for one; is one tower missing?")
        for weight in towers.parameters():  # out of the mapped file, whose odd addresses make sums differ by a bit
            weight.data = weight.data.clone()
        config = cls.Config(
            towers=_plain(towers.config),
            transform=_transform(name, processor),
            max_words=towers.config.text_config.max_position_embeddings if max_words is None else max_words,
        )
        return cls(config, towers, tokenizer).eval()

    @classmethod
    def build(cls, config: dict[str, Any], folder: str | None) -> Clip:
        import transformers

        if folder is None:
            raise ValueError("a Clip needs the folder with its tokenizer; load the model by its folder")
        family = config["towers"]["model_type"]
        tower_class = {
            "clip": transformers.CLIPModel,
            "siglip": transformers.SiglipModel,
            "siglip2": transformers.Siglip2Model,
        }[family]
        settings = tower_class.config_class.from_dict(config["towers"])
        picture = config["transform"]
        transform = Transform(**{**picture, "mean": tuple(picture["mean"]), "std": tuple(picture["std"])})
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(Path(folder) / "tokenizer"), local_files_only=True)
        own = cls.Config(towers=config["towers"], transform=transform, max_words=config["max_words"])
        return cls(own, tower_class(settings).float(), tokenizer).eval()

    def assets(self, folder: str) -> None:
        self.tokenizer.save_pretrained(str(Path(folder) / "tokenizer"))

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        texts = checked_texts(texts)
        # SigLIP 2 was trained on lower case, which some of its tokenizers leave to the user
        read = texts if self.family == "clip" else [text.lower() for text in texts]
        tells = bool(self.tokenizer.is_fast)  # one in Python forgets which characters a piece came from
        encoded = self.tokenizer(
            read,
            padding=True,
            truncation=True,
            max_length=self.max_words,
            padding_side="right",
            return_attention_mask=True,
            return_offsets_mapping=tells,
            return_tensors="pt",
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"].bool()
        if not tells:
            return TextBatch(ids, mask)
        rows = zip(texts, read, encoded["offset_mapping"], strict=True)
        return TextBatch(ids, mask, torch.stack([_offsets(*row) for row in rows]))

    def text_blocks(self, layers: int) -> dict[str, Tensor] | None:
        if self.family != "clip":
            return None
        tower, text = self.towers.text_model, self.towers.config.text_config
        like = (text.hidden_size, text.intermediate_size, text.hidden_act)
        if like != (self.dim, 4 * self.dim, "quick_gelu") or text.num_hidden_layers < layers:
            return None
        names = {
            "layer_norm1": "norm_attention",
            "self_attn.out_proj": "attended",
            "layer_norm2": "norm_forward",
            "mlp.fc1": "wide",
            "mlp.fc2": "narrow",
        }
        blocks = {"positions": tower.embeddings.position_embedding.weight}
        for number, layer in enumerate(tower.encoder.layers[:layers]):
            for kind in ("weight", "bias"):
                for theirs, ours in names.items():
                    blocks[f"blocks.{number}.{ours}.{kind}"] = getattr(layer.get_submodule(theirs), kind)
                parts = [getattr(layer.get_submodule(f"self_attn.{part}_proj"), kind) for part in "qkv"]
                blocks[f"blocks.{number}.inputs.{kind}"] = torch.cat(parts)
        return {name: weight.detach().clone() for name, weight in blocks.items()}

    def words(self, batch: TextBatch) -> Words:
        counts = batch.mask.sum(dim=1, keepdim=True)
        ids = batch.ids.masked_fill(~batch.mask, self.padding)
        if self.family == "clip":
            seen = self.towers.get_text_features(input_ids=ids)
            return Words(self.towers.text_projection(seen.last_hidden_state), batch.mask, seen.pooler_output)
        # Each word's place among all positions: first come the real ones, or, where the checkpoint's tokenizer pads on
        # the left, last. Padding wraps around into places that no real word has.
        start = self.positions - counts if self.tokenizer.padding_side == "left" else torch.zeros_like(counts)
        place = (start + torch.arange(ids.shape[1], device=ids.device)) % self.positions
        everywhere = ids.new_full((len(ids), self.positions), self.padding).scatter(1, place, ids)
        seen = self.towers.get_text_features(input_ids=everywhere)  # no attention mask: it was trained without
        states = seen.last_hidden_state.gather(1, place[:, :, None].expand(-1, -1, seen.last_hidden_state.shape[2]))
        return Words(self.towers.text_model.head(states), batch.mask, seen.pooler_output)

    def frames(self, pixels: UInt8[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame dim"]:
        how = self.config.transform
        inputs = transformed(pixels, how).to(next(self.towers.parameters()).dtype)
        if how.fit != "patches":
            return self.towers.get_image_features(pixel_values=inputs).pooler_output
        side = how.side
        grid = torch.tensor([[inputs.shape[2] // side, inputs.shape[3] // side]] * len(inputs), device=inputs.device)
        patches = rearrange(inputs, "frame c (y py) (x px) -> frame (y x) (py px c)", py=side, px=side)
        real = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        seen = self.towers.get_image_features(pixel_values=patches, pixel_attention_mask=real, spatial_shapes=grid)
        return seen.pooler_output


def transformed(pixels: UInt8[Tensor, "frame 3 height width"], how: Transform) -> Float[Tensor, "frame 3 tall wide"]:
    """Frames as an image tower takes them: resized, cropped, rescaled, normalised. ValueError for anything but uint8.

    The picture is that of transformers' own PIL processors as closely as `resized` is PIL's.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape:
        raise ValueError(f"frames must be uint8 [frame 3 height width], got {pixels.dtype} {tuple(pixels.shape)}")
    height, width = pixels.shape[2:]
    if how.fit == "crop":
        short = min(height, width)
        size = how.scale * height // short, how.scale * width // short
    elif how.fit == "squash":
        size = how.side, how.side
    else:
        rows, columns = patch_grid(height, width, how.scale)
        size = rows * how.side, columns * how.side
    small = resized(pixels, size, how.resize)
    if how.fit == "crop":
        top, left = (size[0] - how.side) // 2, (size[1] - how.side) // 2
        small = small[:, :, top : top + how.side, left : left + how.side]
    mean, std = (torch.tensor(value, device=small.device)[:, None, None] for value in (how.mean, how.std))
    return (small.float() * how.factor - mean) / std


def resized(
    pixels: UInt8[Tensor, "frame 3 height width"], size: tuple[int, int], how: Literal["bilinear", "bicubic"]
) -> UInt8[Tensor, "frame 3 tall wide"]:
    """Frames of another size (tall, wide), as PIL resizes pictures: along rows, then columns, rounded after each.

    Within 2 of 255 of PIL's values, 0.02 in the mean. Rounding and clamping once at the end would be off by 22, and so
    is PIL itself against itself: newer versions take columns first where that is cheaper. The order here is the one of
    the years in which CLIP and SigLIP were trained.
    """
    if pixels.device.type == "cpu":
        return interpolate(pixels, size, mode=how, antialias=True)  # torch's own uint8 kernel does just that
    return resized_anywhere(pixels, size, how)


def resized_anywhere(
    pixels: UInt8[Tensor, "frame 3 height width"], size: tuple[int, int], how: Literal["bilinear", "bicubic"]
) -> UInt8[Tensor, "frame 3 tall wide"]:
    """`resized` without a uint8 kernel, which only the CPU has: slower there, as close to PIL."""
    for step in ((pixels.shape[2], size[1]), size):
        if tuple(pixels.shape[2:]) != step:
            exact = interpolate(pixels.float(), step, mode=how, antialias=True)
            pixels = (exact + 0.5).floor().clamp(0, 255).to(torch.uint8)  # halves up, as PIL; round() is to even
    return pixels


def patch_grid(height: int, width: int, most: int) -> tuple[int, int]:
    """Rows and columns of the largest grid with a frame's proportions that has at most `most` patches.

    A grid holds the scaled frame whole, so one side is a whole number of patches and the other is rounded up.

    >>> patch_grid(720, 1280, 256)
    (12, 21)
    """
    by_rows = [(rows, -(-rows * width // height)) for rows in range(1, most + 1)]
    by_columns = [(-(-columns * height // width), columns) for columns in range(1, most + 1)]
    return max((rows, columns) for rows, columns in by_rows + by_columns if rows * columns <= most)


def _transform(name: str, processor: Any) -> Transform:
    """What the checkpoint's preprocessor_config.json asks for; ValueError where it asks for something else."""
    filters: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
    if int(processor.resample) not in filters or not processor.do_resize:
        raise ValueError(f"{name} resizes with filter {processor.resample} ({processor.do_resize}); known: {filters}")
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    values = {
        "resize": filters[int(processor.resample)],
        "factor": float(processor.rescale_factor) if processor.do_rescale else 1.0,
        "mean": tuple(float(value) for value in mean),
        "std": tuple(float(value) for value in std),
    }
    patch = getattr(processor, "patch_size", None)
    if patch is not None:
        return Transform(fit="patches", scale=processor.max_num_patches, side=patch, **values)
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    if size.shortest_edge and crop and crop.height == crop.width and crop.height <= size.shortest_edge:
        return Transform(fit="crop", scale=size.shortest_edge, side=crop.height, **values)
    if size.height and size.height == size.width and (crop is None or crop.height == crop.width == size.height):
        return Transform(fit="squash", scale=size.height, side=size.height, **values)
    raise ValueError(f"{name} resizes to {size} and crops {crop}; known: shorter side and centre square, or a square")


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    """A configuration as JSON has it, without the path it came from."""
    import json

    values = json.loads(config.to_json_string(use_diff=False))
    for part in (values, values["text_config"], values["vision_config"]):
        part.pop("_name_or_path", None)
    return values


def _offsets(text: str, read: str, spans: Int[Tensor, "word 2"]) -> Int[Tensor, "word 2"]:
    """Character spans of `read`, which is `text` or its lower case, as spans of `text`, with no blank at either end.

    >>> _offsets("İ  Dog", "İ  Dog".lower(), torch.tensor([[0, 2], [2, 3], [3, 7], [0, 0]])).tolist()
    [[0, 1], [0, 0], [3, 6], [0, 0]]
    """
    # some capitals are two characters in lower case
    origin = [place for place, letter in enumerate(text) for _ in (letter if read is text else letter.lower())]
    found = []
    for start, end in spans.tolist():
        inside = read[start:end]
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        found.append((origin[start], origin[end - 1] + 1) if start < end else (0, 0))
    return torch.tensor(found)


def _load(name: str, what: str, load: Callable[[bool], Loaded]) -> Loaded:
    """`load(True)` reads local files only; where they are not there, `load(False)` may ask the hub.

    A folder is never looked for on the hub. LookupError says what could not be had.
    """
    try:
        if Path(name).is_dir():
            try:
                return load(True)
            except (OSError, ValueError) as error:
                raise LookupError(f"cannot read {what} in the folder {name}: {_first_line(error)}") from error
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise LookupError(f"there is no folder {name}; give the folder of a checkpoint or a hub id")
        try:
            return load(True)
        except (OSError, ValueError):
            pass  # not in the cache, or not all of it
        try:
            return load(False)
        except (OSError, ValueError) as error:
            raise LookupError(
                f"cannot get {what} of {name!r} from the model hub: {_first_line(error)}. Give a local folder with the "
                "checkpoint's files instead."
            ) from error
    except ImportError as error:  # the first SigLIP's tokenizer needs packages that nothing else here does
        raise LookupError(
            f"cannot read {what} of {name}: {_first_line(error)}; `pip install sentencepiece protobuf` and try again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(" Check out")[0].rstrip(".")
