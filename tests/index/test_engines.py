"""Laws that every index keeps; the same tests run on each engine, and the engines must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from rushes.index.base import Index
from rushes.index.exact import ExactIndex
from rushes.index.lance import LanceIndex
from rushes.index.scan import best, shelve
from rushes.types import Segment, Tokens

DIM = 16
NAMES = [
    "plain",
    "it's",
    "''; DROP TABLE segments; --",
    'say "hi"',
    "naïve 海边 🌊",
    "a\\b",
    "100%_",
    "line\nbreak",
    " ",
    "`",
]
ENGINES: dict[str, Callable[..., Index]] = {
    "exact": lambda folder: ExactIndex(DIM),
    "lance": lambda folder: LanceIndex(folder, DIM, create=True),
    "lance, frames from disk": lambda folder: LanceIndex(folder, DIM, create=True, frame_bytes=0),
}


@pytest.fixture(params=ENGINES)
def index(request, tmp_path) -> Index:
    return ENGINES[request.param](tmp_path)


def batch(
    video: str = "v", size: int = 5, token: int = 4, seed: int = 0, fields: str = "spans level weights", start: int = 0
) -> tuple[list[Segment], torch.Tensor, Tokens]:
    """Segments with random unit vectors and some padding, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    segments = [Segment(f"{video}:{row}", video, 2.0 * row, 2.0 * row + 2) for row in range(start, start + size)]
    vectors = normalize(torch.randn(size, token, DIM, generator=random), dim=-1)
    mask = torch.rand(size, token, generator=random) > 0.4
    mask[:, -1] = True  # padding in front of a real token, too
    tokens = Tokens(
        vectors,
        mask,
        spans=torch.rand(size, token, 2, generator=random) if "spans" in fields else None,
        level=torch.randint(0, 3, (size, token), generator=random) if "level" in fields else None,
        weights=torch.rand(size, token, generator=random) if "weights" in fields else None,
    )
    return segments, normalize(torch.randn(size, DIM, generator=random), dim=-1), tokens


def query(seed: int = 99) -> torch.Tensor:
    return normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(seed)), dim=0)


def real(tokens: Tokens, row: int, name: str) -> torch.Tensor:
    """A row's values without padding."""
    return getattr(tokens, name)[row][tokens.mask[row]]


def alike(first: Tokens, second: Tokens) -> None:
    """The same real tokens, to fp16; spans to a microsecond."""
    assert len(first) == len(second)
    for row in range(len(first)):
        for name, most in (("vectors", 1e-3), ("spans", 1e-7), ("level", 0), ("weights", 0)):
            if getattr(first, name) is None:
                assert getattr(second, name) is None
            else:
                one, other = real(first, row, name).double(), real(second, row, name).double()
                assert torch.allclose(one, other, atol=most, rtol=0)


def test_is_an_index(index):
    assert isinstance(index, Index)
    assert index.dim == DIM


def test_empty(index):
    assert index.count() == 0
    assert index.segments() == []
    assert list(index.batches()) == []
    assert index.nearest(query(), 3) == []
    assert index.nearest(query(), 3, by="frame") == []
    assert index.remove(["nobody"]) == 0
    assert index.remove([]) == 0
    index.optimize()
    segments, tokens = index.fetch([])
    assert segments == []
    assert tokens.vectors.shape == (0, 0, DIM)
    assert tokens.mask.shape == (0, 0)
    with pytest.raises(KeyError, match="'x'"):
        index.fetch(["x"])
    index.add([], torch.zeros(0, DIM), Tokens(torch.zeros(0, 3, DIM), torch.zeros(0, 3).bool()))
    assert index.count() == 0


def test_add_count_remove(index):
    index.add(*batch("a", 5))
    index.add(*batch("b", 3, seed=1))
    assert index.count() == 8
    assert index.count(["a"]) == 5
    assert index.count(["a", "b", "a", "nobody"]) == 8
    assert index.count([]) == 0
    assert index.remove(["a", "nobody"]) == 5
    assert index.count() == 3
    assert {name for name, _ in index.nearest(query(), 9)} == {"b:0", "b:1", "b:2"}
    assert {name for name, _ in index.nearest(query(), 9, by="frame")} == {"b:0", "b:1", "b:2"}
    with pytest.raises(KeyError, match="'a:0'"):
        index.fetch(["a:0"])
    index.add(*batch("a", 5))  # a removed video can come back
    assert index.count() == 8


