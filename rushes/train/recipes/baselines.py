"""The usual baselines on Reels, and CLIP4Clip's and DRL's on MSR-VTT as a check of the whole path.

On Reels they are measured (docs/results.md). What their authors report on MSR-VTT is known; that our setting gives it
is not measured.
"""

from __future__ import annotations

from rushes.train.recipes import family
from rushes.train.run import Run


def meanpool() -> Run:
    """CLIP4Clip's mean pooling: the temperature alone is learnt, so this is what features give by themselves, on Reels.

        rushes train baselines/meanpool --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 7 seconds of a core to train.
    Expect: R@1 9.0 on test (docs/results.md); a shot among several is averaged away.
    """
    return family.reels("meanpool", {}, rate=1e-4)


def seqtransf() -> Run:
    """CLIP4Clip's temporal transformer before the mean, on Reels.

        rushes train baselines/seqtransf --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 39 seconds of a core to train.
    Expect: R@1 8.2 on test (docs/results.md); meanpool 9.0; under "paragraph" 36.1 and 19.7.
    """
    return family.reels("seqtransf", {}, rate=1e-4)


def xpool() -> Run:
    """X-Pool's text-conditioned pooling, on Reels.

        rushes train baselines/xpool --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 31 seconds of a core to train.
    Expect: R@1 24.3 on test (docs/results.md); meanpool 9.0; under "paragraph" 10.7 and 19.7.
    """
    return family.reels("xpool", {}, rate=1e-4)


def wti() -> Run:
    """DRL's weighted token interaction, on Reels.

        rushes train baselines/wti --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 14 seconds of a core to train.
    Expect: R@1 18.9 on test (docs/results.md); meanpool 9.0; under "paragraph" 21.4 and 19.7.
    """
    return family.reels("wti", {}, rate=1e-4)


def xclip() -> Run:
    """X-CLIP's attention over similarity, on Reels.

        rushes train baselines/xclip --root PICTURES --out DIR

    Cost: some 10 minutes of a core to compute features of 3,111 reels, once; 70 seconds of a core to train.
    Expect: R@1 24.3 on test (docs/results.md); meanpool 9.0; under "paragraph" 30.2 and 19.7.
    """
    return family.reels("xclip", {}, rate=3e-4)


def seqtransf_msrvtt() -> Run:
    """CLIP4Clip's temporal transformer, on MSR-VTT 1k-A.

        rushes train baselines/seqtransf_msrvtt --root DIR --out DIR

    Cost: 0.78 GPU-hours at 100 TFLOP/s for 11 million frames, 0.9 million videos decoded; arithmetic, not measured.
    Expect: its authors report t2v R@1 44.5.
    """
    return family.short("seqtransf", "msrvtt", "1k-A-9k", "last", {})


def wti_msrvtt() -> Run:
    """DRL's weighted token interaction, without its temporal transformer, on MSR-VTT 1k-A.

        rushes train baselines/wti_msrvtt --root DIR --out DIR

    Cost: 0.78 GPU-hours at 100 TFLOP/s for 11 million frames, 0.9 million videos decoded; arithmetic, not measured.
    Expect: DRL reports 46.6 with that transformer, TI with it 44.8; without it no number was found.
    """
    return family.short("wti", "msrvtt", "1k-A-9k", "last", {"summary": 0.0})
