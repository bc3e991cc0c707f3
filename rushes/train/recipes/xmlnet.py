"""X-MLNet (Kim and Lee 2025) on the five benchmarks its abstract names, and on Reels.

Known, from the authors' code (docs/papers/xmlnet.md): CLIP ViT-B/32, rates 1e-4 and 1e-7, 5 epochs as an option's
default, 12 frames and 32 words, decay 0.2, warm-up of a tenth. Not known: batch, backbone and epochs of each table,
which variant of the code gave them, and every number of the paper: none could be found. So there is no target here but
the models it builds on. Frames are spread evenly; the newer code's configuration takes the first ones.

Costs are arithmetic, nothing here was run at full size yet: GPU-hours at 100 TFLOP/s, and how many times a video is
decoded, which on few cores takes longer than the rest.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from rushes.methods.xmlnet import XMLNet
from rushes.train.recipes import family
from rushes.train.recipes.family import long, short
from rushes.train.run import Run

SHORT = asdict(XMLNet.Config.paper())
LONG = asdict(replace(XMLNet.Config.paper(), words=64, frames=64))


def msrvtt() -> Run:
    """MSR-VTT 1k-A, all 9,000 training videos.

        rushes train xmlnet/msrvtt --root DIR --out DIR

    Cost: 0.78 GPU-hours for 11 million frames, 0.9 million videos decoded.
    Expect: X-CLIP, which it builds on, has t2v R@1 46.1, X-Pool 46.9 (their own reports); its own number is not known.
    """
    return short("xmlnet", "msrvtt", "1k-A-9k", "last", SHORT)


def msvd() -> Run:
    """MSVD.

        rushes train xmlnet/msvd --root DIR --out DIR

    Cost: 0.21 GPU-hours for 2.9 million frames, 0.24 million videos decoded.
    Expect: X-Pool reports t2v R@1 47.2; its own number is not known.
    """
    return short("xmlnet", "msvd", "official", "best", SHORT)


def lsmdc() -> Run:
    """LSMDC 2016.

        rushes train xmlnet/lsmdc --root DIR --out DIR

    Cost: 0.44 GPU-hours for 6.1 million frames, 0.51 million videos decoded.
    Expect: X-Pool reports t2v R@1 25.2; its own number is not known.
    """
    return short("xmlnet", "lsmdc", "2016", "best", SHORT)


def didemo() -> Run:
    """DiDeMo, paragraph to video.

        rushes train xmlnet/didemo --root DIR --out DIR

    Cost: 0.26 GPU-hours for 2.7 million frames, 42 thousand videos decoded.
    Expect: X-CLIP's abstract has t2v R@1 47.8, perhaps with a larger backbone; its own number is not known.
    """
    return long("xmlnet", "didemo", "official", "best", LONG)


def activitynet() -> Run:
    """ActivityNet, paragraph to video, all 10,009 training videos.

        rushes train xmlnet/activitynet --root DIR --out DIR

    Cost: 0.31 GPU-hours for 3.2 million frames, 50 thousand videos decoded.
    Expect: X-CLIP's abstract has t2v R@1 46.2, perhaps with a larger backbone; its own number is not known.
    """
    return long("xmlnet", "activitynet", "val1", "last", LONG)


def reels() -> Run:
    """Reels of photos, a caption of one shot finds the reel; our default switches.

        rushes train xmlnet/reels --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 130 seconds of a core to train.
    Expect: R@1 23.9 on test (docs/results.md); meanpool 9.0; under "paragraph" 32.2 and 19.7.
    """
    return family.reels("xmlnet", {}, rate=3e-4)