def test_removing_everything_leaves_an_empty_index(index):
    index.add(*batch("a"))
    index.nearest(query(), 2)
    assert index.remove(["a"]) == 5
    assert index.nearest(query(), 2) == []
    assert index.nearest(query(), 2, by="frame") == []
    index.optimize()
    assert list(index.batches()) == []
    index.add(*batch("b", fields=""))  # other fields are fine where nothing is
    assert index.count() == 5


def test_segments_are_sorted_and_whole(index):
    segments = [
        Segment("z", "b", 0.0, 1.5),
        Segment("y", "a", 7.25, 9.0),
        Segment("x", "a", 0.1, 7.25),
        Segment("w", "a", 0.1, 3.0),
    ]
    _, summaries, tokens = batch(size=4)
    index.add(segments, summaries, tokens)
    assert index.segments() == [segments[3], segments[2], segments[1], segments[0]]
    assert index.segments(["b"]) == [segments[0]]
    assert index.segments([]) == []


@pytest.mark.parametrize("by", ["summary", "frame"])
def test_nearest_is_brute_force(index, by):
    parts = [batch("a", 40, 6), batch("b", 25, 3, seed=1)]
    for part in parts:
        index.add(*part)
    truth = {}
    for segments, summaries, tokens in parts:
        for row, segment in enumerate(segments):
            level = real(tokens, row, "level")
            frames = real(tokens, row, "vectors")[level == level.max()]
            vectors = summaries[row : row + 1] if by == "summary" else frames
            truth[segment.id] = float((vectors.half().double() @ query().double()).max())
    found = index.nearest(query(), 30, by=by)
    assert [name for name, _ in found] == sorted(truth, key=lambda name: -truth[name])[:30]
    assert [score for _, score in found] == pytest.approx([truth[name] for name, _ in found], abs=1e-12)


def test_every_token_counts_where_no_level_is_told(index):
    segments, summaries, tokens = batch(size=1, token=3, fields="")
    index.add(segments, summaries, replace(tokens, mask=torch.ones(1, 3).bool()))
    for token in range(3):
        vector = tokens.vectors[0, token]
        assert index.nearest(vector, 1, by="frame")[0][1] == pytest.approx(1, abs=1e-3)


def test_padding_is_never_found(index):
    segments, summaries, tokens = batch(size=2, token=3, fields="")
    loud = tokens.vectors.clone()
    loud[0, 0] = 100
    loud[1, 0] = float("nan")
    mask = torch.tensor([[False, True, True], [False, True, False]])
    index.add(segments, summaries, replace(tokens, vectors=loud, mask=mask))
    assert max(score for _, score in index.nearest(torch.ones(DIM), 2, by="frame")) < 10
    assert torch.isfinite(index.fetch(["v:0", "v:1"])[1].vectors).all()


@pytest.mark.parametrize("by", ["summary", "frame"])
def test_ties_are_ordered_by_id(index, by):
    segments = [Segment(name, name, 0, 1) for name in ("d", "b", "é", "a", "c", "B")]
    same = query()
    for at in (slice(0, 3), slice(3, 6)):  # over two batches
        index.add(segments[at], same.expand(3, DIM), Tokens(same.expand(3, 1, DIM), torch.ones(3, 1).bool()))
    for k in (1, 3, 6):
        assert [name for name, _ in index.nearest(same, k, by=by)] == ["B", "a", "b", "c", "d", "é"][:k]
    zero = [name for name, _ in index.nearest(torch.zeros(DIM), 4, by=by)]
    assert zero == ["B", "a", "b", "c"]


def test_k_beyond_the_count_gives_all(index):
    index.add(*batch(size=5))
    assert len(index.nearest(query(), 5000)) == 5
    assert len(index.nearest(query(), 5000, by="frame", videos=["v"])) == 5


@pytest.mark.parametrize("by", ["summary", "frame"])
def test_a_filter_gives_what_the_rest_alone_would(index, by):
    for seed, video in enumerate("abc"):
        index.add(*batch(video, 10, seed=seed))
    everything = index.nearest(query(), 100, by=by)
    inside = [(name, score) for name, score in everything if name[0] in "ac"]
    assert index.nearest(query(), 7, by=by, videos=["c", "a", "nobody"]) == inside[:7]
    assert index.nearest(query(), 7, by=by, videos=[]) == []
    assert index.nearest(query(), 7, by=by, videos=["nobody"]) == []


