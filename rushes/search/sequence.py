"""One thing, then another: moments of two queries that follow on each other in one video."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rushes.search.pipeline import Ranking, Scored
from rushes.types import Moment

OVERLAP = 0.5  # seconds that the second may begin before the first ends: cuts and fades are not sharp


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A segment of the first query, the moment in it, the moment of the second that follows, and its segment."""

    first: Scored
    moment: Moment
    second: Scored
    then: Moment

    @property
    def score(self) -> float:
        return self.first.score + self.second.score


def follow(first: Ranking, second: Ranking, within: float) -> list[Pair]:
    """Each segment of `first` with the best of `second` that comes after it, best pairs first.

        score = S_1(a) + S_2(b)        both standardised; of sum, minimum and between, the sum found most reels

    A moment of b must begin after a moment of a ends (or `OVERLAP` before that), at most `within` seconds later; both
    may lie in one segment. Where several moments do, the best counts, then the one that comes soonest. Segments that
    nothing follows are left out. Ties by segment id.
    """
    seconds: dict[str, list[tuple[float, Scored, Moment]]] = {}
    for one in second.scored:
        for moment in second.hit(one).moments:
            seconds.setdefault(one.segment.video, []).append((moment.start, one, moment))
    for row in seconds.values():
        row.sort(key=lambda each: each[0])
    pairs = []
    for one in first.scored:
        after = seconds.get(one.segment.video)
        best = _best(one, first.hit(one).moments, after, within) if after else None
        if best is not None:
            pairs.append(best)
    return sorted(pairs, key=lambda pair: (-pair.score, pair.first.segment.id))


def _best(
    one: Scored, moments: Sequence[Moment], after: Sequence[tuple[float, Scored, Moment]], within: float
) -> Pair | None:
    found: list[tuple[tuple[float, float, float, str], Pair]] = []
    for moment in moments:
        begin = bisect_left(after, moment.end - OVERLAP, key=lambda each: each[0])
        end = bisect_right(after, moment.end + within, key=lambda each: each[0])
        for start, other, then in after[begin:end]:
            if start > moment.start:
                rank = (-other.score, -then.score, abs(start - moment.end), other.segment.id)
                found.append((rank, Pair(one, moment, other, then)))
    return min(found, key=lambda pair: pair[0])[1] if found else None
