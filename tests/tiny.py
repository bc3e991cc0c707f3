"""Real CLIP and SigLIP checkpoints of some 60 thousand random parameters, built on the spot."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rushes.backbones.clip import Clip

WORDS = ("a", "dog", "cat", "man", "woman", "catches", "throws", "frisbee", "ball", "red", "on", "the", "beach", "snow")
SIDE = 32  # pixels
FAMILIES = ("clip", "siglip", "siglip2", "siglip2-naflex")  # siglip2 is the one of fixed resolution


@cache
def _folder(family: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{family}-"))
    save_checkpoint(folder, family)
    return folder


def tiny_clip() -> Clip:
    """A CLIP with its own byte-level BPE: 24 numbers a feature, frames of 32 pixels, random weights (seed 0)."""
    return Clip.pretrained(str(_folder("clip")))


def tiny_siglip() -> Clip:
    """A SigLIP with a tokenizer of whole words: 32 numbers a feature, texts padded to 16 tokens without a mask."""
    return Clip.pretrained(str(_folder("siglip")))


def save_checkpoint(folder: Path, family: str, *, seed: int = 0) -> None:
    """Write what a hub has of one of `FAMILIES`."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if family == "clip":
        _save_clip(folder)
    elif family == "siglip2-naflex":
        _save_naflex(folder)
    else:
        _save_siglip(folder, gemma_tokenizer(folder) if family == "siglip2" else word_tokenizer(folder))


def _save_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    vocabulary = clip_tokenizer(folder)
    text = _tower(32) | {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 24,
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }
    config = CLIPConfig(text_config=text, vision_config=_tower(32) | _eye(8), projection_dim=24)
    _save(CLIPModel(config), folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )


def _save_siglip(folder: Path, words: int) -> None:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    config = SiglipConfig(text_config=_tower(32) | _siglip_text(words), vision_config=_tower(32) | _eye(8))
    _save(SiglipModel(config), folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _save_naflex(folder: Path) -> None:
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model

    eye = {"patch_size": 8, "num_patches": 16}
    text = _siglip_text(gemma_tokenizer(folder))
    _save(Siglip2Model(Siglip2Config(text_config=_tower(32) | text, vision_config=_tower(32) | eye)), folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)


def _tower(width: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}


def _eye(patch: int) -> dict[str, Any]:
    return {"image_size": SIDE, "patch_size": patch}


def _siglip_text(words: int) -> dict[str, Any]:
    marks = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return {"vocab_size": words, "max_position_embeddings": 16, "projection_size": 32, **marks}


def _save(model: Any, folder: Path) -> None:
    """Weights ten times as large as a fresh model's, so that attention and words differ visibly."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)


def clip_tokenizer(folder: Path) -> dict[str, int]:
    """Write a byte-level BPE as CLIP's is: every byte, every byte ending a word, and merges that make `WORDS` whole."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [letter + "</w>" for letter in letters]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            if pair not in merges:
                merges.append(pair)
                pieces.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return vocabulary


def gemma_tokenizer(folder: Path) -> int:
    """Write a BPE as Gemma's is, of letters only, set up as SigLIP 2 has it: an end mark, no start mark; its size."""
    from transformers import GemmaTokenizer

    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = {piece: number for number, piece in enumerate([*marks, "▁", *"abcdefghijklmnopqrstuvwxyz"])}
    GemmaTokenizer(
        vocab=pieces,
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
    ).save_pretrained(folder)
    return len(pieces)


def word_tokenizer(folder: Path) -> int:
    """Write a tokenizer.json of whole words that pads with 0 and ends every text with a mark; its number of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right", **marks})
    )
    return len(vocabulary)
