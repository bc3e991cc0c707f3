"""The setting that CLIP4Clip (Luo et al. 2021) began and its followers share, with our deviations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rushes.train.run import Run

B32, B16 = "openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16"


def short(method: str, data: str, protocol: str, select: str, switches: Mapping[str, Any]) -> Run:
    """Clips of some seconds and one sentence: MSR-VTT, MSVD, LSMDC.

    As the family: CLIP ViT-B/32, 12 frames of one a second, evenly spread, 32 words, batches of 128 captions, 5 epochs
    of captions, 1e-4 for new modules, decay 0.2, a tenth of the steps to warm up, a cosine after, norm 1. Ours:
    AdamW with bias correction and fp32 weights under bf16 arithmetic, where the family has Adam without, on fp16
    weights; the backbone's rate is 1e-6, theirs 1e-7 (at which half of the fp16 updates round away); a video is in a
    batch once; the epoch is the last, or the best on val, theirs the best on the test set.
    """
    return Run(
        method=method,
        data=data,
        protocol=protocol,
        switches=dict(switches),
        backbone=B32,
        end_to_end=True,
        epoch_of="captions",
        draw=False,
        precision="bf16",
        select="best" if select == "best" else "last",
        workers=8,
    )


def long(method: str, data: str, protocol: str, select: str, switches: Mapping[str, Any]) -> Run:
    """Videos of half a minute and more and a paragraph: DiDeMo, ActivityNet. As `short`, with 64 frames and 64 words.

    Batches are encoded in parts of 16, to fit 24 GB: a third more arithmetic.
    """
    from dataclasses import replace

    return replace(short(method, data, protocol, select, switches), frames=64, words=64, micro=16)


def reels(method: str, switches: Mapping[str, Any], rate: float) -> Run:
    """Reels of captioned photos, on features of the small model: minutes on a CPU once these are computed.

    Each epoch goes through the videos, a caption drawn for each. Under "shot" it is the setting of docs/results.md:
    4 epochs, the epoch and the rate (of 1e-4, 3e-4 and 1e-3) best on val.
    """
    return Run(
        method=method,
        data="reels",
        protocol="shot",
        switches=dict(switches),
        backbone="small",
        epochs=4,
        rate=rate,
        select="best",
    )
