"""What is seen and what is said are one ranking: each is found, neither hurts the other, both together win."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from rushes.backbones.base import Frames, Words
from rushes.index.cues import Cues, Heard
from rushes.index.exact import ExactIndex
from rushes.index.store import Store
from rushes.methods.wti import WTI
from rushes.search.fuse import LEAST, MOST_LINES, Fused, fuse, spoken
from rushes.search.parts import Scorer, Sought
from rushes.search.pipeline import Ranking, rank
from rushes.types import Cue, Segment, Tokens

DIM = 16
COUNT = 200


class World:
    """200 segments of 10 seconds in 20 videos, and a query that is some direction of the vectors."""

    def __init__(self, place):
        draw = torch.Generator().manual_seed(3)
        self.method = WTI(DIM).eval()
        self.index = ExactIndex(DIM)
        vectors = [torch.randn(3, DIM, generator=draw) for _ in range(COUNT)]
        self.segments = [
            Segment(f"s{n:03d}", f"v{n // 10:02d}", 10.0 * (n % 10), 10.0 * (n % 10) + 10) for n in range(COUNT)
        ]
        spans = [torch.tensor([[0.0, 3.0], [3.0, 6.0], [6.0, 10.0]]) + 10.0 * (n % 10) for n in range(COUNT)]
        query = torch.randn(DIM, generator=draw)
        with torch.no_grad():
            self.tokens = self.method.encode_video(Frames.pack(vectors, [span.double() for span in spans]))
            self.index.add(self.segments, self.method.summary(self.tokens), self.tokens)
            text = self.method.encode_text(Words(query[None, None], torch.ones(1, 1, dtype=torch.bool), query[None]))
        self.scorer = Scorer.of(self.method, [Sought(text)])
        self.sample = self.index.fetch([segment.id for segment in self.segments])[1]
        self.cues = Cues(Store(place, create=True))
        self.visual = [one.segment.id for one in self.ranked().scored]

    def ranked(self, depth: int = COUNT) -> Ranking:
        return rank(self.scorer, self.index, k=1, depth=depth)

    def say(self, *said: tuple[str, str]) -> None:
        """Each text in the middle of the segment of that id."""
        lines = []
        for name, text in said:
            segment = self.segments[int(name[1:])]
            lines.append(Cue(segment.video, segment.start + 4, segment.start + 6, text))
        self.cues.replace({"all": lines})

    def fused(self, text: str, depth: int = COUNT, only: bool = False) -> Fused:
        heard = self.cues.search(text, k=MOST_LINES, least=LEAST)
        return fuse(self.ranked(depth), heard, scorer=self.scorer, index=self.index, sample=self.sample, only=only)

    def order(self, text: str, **options) -> list[str]:
        return [one.segment.id for one in self.fused(text, **options).ranking.scored]


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_where_nothing_is_said_the_ranking_is_the_same(world):
    world.say((world.visual[150], "a zebra"))
    fused = world.fused("a submarine")
    assert [(one.segment, one.score) for one in fused.ranking.scored] == [
        (one.segment, one.score) for one in world.ranked().scored
    ]
    first = fused.ranking.scored[0]
    assert fused.of(first, first.segment) == ({"visual": first.score}, ())


def test_what_is_only_said_is_found_first(world):
    last = world.visual[-1]
    world.say((last, "the quarterly zebra budget"), (world.visual[100], "a beach"))
    assert world.order("quarterly zebra budget")[0] == last


def test_a_segment_that_was_no_candidate_is_scored_by_the_method(world):
    last = world.visual[-1]
    world.say((last, "the quarterly zebra budget"))
    assert last not in [one.segment.id for one in world.ranked(depth=10).scored]
    fused = world.fused("quarterly zebra budget", depth=10)
    assert fused.ranking.scored[0].segment.id == last
    (true,) = [one.score for one in world.ranked().scored if one.segment.id == last]
    assert fused.told[last].visual == pytest.approx(true, abs=1e-6)
    assert fused.told[last].words == pytest.approx(1.0)
    hit = fused.ranking.hit(fused.ranking.scored[0])
    assert hit.moments  # it has its evidence, too


def test_those_of_whom_nothing_is_said_keep_their_order(world):
    told = [world.visual[place] for place in (3, 50, 120, 199)]
    world.say(*((name, "a zebra in the snow") for name in told))
    order = world.order("zebra in the snow")
    assert [name for name in order if name not in told] == [name for name in world.visual if name not in told]


def test_a_few_small_words_move_nothing(world):
    zebra = world.visual[199]
    world.say(*((name, "it is on the other side of it") for name in world.visual[100:150]), (zebra, "zebra"))
    fused = world.fused("the zebra on the hill")
    assert [name for name, told in fused.told.items() if told.words] == [zebra]
    order = [one.segment.id for one in fused.ranking.scored]
    assert [name for name in order if name != zebra] == world.visual[:-1]


def test_seen_and_said_beats_seen_and_beats_said(world):
    best, good, last = world.visual[0], world.visual[5], world.visual[-1]
    world.say((good, "a zebra in the snow"), (last, "a zebra in the snow"))
    order = world.order("zebra in the snow")
    assert order.index(good) < order.index(best)
    assert order.index(good) < order.index(last)


def test_two_lines_of_a_segment_add_up_and_a_word_said_twice_does_not(world):
    one, two, three = world.visual[100], world.visual[101], world.visual[102]
    world.say((one, "a zebra"), (one, "in the snow"), (two, "a zebra"), (two, "my zebra"), (three, "a zebra"))
    told = world.fused("zebra snow").told
    assert told[one].words == pytest.approx(1.0)
    assert told[two].words == pytest.approx(told[three].words)
    assert told[two].words < 0.7


def test_half_a_query_counts_less_than_half(world):
    one, two, none = world.visual[100], world.visual[101], world.visual[102]
    world.say((one, "zebra snow"), (two, "zebra"))
    fused = world.fused("zebra snow")
    score = {row.segment.id: row.score for row in fused.ranking.scored}
    visual = {name: fused.told[name].visual for name in score}
    deviation = torch.tensor([visual[name] for name in world.visual]).double().std(correction=0)
    gains = [score[name] - score[none] - float((visual[name] - visual[none]) / deviation) for name in (one, two)]
    assert 0 < gains[1] < gains[0] / 2


def test_words_alone(world):
    names = [world.visual[place] for place in (199, 0, 70)]
    world.say((names[0], "a zebra in snow"), (names[1], "a zebra"), (names[2], "a submarine"))
    fused = world.fused("zebra snow", only=True)
    assert [one.segment.id for one in fused.ranking.scored] == names[:2]
    assert [one.score for one in fused.ranking.scored] == [fused.told[name].words for name in names[:2]]
    assert world.order("unheard", only=True) == []


def test_a_hit_shows_both_scores_and_its_lines_in_order(world):
    name = world.visual[7]
    world.say((name, "snow"), (name, "a zebra"), (world.visual[8], "a zebra"))
    fused = world.fused("zebra snow")
    (one,) = [row for row in fused.ranking.scored if row.segment.id == name]
    scores, cues = fused.of(one, one.segment)
    assert set(scores) == {"visual", "words"}
    assert [cue.text for cue in cues] == ["a zebra", "snow"]  # one time, so by text
    assert all(cue.video == one.segment.video for cue in cues)


def test_a_hit_that_stands_for_neighbours_shows_the_lines_of_all(world):
    first, second = world.segments[10], world.segments[11]
    world.say((first.id, "a zebra"), (second.id, "more zebra"))
    fused = world.fused("zebra")
    (one,) = [row for row in fused.ranking.scored if row.segment.id == first.id]
    assert [cue.text for cue in fused.of(one, replace(first, end=second.end))[1]] == ["a zebra", "more zebra"]


def test_an_empty_index_and_an_empty_sample(world):
    empty = ExactIndex(DIM)
    world.say((world.visual[0], "zebra"))
    heard = world.cues.search("zebra")
    none = Tokens(torch.zeros(0, 0, DIM), torch.zeros(0, 0, dtype=torch.bool))
    fused = fuse(Ranking([], 0.0), heard, scorer=world.scorer, index=empty, sample=none)
    assert fused.ranking.scored == []
    full = fuse(world.ranked(), heard, scorer=world.scorer, index=world.index, sample=none)
    assert full.ranking.scored[0].segment.id == world.visual[0]


# ---------------------------------------------------------------------- which segment a line is said in


def heard(*times: tuple[float, float]) -> Heard:
    return Heard(tuple(Cue("v", start, end, "x") for start, end in times), (frozenset({0}),) * len(times), (1.0,))


def shots(*borders: float) -> list[Segment]:
    return [Segment(f"{n}", "v", a, b) for n, (a, b) in enumerate(pairwise(borders))]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ((1.0, 3.0), ["0"]),
        ((9.0, 11.0), ["0", "1"]),  # a second on each side
        ((9.9, 12.0), ["1"]),  # only a little of it before the cut
        ((9.8, 10.2), ["0", "1"]),  # half of it on each side
        ((5.0, 25.0), ["0", "1", "2"]),
        ((29.5, 40.0), ["2"]),  # goes on behind the last segment
        ((31.0, 33.0), []),  # beside all
    ],
)
def test_a_line_is_said_where_enough_of_it_falls(line, said):
    assert sorted(spoken(heard(line), shots(0, 10, 20, 30))) == said


def test_a_line_over_many_short_shots_is_said_in_one_of_them_at_least():
    assert spoken(heard((10.0, 14.0)), shots(9.5, 10.5, 11.2, 12.1, 13.0, 13.9, 14.8)) == {"2": [0]}


def test_overlapping_windows_both_have_the_line():
    windows = [Segment("a", "v", 0, 10), Segment("b", "v", 5, 15), Segment("c", "w", 0, 10)]
    assert spoken(heard((6.0, 8.0)), windows) == {"a": [0], "b": [0]}
