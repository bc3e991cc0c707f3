"""CLIP, SigLIP and SigLIP 2: features are the checkpoint's own, whatever the batch and whatever the size of frames."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import rushes
from rushes.backbones.base import TextBatch, flags
from rushes.backbones.clip import Clip, Transform, patch_grid, resized, resized_anywhere, transformed
from rushes.methods.wti import WTI
from rushes.model import Model
from tests.tiny import FAMILIES, WORDS, save_checkpoint

TEXTS = ["A dog catches the red frisbee.", "cat", "naïve ☃ snow, on 2 beaches! " * 3, "man's ball"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp(request.param)
    save_checkpoint(target, request.param)
    return target


@pytest.fixture(scope="module")
def clip(folder) -> Clip:
    return Clip.pretrained(str(folder))


@pytest.fixture(scope="module")
def original(folder):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for weight in model.parameters():  # mapped from the file they lie at odd addresses, and sums differ by a bit
        weight.data = weight.data.clone()
    return model


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth blobs, hard edges and noise: uint8 [count 3 height width]."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
        picture[height // 4 : height // 2, width // 3 : width // 2] = draw.integers(0, 256, 3)
        picture[-(height // 5 or 1) :] = draw.integers(0, 256, picture[-(height // 5 or 1) :].shape)
        made.append(torch.from_numpy(picture).permute(2, 0, 1))
    return torch.stack(made)


# --- words and sentences ---------------------------------------------------------------------------------------------


def test_a_sentence_is_the_checkpoints_own_text_embedding(clip, folder, original):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if clip.family == "clip":
        told = tokenizer(TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt")
    else:  # as its authors say: lower case, padded to the trained length, no mask
        lower = [text.lower() for text in TEXTS]
        told = tokenizer(lower, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        wanted = original.get_text_features(input_ids=told["input_ids"]).pooler_output
        words = clip.words(clip.tokenize(TEXTS))
    assert torch.equal(words.sentence, wanted)
    assert words.vectors.shape == (4, words.mask.shape[1], clip.dim)


def test_every_word_has_a_feature_of_its_own_text(clip):
    batch = clip.tokenize(TEXTS)
    words = clip.words(batch)
    assert torch.equal(words.mask, batch.mask)
    for row in range(len(TEXTS)):
        real = words.vectors[row][words.mask[row]]
        assert len(torch.unique(real.detach(), dim=0)) == len(real) >= 2
    marks = batch.mask.sum(dim=1) - 1
    ends = words.vectors[torch.arange(4), marks]
    if clip.family == "clip":  # the sentence is the feature of the end mark
        assert torch.allclose(ends, words.sentence, atol=1e-6)
    else:  # the sentence is read off the last place, which only the text that was cut fills
        assert torch.allclose(ends[2], words.sentence[2], atol=1e-6) == (batch.mask[2].sum() == clip.positions)


def test_padding_changes_nothing(clip):
    batch = clip.tokenize(TEXTS)
    together = clip.words(batch)
    for row, text in enumerate(TEXTS):
        alone = clip.words(clip.tokenize([text]))
        assert torch.allclose(alone.sentence[0], together.sentence[row], atol=1e-5)
        assert torch.allclose(alone.vectors[0], together.vectors[row][together.mask[row]], atol=1e-5)
    short = clip.tokenize(["cat", "a dog"])
    extra = torch.randint(3, 10, (2, 4))  # ids that mean something: only the mask says that they are padding
    wider = TextBatch(
        torch.cat([torch.where(short.mask, short.ids, 5), extra], dim=1),
        torch.cat([short.mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1),
    )
    narrow, wide = clip.words(short), clip.words(wider)
    assert torch.allclose(narrow.sentence, wide.sentence, atol=1e-5)
    assert torch.allclose(narrow.vectors[short.mask], wide.vectors[wider.mask], atol=1e-5)


def test_a_checkpoint_that_pads_on_the_left_is_padded_on_the_left(folder, original):
    clip = Clip.pretrained(str(folder))
    if clip.family == "clip":
        pytest.skip("a causal tower's place of a word counts from the left")
    clip.tokenizer.padding_side = "left"
    told = clip.tokenizer(
        ["cat", "a dog"], padding="max_length", max_length=16, return_tensors="pt", return_attention_mask=True
    )
    assert told["attention_mask"][0].tolist()[0] == 0
    with torch.no_grad():
        seen = original.get_text_features(input_ids=told["input_ids"])
        words = clip.words(clip.tokenize(["cat", "a dog"]))
        each = original.text_model.head(seen.last_hidden_state)
    assert torch.equal(words.sentence, seen.pooler_output)
    for row in range(2):
        assert torch.allclose(words.vectors[row][words.mask[row]], each[row][told["attention_mask"][row].bool()])


def test_long_texts_are_cut_but_keep_their_end_mark(folder, clip):
    short = Clip.pretrained(str(folder), max_words=6)
    batch = short.tokenize([" ".join(["dog"] * 50), "cat"])
    assert batch.ids.shape == (2, 6)
    assert batch.ids[0, -1] == short.tokenizer.eos_token_id
    assert clip.tokenize([" ".join(["dog"] * 50)]).ids.shape[1] == clip.max_words == clip.positions
    with pytest.raises(ValueError, match=r"max_words is 500; this checkpoint reads 1 to"):
        Clip.pretrained(str(folder), max_words=500)


def test_capitals_do_not_matter(clip):
    assert torch.equal(clip.tokenize(["A Dog"]).ids, clip.tokenize(["a dog"]).ids)


# accents composed and not, letters of two characters in lower case, of several bytes, blanks of all kinds, the cut
RAW = [
    "A Dog  catches\tthe RED frisbee.",
    "  café naïve cafe\u0301 ",
    "man's ball-game, don't!",
    "İ İİ dog ǅ ß ŉ cat",
    "👩‍🚀 dog ☃",
    "犬 dog\u3000cat",
    "THE\n" + "dog ball " * 30,
]


@pytest.mark.parametrize("text", RAW)
def test_offsets_are_places_in_the_text_as_it_was_given(clip, text):
    batch = clip.tokenize(["a cat", text])
    assert batch.offsets.shape == (*batch.mask.shape, 2)
    spans = [tuple(span) for span in batch.offsets[1].tolist()]
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    marks = {clip.tokenizer.bos_token_id, clip.tokenizer.eos_token_id}
    assert all(
        span == (0, 0)
        for span, id, real in zip(spans, batch.ids[1].tolist(), batch.mask[1].tolist(), strict=True)
        if not real or id in marks
    )
    full = [span for span in spans if span != (0, 0)]
    assert full == sorted(full)
    seen = {place for start, end in full for place in range(start, end)}
    missed = "".join(letter for place, letter in enumerate(text[: full[-1][1]]) if place not in seen)
    assert missed.replace("\u0301", "").strip() == ""  # CLIP's accents melt into the letter before them
    for token, (start, end) in zip(clip.tokenizer.convert_ids_to_tokens(batch.ids[1]), spans, strict=True):
        if (word := token.removesuffix("</w>")) in WORDS:  # a token that says what it is
            assert text[start:end].lower() == word


def test_offsets_know_where_lower_case_is_longer(clip):
    spans = clip.tokenize(["İİ dog"]).offsets[0].tolist()
    assert {place for start, end in spans for place in range(start, end)} == {0, 1, 3, 4, 5}


def test_every_piece_of_a_content_word_is_flagged(clip):
    texts = ["A Dog  zigzags to the café", "over it"]
    batch = clip.tokenize(texts)
    flagged = flags(texts, batch, "closed-class")
    assert flagged.shape == batch.mask.shape
    assert not flagged[1].any()
    for (start, end), flag in zip(batch.offsets[0].tolist(), flagged[0].tolist(), strict=True):
        assert flag == (start < end and (2 <= start < 5 or 7 <= start < 14 or start >= 22))
    assert int(flagged[0].sum()) >= (3 if clip.family == "siglip" else 8)  # one tokenizer has whole words only


def test_words_know_their_content_only_where_it_is_asked_for(clip):
    texts = ["A Dog catches", "the cat"]
    words = clip.read(texts, "closed-class")
    assert words.content.shape == words.mask.shape
    assert not (words.content & ~words.mask).any()
    assert torch.equal(words[1:].content, words.content[1:])
    assert torch.equal(words[[1]].vectors, clip.words(clip.tokenize(texts))[[1]].vectors)
    plain = clip.read(texts)
    assert plain.content is None
    assert plain[[0]].content is None


def test_offsets_move_with_their_batch(clip):
    batch = clip.tokenize(["a dog"])
    moved = batch.to("meta")
    assert moved.offsets.device == moved.ids.device == torch.device("meta")
    assert TextBatch(batch.ids, batch.mask).to("meta").offsets is None


def test_a_tokenizer_without_offsets_serves_all_but_content_words(tmp_path):
    from transformers import ByT5Tokenizer

    save_checkpoint(tmp_path, "siglip")
    clip = Clip.pretrained(str(tmp_path))
    slow = Clip(clip.config, clip.towers, ByT5Tokenizer())  # one of those in Python, as the first SigLIP's is
    assert slow.tokenize(["a dog"]).offsets is None
    assert slow.tokenize(["a dog"]).mask.all()
    with pytest.raises(LookupError, match=r"of this Clip does not tell .* without textual attention"):
        slow.read(["a dog"], "closed-class")
    with pytest.raises(LookupError, match="have no offsets"):
        flags(["a dog"], slow.tokenize(["a dog"]), "closed-class")


def test_empty_texts_are_named(clip):
    with pytest.raises(ValueError, match=r"1 of 2 texts are empty \(rows \[1\]\)"):
        clip.tokenize(["a dog", " "])
    with pytest.raises(TypeError, match="pass"):
        clip.tokenize("a dog")


# --- frames ----------------------------------------------------------------------------------------------------------


def processor_of(folder: Path, family: str):
    import transformers

    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[family]
    return getattr(transformers, f"{name}ImageProcessorPil").from_pretrained(folder)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (90, 160), (160, 90), (33, 47), (240, 320), (12, 50)])
def test_a_frame_is_the_checkpoints_own_image_embedding(clip, folder, original, height, width):
    frames = pictures(3, height, width)
    told = processor_of(folder, clip.family)(
        [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames], return_tensors="pt"
    )
    with torch.no_grad():
        wanted = original.get_image_features(**told).pooler_output
        found = clip.frames(frames)
    assert found.shape == (3, clip.dim)
    assert torch.cosine_similarity(found, wanted).min() > 0.9995  # pixels differ by a level here and there
    if clip.config.transform.fit != "patches":
        with torch.no_grad():
            same = original.get_image_features(pixel_values=transformed(frames, clip.config.transform)).pooler_output
        assert torch.equal(found, same)


CLIP224 = Transform(
    fit="crop",
    scale=224,
    side=224,
    resize="bicubic",
    factor=1 / 255,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
SIGLIP256 = Transform(
    fit="squash", scale=256, side=256, resize="bilinear", factor=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
SIZES = [(224, 224), (720, 1280), (640, 361), (240, 320), (479, 853), (37, 51)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("how", [CLIP224, SIGLIP256], ids=["clip-224", "siglip-256"])
def test_pixels_are_those_of_the_pil_processors(how, height, width):
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    pil = (
        CLIPImageProcessorPil()
        if how is CLIP224
        else SiglipImageProcessorPil(size={"height": 256, "width": 256}, resample=2)
    )
    frames = pictures(2, height, width)
    wanted = pil([Image.fromarray(f.permute(1, 2, 0).numpy()) for f in frames], return_tensors="pt")["pixel_values"]
    apart = (transformed(frames, how) - wanted).abs() * torch.tensor(how.std)[:, None, None] * 255
    assert apart.mean() < 0.1  # levels of 255; at hard edges some 20, where PIL takes columns before rows
    assert apart.max() < 25


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (240, 320, (224, 298)),
        (240, 320, (224, 398)),
        (640, 361, (256, 256)),
        (720, 1280, (224, 398)),
        (240, 320, (500, 300)),
        (37, 51, (224, 308)),
        (112, 112, (224, 224)),
        (448, 448, (224, 224)),
        (64, 64, (64, 64)),
    ],
)
def test_resizing_is_pils_rows_first(height, width, size, how):
    frames = pictures(2, height, width)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    wanted = []
    for frame in frames:
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((size[1], height), filters[how])
        wanted.append(np.asarray(picture.resize((size[1], size[0]), filters[how])))
    golden = torch.from_numpy(np.stack(wanted)).permute(0, 3, 1, 2).int()
    for function in (resized, resized_anywhere):
        apart = (function(frames, size, how).int() - golden).abs()
        assert apart.max() <= 2
        assert apart.float().mean() < 0.02


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_a_patch_grid_is_the_largest_that_fits(height, width, most):
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    rows, columns = patch_grid(height, width, most)
    assert 1 <= rows * columns <= most
    if max(rows / height, columns / width) * 16 < 90:  # theirs enlarges a hundredfold at most
        assert (16 * rows, 16 * columns) == get_image_size_for_max_num_patches(height, width, 16, most)


def test_frames_that_are_no_pixels_are_refused(clip):
    with pytest.raises(ValueError, match=r"uint8 \[frame 3 height width\], got torch.float32 \(2, 3, 8, 8\)"):
        clip.frames(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"got torch\.uint8"):
        clip.frames(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


# --- saving, loading, learning ---------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same_to_the_bit(clip, folder, tmp_path):
    model = Model(clip, WTI(clip.dim))
    model.save(tmp_path / "saved")
    files = [file.name for file in (tmp_path / "saved").rglob("*") if file.is_file()]
    assert not [name for name in files if Path(name).suffix in {".bin", ".pt", ".pkl", ".pth"}]
    texts = "".join(file.read_text() for file in (tmp_path / "saved").rglob("*.json"))
    assert str(folder) not in texts
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "saved", moved)
    again = rushes.load(str(moved))
    frames = pictures(2, 50, 70)
    batch, other = clip.tokenize(TEXTS), again.backbone.tokenize(TEXTS)
    assert torch.equal(batch.ids, other.ids)
    assert torch.equal(batch.mask, other.mask)
    assert torch.equal(model.frames(frames), again.frames(frames))
    before, after = model.words(TEXTS), again.words(TEXTS)
    assert torch.equal(before.vectors, after.vectors)
    assert torch.equal(before.sentence, after.sentence)
    for name in ("dim", "image_size", "squash", "max_words", "config"):
        assert getattr(again.backbone, name) == getattr(clip, name)


def test_a_bare_checkpoint_searches_with_mean_pooling(folder):
    model = rushes.load(str(folder))
    tokens = model.texts(["a dog", "cat"])
    assert type(model.method).__name__ == "MeanPool"
    assert torch.allclose(tokens.vectors.norm(dim=-1), torch.ones(2, 1))


def test_what_the_decoder_and_the_methods_are_told(clip):
    told = (clip.dim, clip.image_size, clip.squash, clip.max_words)
    assert told == ((24, 32, False, 24) if clip.family == "clip" else (32, 32, True, 16))
    assert next(clip.parameters()).dtype == torch.float32
    assert not clip.training


def test_every_weight_that_wants_a_gradient_gets_one(folder):
    clip = Clip.pretrained(str(folder)).train()
    words, frames = clip.words(clip.tokenize(TEXTS)), clip.frames(pictures(2, 40, 40))
    (words.vectors.square().mean() + words.sentence.square().mean() + frames.square().mean()).backward()
    dead = [name for name, weight in clip.named_parameters() if weight.requires_grad and weight.grad is None]
    assert dead == []
    frozen = [name for name, weight in clip.named_parameters() if not weight.requires_grad]
    assert all("logit" in name for name in frozen)


# --- what cannot be loaded -------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path) -> Path:
    save_checkpoint(tmp_path / "clip", "clip")
    return tmp_path / "clip"


def test_other_architectures_are_named(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "xclip"}))
    with pytest.raises(LookupError, match=r"'xclip' checkpoint; rushes.backbones.clip reads .*siglip"):
        Clip.pretrained(str(broken))
    (broken / "config.json").write_text(json.dumps({"model_type": "nobody_knows"}))
    with pytest.raises(LookupError, match="nobody_knows"):
        Clip.pretrained(str(broken))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("vocab.json", "tokenizer"),
        ("model.safetensors", "weights as safetensors"),
    ],
)
def test_a_missing_file_is_named(broken, file, says):
    (broken / file).unlink()
    with pytest.raises(LookupError, match=says):
        Clip.pretrained(str(broken))


def test_a_tokenizer_that_needs_another_package_names_it(tmp_path):
    from importlib.util import find_spec

    if find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    save_checkpoint(tmp_path / "siglip", "siglip")
    (tmp_path / "siglip" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    with pytest.raises(LookupError, match=r"SentencePiece.*pip install sentencepiece protobuf"):
        Clip.pretrained(str(tmp_path / "siglip"))


def test_pickled_weights_are_never_read(broken):
    from safetensors.torch import load_file

    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    with pytest.raises(LookupError, match="safetensors"):
        Clip.pretrained(str(broken))


def test_half_a_checkpoint_is_refused_rather_than_filled_with_noise(broken):
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith("vision_model")}
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ weights, vision_model"):
        Clip.pretrained(str(broken))


@pytest.mark.parametrize("change", [{"resample": 1}, {"do_resize": False}, {"crop_size": {"height": 40, "width": 40}}])
def test_a_transform_that_is_not_known_is_refused(broken, change):
    file = broken / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match="known"):
        Clip.pretrained(str(broken))


def test_the_preprocessor_file_of_2021_is_read(broken):
    old = {"crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True, "size": 32, "resample": 3}
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    (broken / "preprocessor_config.json").write_text(json.dumps(old | statistics))
    transform = Clip.pretrained(str(broken)).config.transform
    assert transform == replace(CLIP224, scale=32, side=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))


def test_an_unreachable_hub_is_told_with_the_way_out():
    with pytest.raises(LookupError, match=r"'openai/clip-vit-base-patch32' from the model hub.*local folder"):
        Clip.pretrained("openai/clip-vit-base-patch32")
    with pytest.raises(LookupError, match=r"no folder \./nowhere/clip"):
        Clip.pretrained("./nowhere/clip")


def test_importing_costs_no_transformers():
    program = "import sys, rushes.backbones.clip; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