@pytest.mark.parametrize("by", ["summary", "frame"])
def test_at_most_so_many_of_each_video_is_the_full_order_without_the_rest(index, by):
    for seed, (video, size) in enumerate([("crowd", 30), ("b", 2), ("c", 5), ("d", 1)]):
        index.add(*batch(video, size, seed=seed))
    ranking = index.nearest(query(), 100, by=by)
    for each in (1, 2, 3, 40):
        had: dict[str, int] = {}
        want = []
        for name, score in ranking:
            video = name.split(":")[0]
            had[video] = had.get(video, 0) + 1
            if had[video] <= each:
                want.append((name, score))
        for k in (1, 3, 4, 9, 100):
            assert index.nearest(query(), k, by=by, each=each) == want[:k]
    assert index.nearest(query(), 9, by=by, each=1, videos=["b", "c"])[0] == next(
        pair for pair in ranking if pair[0][0] in "bc" and pair[0][:2] != "cr"
    )


def test_names_are_data(index):
    for seed, name in enumerate(NAMES):
        index.add(*batch(name, 2, seed=seed))
    index.optimize()
    assert index.count() == 2 * len(NAMES)
    ids = [f"{name}:1" for name in NAMES]
    assert [segment.id for segment in index.fetch(ids)[0]] == ids
    assert {name for name, _ in index.nearest(query(), 99)} == {f"{name}:{row}" for name in NAMES for row in (0, 1)}
    for name in NAMES:
        assert index.count([name]) == 2
        assert len(index.nearest(query(), 9, videos=[name])) == 2
        assert len(index.nearest(query(), 9, by="frame", videos=[name])) == 2
        with pytest.raises(ValueError, match="already"):
            index.add(*batch(name, 1))
    for left, name in enumerate(reversed(NAMES)):
        assert index.remove([name]) == 2
        assert index.count() == 2 * (len(NAMES) - left - 1)


def test_fetch_gives_back_what_was_added(index):
    parts = [batch("a", 4, 6), batch("b", 3, 2, seed=1)]  # of unequal length
    for part in parts:
        index.add(*part)
    for segments, _, tokens in parts:
        got, stored = index.fetch([segment.id for segment in segments])
        assert got == segments
        alike(tokens, stored)
        assert stored.vectors.dtype == torch.float32
        assert stored.level.dtype == torch.int64
    segments, tokens = index.fetch(["b:2", "a:3", "b:0", "a:3"])
    assert [segment.id for segment in segments] == ["b:2", "a:3", "b:0", "a:3"]
    assert tokens.counts().tolist() == [parts[int(s.video == "b")][2].counts()[int(s.id[-1])] for s in segments]
    assert (tokens.mask.long().diff(dim=1) <= 0).all()  # padding stands behind
    assert (tokens.vectors[~tokens.mask] == 0).all()
    alike(tokens[1:2], tokens[3:4])
    with pytest.raises(KeyError, match="2 ids are not in the index: 'c:0', 'c:1'"):
        index.fetch(["c:0", "a:0", "c:1"])
    assert [segment.id for segment in index.fetch(["c:0", "a:0", "c:1"], skip=True)[0]] == ["a:0"]
    assert index.fetch(["c:0"], skip=True)[0] == []


@pytest.mark.parametrize("fields", ["", "spans", "level", "weights", "spans level", "spans level weights"])
def test_optional_fields_are_kept_or_absent(index, fields):
    given_tokens = batch(fields=fields)
    index.add(*given_tokens)
    alike(given_tokens[2], index.fetch([s.id for s in given_tokens[0]])[1])
    other = "spans" if fields == "" else ""
    with pytest.raises(ValueError, match="fields"):
        index.add(*batch("w", fields=other))
    assert index.count() == 5


def test_hours_of_video_keep_their_milliseconds(index):
    _, summaries, tokens = batch(size=1, token=1)
    twelfth_hour = torch.tensor([[[43_199.0011, 43_199.9997]]], dtype=torch.float64)
    index.add([Segment("s", "v", 43_199.0011, 43_199.9997)], summaries, replace(tokens, spans=twelfth_hour))
    stored, kept = index.fetch(["s"])
    assert stored[0].start == 43_199.0011
    assert torch.equal(kept.spans, twelfth_hour)


