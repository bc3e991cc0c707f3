"""DMAE with TPM-CL (Jiang et al. 2023) on its benchmarks, on LSMDC, and on Reels.

Known, second hand (docs/papers/dmae.md): t2v R@1 46.9 on MSR-VTT, and 49.9 with ViT-B/16. Its code is a port to another
backbone (AdamW, one rate of 1e-5, steps instead of a cosine), which is no recipe for CLIP. Not known: the paper's
optimiser, rates, epochs, batch, margin, and its numbers on MSVD, DiDeMo and ActivityNet; LSMDC is not among its
benchmarks. The setting is the family's. One point of R@1 on a test set of a thousand is ten queries: take three seeds.

Costs are arithmetic, nothing here was run at full size yet: GPU-hours at 100 TFLOP/s, and how many times a video is
decoded, which on few cores takes longer than the rest.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from rushes.methods.dmae import DMAE
from rushes.train.recipes import family
from rushes.train.recipes.family import long, short
from rushes.train.run import Run

SHORT = asdict(DMAE.Config.paper())
LONG = asdict(replace(DMAE.Config.paper(), words=64, frames=64))


def msrvtt() -> Run:
    """MSR-VTT 1k-A, all 9,000 training videos.

        rushes train dmae/msrvtt --root DIR --out DIR

    Cost: 0.78 GPU-hours for 11 million frames, 0.9 million videos decoded.
    Expect: 46.9 t2v R@1, as others quote the paper; 1.6 is one standard error of a thousand queries.
    """
    return short("dmae", "msrvtt", "1k-A-9k", "last", SHORT)


def msvd() -> Run:
    """MSVD.

        rushes train dmae/msvd --root DIR --out DIR

    Cost: 0.21 GPU-hours for 2.9 million frames, 0.24 million videos decoded.
    Expect: not known; TS2-Net and DRL, its parents, are the yardstick.
    """
    return short("dmae", "msvd", "official", "best", SHORT)


def lsmdc() -> Run:
    """LSMDC 2016.

        rushes train dmae/lsmdc --root DIR --out DIR

    Cost: 0.44 GPU-hours for 6.1 million frames, 0.51 million videos decoded.
    Expect: not known, the paper does not have it.
    """
    return short("dmae", "lsmdc", "2016", "best", SHORT)


def didemo() -> Run:
    """DiDeMo, paragraph to video.

        rushes train dmae/didemo --root DIR --out DIR

    Cost: 0.26 GPU-hours for 2.7 million frames, 42 thousand videos decoded.
    Expect: not known; TS2-Net reports t2v R@1 41.8.
    """
    return long("dmae", "didemo", "official", "best", LONG)


def activitynet() -> Run:
    """ActivityNet, paragraph to video, all 10,009 training videos.

        rushes train dmae/activitynet --root DIR --out DIR

    Cost: 0.31 GPU-hours for 3.2 million frames, 50 thousand videos decoded.
    Expect: not known; TS2-Net reports t2v R@1 41.0.
    """
    return long("dmae", "activitynet", "val1", "last", LONG)


def reels() -> Run:
    """Reels of photos, a caption of one shot finds the reel; our default switches.

        rushes train dmae/reels --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 21 seconds of a core to train.
    Expect: R@1 20.1 on test (docs/results.md); meanpool 9.0; under "paragraph" 14.6 and 19.7. On frozen features
    nothing is learnt: the default has no parameters but the backbone's.
    """
    return family.reels("dmae", {}, rate=1e-4)
