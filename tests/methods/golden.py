"""Golden values: arrays that the authors' own code computed, and their weights under our names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.backbones.base import Frames, Words

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "golden"


def golden(file: str) -> dict[str, Tensor]:
    """The arrays of a golden file, floats as float64; the test is skipped where there is none."""
    if not (FOLDER / file).is_file():
        pytest.skip(f"no golden values {file} beside the repository")
    with np.load(FOLDER / file, allow_pickle=False) as arrays:
        loaded = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    return {name: value.double() if value.is_floating_point() else value for name, value in loaded.items()}


def close(found: Tensor, wanted: Tensor, within: float = 1e-9) -> None:
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() < within


def inputs(arrays: dict[str, Tensor], case: str) -> tuple[Words, Frames]:
    """The features of a case; without word features the sentence is the one word, without a mask all is real."""
    frames = arrays[f"{case}.input.frames_raw"]
    sentence = arrays.get(f"{case}.input.sentence_raw")
    words = arrays[f"{case}.input.words_raw"] if f"{case}.input.words_raw" in arrays else sentence[:, None]
    word_mask = arrays.get(f"{case}.input.word_mask", torch.ones(words.shape[:2])).bool()
    frame_mask = arrays.get(f"{case}.input.frame_mask", torch.ones(frames.shape[:2])).bool()
    spans = torch.arange(frames.shape[1] + 1.0).unfold(0, 2, 1).double().expand(len(frames), -1, -1)
    return (
        Words(words, word_mask, words[:, 0] if sentence is None else sentence),
        Frames(frames, frame_mask, spans),
    )


def weights(arrays: dict[str, Tensor], case: str, names: dict[str, str]) -> dict[str, Tensor]:
    """The weights of a case whose names begin as a key of `names`, with what stands there instead."""
    found = {}
    for theirs, ours in names.items():
        begin = f"{case}.weight.{theirs}"
        found |= {ours + key.removeprefix(begin): value for key, value in arrays.items() if key.startswith(begin)}
    return found


BLOCK = {
    "ln_1": "norm_attention",
    "attn.in_proj_": "inputs.",
    "attn.out_proj": "attended",
    "ln_2": "norm_forward",
    "mlp.c_fc": "wide",
    "mlp.c_proj": "narrow",
}


def temporal(arrays: dict[str, Tensor], case: str, layers: int, positions: int) -> dict[str, Tensor]:
    """State of `layers.TemporalTransformer`."""
    names = {f"transformerClip.resblocks.{n}.{a}": f"blocks.{n}.{b}" for n in range(layers) for a, b in BLOCK.items()}
    return weights(arrays, case, names) | {
        "positions": arrays[f"{case}.weight.frame_position_embeddings.weight"][:positions]
    }


POOL = {
    "cross_attn.q_proj": "query",
    "cross_attn.k_proj": "key",
    "cross_attn.v_proj": "value",
    "cross_attn.out_proj": "pooled",
    "linear_proj": "forth",
    "layer_norm1": "norm_input",
    "layer_norm2": "norm_pooled",
    "layer_norm3": "norm_output",
}

MIXING = {
    "global_mat_weight": "of_whole",
    "local_mat_weight": "of_tokens",
    "word_logit_weight": "words_for_video",
    "frame_logit_weight": "frames_for_sentence",
    "word_mat_weight": "words_first",
    "word_mat_weight2": "words_second",
    "frame_mat_weight": "frames_first",
    "frame_mat_weight2": "frames_second",
}


def mixing(arrays: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    """X-CLIP's matrices. Whole names: some begin as others do."""
    return {ours: arrays[f"{case}.weight.{theirs}"] for theirs, ours in MIXING.items()}