def test_streaming_is_fetching(index):
    for seed, video in enumerate("abc"):
        index.add(*batch(video, 7, token=2 + seed, seed=seed))
    streamed = list(index.batches(rows=4))
    assert all(0 < len(segments) == len(tokens) <= 4 for segments, tokens in streamed)
    names = [segment.id for segments, _ in streamed for segment in segments]
    assert sorted(names) == sorted(segment.id for segment in index.segments())
    for segments, tokens in streamed:
        got, fetched = index.fetch([segment.id for segment in segments])
        assert got == segments
        alike(tokens, fetched)
    some = [segment for segments, _ in index.batches(rows=4, videos=["c", "a", "nobody"]) for segment in segments]
    assert sorted(segment.id for segment in some) == [segment.id for segment in index.segments(["a", "c"])]
    assert list(index.batches(videos=[])) == []


def test_optimize_changes_no_answer(index):
    for seed in range(6):
        index.add(*batch(f"v{seed}", 4, seed=seed))
    index.remove(["v2"])
    before = [index.nearest(query(), 9, by=by) for by in ("summary", "frame")]
    index.optimize()
    assert [index.nearest(query(), 9, by=by) for by in ("summary", "frame")] == before
    index.add(*batch("late", 3, seed=7))
    index.optimize()
    assert index.count() == 23
    assert index.fetch(["late:2", "v0:0"])[0][0].video == "late"


BAD = {
    "1 ids are in the index already: 'v:2'": lambda s, v, t: ([*s[:2], Segment("v:2", "other", 0, 1)], v, t),
    "twice in one batch: 'n:0'": lambda s, v, t: ([s[0], s[1], s[0]], v, t),
    "2 segments, 3 summaries and 3 rows": lambda s, v, t: (s[:2], v, t),
    "summaries have shape": lambda s, v, t: (s, v[:, :-1], t),
    "tokens have shape": lambda s, v, t: (s, v, replace(t, vectors=t.vectors[..., :-1])),
    "1 of 3 segments have summaries that are NaN.*'n:1'": lambda s, v, t: (s, at(v, 1, float("nan")), t),
    "1 of 3 segments have summaries .*too large for fp16": lambda s, v, t: (s, at(v, 1, 1e5), t),
    "2 of 3 segments have tokens": lambda s, v, t: (s, v, replace(t, vectors=at(t.vectors, slice(1, 3), -1e6))),
    "have weights that are NaN": lambda s, v, t: (s, v, replace(t, weights=at(t.weights, 0, float("nan")))),
    "have spans that are NaN": lambda s, v, t: (s, v, replace(t, spans=at(t.spans, 0, float("inf")))),
    "1 segments have no real token: 'n:0'": lambda s, v, t: (s, v, replace(t, mask=at(t.mask, 0, False))),
    "do not start before they end: 'n:2'": lambda s, v, t: ([*s[:2], Segment("n:2", "n", 3, 3)], v, t),
    "do not start before they end: 'n:0'": lambda s, v, t: ([Segment("n:0", "n", float("nan"), 3), *s[1:]], v, t),
    "have fields": lambda s, v, t: (s, v, replace(t, level=None)),
}


