"""The usual baselines on Reels, and CLIP4Clip's and DRL's on MSR-VTT as a check of the whole path.

What their own authors report is known; that our setting gives it is not measured yet.
"""

from __future__ import annotations

from rushes.train.recipes import family
from rushes.train.run import Run


def meanpool() -> Run:
    """CLIP4Clip's mean pooling: the temperature alone is learnt, so this is what features give by themselves, on Reels.

        rushes train baselines/meanpool --root PICTURES --out DIR

    Cost: some 30 minutes on two cores to compute features of 4,000 reels, once; minutes to train.
    Expect: a shot among several is averaged away: the lowest.
    """
    return family.reels("meanpool", {})


def seqtransf() -> Run:
    """CLIP4Clip's temporal transformer before the mean, on Reels.

        rushes train baselines/seqtransf --root PICTURES --out DIR

    Cost: some 30 minutes on two cores to compute features of 4,000 reels, once; minutes to train.
    Expect: no number yet.
    """
    return family.reels("seqtransf", {})


def xpool() -> Run:
    """X-Pool's text-conditioned pooling, on Reels.

        rushes train baselines/xpool --root PICTURES --out DIR

    Cost: some 30 minutes on two cores to compute features of 4,000 reels, once; minutes to train.
    Expect: no number yet; more than meanpool, whose average it mends.
    """
    return family.reels("xpool", {})


def wti() -> Run:
    """DRL's weighted token interaction, on Reels.

        rushes train baselines/wti --root PICTURES --out DIR

    Cost: some 30 minutes on two cores to compute features of 4,000 reels, once; minutes to train.
    Expect: no number yet; more than meanpool.
    """
    return family.reels("wti", {})


def xclip() -> Run:
    """X-CLIP's attention over similarity, on Reels.

        rushes train baselines/xclip --root PICTURES --out DIR

    Cost: some 30 minutes on two cores to compute features of 4,000 reels, once; minutes to train.
    Expect: no number yet; more than meanpool.
    """
    return family.reels("xclip", {})


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
