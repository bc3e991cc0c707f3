"""Where inside a segment a text matched: runs of tokens whose evidence stands close to the segment's best."""

from __future__ import annotations

from collections.abc import Sequence

from rushes.types import Moment


def moments(
    evidence: Sequence[float], spans: Sequence[tuple[float, float]], spread: float, join: float = 0.05
) -> tuple[Moment, ...]:
    """Runs of spans within `spread` of the best evidence, the best run first.

    evidence and spans belong together, one for each finest token, in time order; spans are seconds. `spread` is how
    far the evidence of one query varies over everything it was compared with (a standard deviation): less than that
    below the best is no difference, so a segment that matches evenly is one moment from end to end. Runs that lie
    less than `join` seconds apart are one.

    A moment's score is its best evidence. No token gives no moment; one token gives its own span.

    >>> moments([0.1, 0.5, 0.48, 0.1], [(0, 1), (1, 2), (2, 3), (3, 4)], spread=0.1)
    (Moment(start=1, end=3, score=0.5),)
    >>> moments([0.5, 0.1, 0.45], [(0, 1), (1, 2), (2, 3)], spread=0.1)
    (Moment(start=0, end=1, score=0.5), Moment(start=2, end=3, score=0.45))
    """
    if len(evidence) != len(spans):
        raise ValueError(f"{len(evidence)} evidences for {len(spans)} spans; there must be one for each")
    if not evidence:
        return ()
    floor = max(evidence) - spread
    runs: list[Moment] = []
    for value, (start, end) in zip(evidence, spans, strict=True):
        if value < floor:
            continue
        if runs and start - runs[-1].end < join:
            runs[-1] = Moment(runs[-1].start, max(end, runs[-1].end), max(value, runs[-1].score))
        else:
            runs.append(Moment(start, end, value))
    return tuple(sorted(runs, key=lambda run: (-run.score, run.start)))