def at(tensor: torch.Tensor, row: int | slice, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[row] = value
    return changed


@pytest.mark.parametrize("message", BAD)
def test_a_bad_batch_is_refused_whole(index, message):
    index.add(*batch())
    with pytest.raises(ValueError, match=message):
        index.add(*BAD[message](*batch("n", 3, seed=1)))
    assert index.count() == 5
    assert {segment.video for segment in index.segments()} == {"v"}
    index.add(*batch("n", 3, seed=1))  # and the good one still goes in
    assert index.count() == 8


def test_bad_questions_are_refused(index):
    index.add(*batch())
    with pytest.raises(ValueError, match=r"shape \(15,\).*\(16,\)"):
        index.nearest(query()[:-1], 1)
    with pytest.raises(ValueError, match="2 of 16 numbers of the vector are NaN"):
        index.nearest(at(query(), slice(3, 5), float("nan")), 1)
    with pytest.raises(ValueError, match="k is 0"):
        index.nearest(query(), 0)
    with pytest.raises(ValueError, match="by='word'"):
        index.nearest(query(), 1, by="word")


def test_what_was_handed_in_is_left_alone(index):
    segments, summaries, tokens = batch()
    before = [summaries.clone(), tokens.vectors.clone(), tokens.mask.clone()]
    index.add(segments, summaries, tokens)
    kept = index.fetch(["v:0"])[1].vectors.clone()
    summaries.fill_(0)
    tokens.vectors.fill_(0)
    assert torch.equal(index.fetch(["v:0"])[1].vectors, kept)
    assert index.nearest(before[0][0], 1)[0] == ("v:0", pytest.approx(1, abs=1e-3))
    index.fetch(["v:0"])[1].vectors.fill_(7)
    assert torch.equal(index.fetch(["v:0"])[1].vectors, kept)


def test_scores_of_stored_tokens_are_the_live_ones(index):
    from rushes.methods.meanpool import MeanPool
    from rushes.methods.wti import WTI

    segments, _, tokens = batch(size=12, token=6)
    tokens = replace(tokens, mask=torch.arange(6) < torch.arange(12)[:, None] % 6 + 1)
    weights = tokens.weights.masked_fill(~tokens.mask, 0)
    tokens = replace(tokens, weights=weights / weights.sum(dim=1, keepdim=True))
    text = Tokens(normalize(torch.randn(3, 5, DIM), dim=-1), torch.ones(3, 5).bool(), weights=torch.full((3, 5), 0.2))
    for method in (MeanPool(DIM), WTI(DIM)):
        with torch.no_grad():
            summaries = method.summary(tokens)
            renamed = [replace(segment, id=f"{type(method).__name__} {segment.id}") for segment in segments]
            index.add(renamed, summaries, tokens)
            stored = index.fetch([segment.id for segment in renamed])[1]
            assert torch.allclose(method.score(text, stored), method.score(text, tokens), atol=1e-3, rtol=0)


seeds, scales = st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 300.0])
shapes = st.tuples(st.integers(1, 12), st.integers(1, 4), seeds, scales)
changes = st.sampled_from(["none", "remove", "optimize"])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(shapes, min_size=1, max_size=4), k=st.integers(1, 30), coarse=st.booleans(), change=changes)
def test_lance_answers_as_exact(tmp_path_factory, parts, k, coarse, change):
    """On vectors of any length, on many ties (coarse), after removals, between and after searches."""
    exact = ExactIndex(DIM)
    lance = LanceIndex(tmp_path_factory.mktemp("index"), DIM, create=True)
    streamed = LanceIndex(lance._store.place, frame_bytes=0)
    for number, (size, token, seed, scale) in enumerate(parts):
        segments, summaries, tokens = batch(f"v{number}", size, token, seed)
        if coarse:  # few values: ties everywhere
            summaries, tokens = summaries.sign(), replace(tokens, vectors=tokens.vectors.sign())
        for index in (exact, lance):
            index.add(segments, summaries * scale, replace(tokens, vectors=tokens.vectors * scale))
        if change == "optimize" and number:
            lance.optimize()
        if change == "remove" and number == 1:
            assert exact.remove(["v0"]) == lance.remove(["v0"])
        vector = query(seed).sign() if coarse else query(seed) * scale
        for by in ("summary", "frame"):
            for videos in (None, ["v0", "v2"]):
                want = exact.nearest(vector, k, by=by, videos=videos)
                assert lance.nearest(vector, k, by=by, videos=videos) == want
                assert streamed.nearest(vector, k, by=by, videos=videos) == want
                want = exact.nearest(vector, k, by=by, videos=videos, each=2)
                assert lance.nearest(vector, k, by=by, videos=videos, each=2) == want
                assert streamed.nearest(vector, k, by=by, videos=videos, each=2) == want
    assert lance.segments() == exact.segments()
    ids = [segment.id for segment in exact.segments()]
    alike(exact.fetch(ids)[1], lance.fetch(ids)[1])


def test_ranking_is_exact_where_halves_cannot_tell():
    """Summaries whose scores differ by less than a half's step: the rough pass ties, the answer does not."""

    random = np.random.default_rng(0)
    rows, dim = 3000, 64
    vectors = (np.ones((rows, dim)) + random.uniform(-4e-3, 4e-3, (rows, dim))).astype(np.float16) / np.float16(8)
    ids = [f"{row:04}" for row in range(rows)]
    shelf = shelve(np.arange(rows, dtype=np.uint64), pa.array(ids), pa.array(ids), np.ones(rows, np.int64), vectors)
    vector = random.uniform(0.5, 1, dim)
    truth = vectors.astype(np.float64) @ vector
    assert [one.id for one in best(shelf, vector, 50)] == [ids[row] for row in np.lexsort((ids, -truth))[:50]]
