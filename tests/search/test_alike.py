"""Frames of a clip find the stretch that they are like, and its place in time, from stored tokens alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rushes.backbones.base import Frames
from rushes.index.exact import ExactIndex
from rushes.methods.wti import WTI
from rushes.search.alike import Clip, alike
from rushes.types import Hit, Segment
from rushes.video.probe import VideoError

DIM = 32
SHOT = 5  # seconds


class Model(nn.Module):
    """What `alike` needs of a model: the method."""

    def __init__(self):
        super().__init__()
        self.method = WTI(DIM).eval()


def film(seed: int, seconds: float, rate: float = 20.0, still: bool = False) -> torch.Tensor:
    """Feature of each instant: a new direction each shot, slowly turning during it."""
    draw = torch.Generator().manual_seed(seed)
    shots = torch.randn(int(seconds) // SHOT + 2, 2, DIM, generator=draw)
    features = []
    for number in range(round(seconds * rate)):
        shot, within = divmod(number / rate, SHOT)
        start, drift = shots[0 if still else int(shot)]
        features.append(start + (0.0 if still else 0.15 * within) * drift)
    return torch.stack(features)


FILMS = {f"v{n}": film(n, 20.0 + n) for n in range(12)}
FILMS["short"] = film(50, 3.0)
FILMS["still"] = film(51, 30.0, still=True)
FILMS["twice"] = torch.cat([film(60, 10.0), film(61, 15.0), film(60, 10.0)])


def sampled(features: torch.Tensor, start: float, seconds: float, rate: float, at: float = 20.0):
    """Frames of a stretch, `rate` a second, as vectors and spans that begin at 0."""
    count = max(1, round(seconds * rate))
    rows = [min(len(features) - 1, int((start + (n + 0.5) / rate) * at)) for n in range(count)]
    edges = torch.linspace(0, seconds, count + 1, dtype=torch.float64)
    return features[rows], torch.stack([edges[:-1], edges[1:]], dim=1)


@pytest.fixture(scope="module", params=["shots", "windows"])
def world(request) -> tuple[Model, ExactIndex]:
    """15 videos, a frame a second, in segments of five seconds or in overlapping windows of ten."""
    torch.manual_seed(0)
    model, index = Model(), ExactIndex(DIM)
    length, step = (5, 5) if request.param == "shots" else (10, 5)
    for name, features in FILMS.items():
        seconds = len(features) / 20.0
        segments, vectors, spans = [], [], []
        for start in range(0, max(1, int(seconds - (length - step))), step):
            long = min(length, seconds - start)
            vector, span = sampled(features, start, long, 1.0)
            segments.append(Segment(f"{name}:{start:03d}", name, float(start), float(start + long)))
            vectors.append(vector)
            spans.append(span + start)
        with torch.no_grad():
            tokens = model.method.encode_video(Frames.pack(vectors, spans))
            index.add(segments, model.method.summary(tokens), tokens)
    return model, index


def clip(
    model: Model, features: torch.Tensor, start: float, seconds: float, rate: float = 2.0, noise: float = 0.3
) -> Clip:
    vectors, spans = sampled(features, start, seconds, rate)
    draw = torch.Generator().manual_seed(7)
    vectors = vectors + noise * torch.randn(vectors.shape, generator=draw)
    with torch.no_grad():
        return Clip(model.method.encode_video(Frames.pack([vectors], [spans])), seconds)


def offset(hit: Hit) -> float:
    assert hit.of_query is not None
    return hit.start - hit.of_query[0]


@pytest.mark.parametrize("rate", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("name", "start", "seconds"), [("v3", 3.3, 8.0), ("v7", 0.0, 4.0), ("v11", 12.7, 10.0)])
def test_the_video_and_about_the_second(world, name, start, seconds, rate):
    model, index = world
    best, second, *_ = alike(model, index, clip(model, FILMS[name], start, seconds, rate))
    assert best.segment.video == name
    assert offset(best) == pytest.approx(start, abs=1.0)
    assert best.start == pytest.approx(start, abs=1.0)
    assert best.end == pytest.approx(start + seconds, abs=1.0)
    assert best.scores["alike"] > 0.6 > 0.5 > second.scores["alike"]
    assert best.scores["same"] == 0.0  # no pictures were compared
    assert 0 < best.score <= 0.5
    assert best.moments[0].start == best.start


def test_hits_are_in_order_lie_in_their_videos_and_within_the_clip(world):
    model, index = world
    hits = alike(model, index, clip(model, FILMS["v3"], 3.3, 8.0))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == len({(hit.segment.video, hit.start, hit.of_query) for hit in hits})
    for hit in hits:
        assert hit.of_query is not None
        assert 0 <= hit.start < hit.end <= len(FILMS[hit.segment.video]) / 20.0 + 1e-6
        assert -1e-6 <= hit.of_query[0] < hit.of_query[1] <= 8.0 + 1e-6
        assert hit.end - hit.start == pytest.approx(hit.of_query[1] - hit.of_query[0])
        assert hit.segment.id.startswith(hit.segment.video)
        assert all(type(value) is float for value in (hit.start, hit.end, hit.score, *hit.of_query))
    assert hits == alike(model, index, clip(model, FILMS["v3"], 3.3, 8.0))
    assert alike(model, index, clip(model, FILMS["v3"], 3.3, 8.0), most=2) == hits[:2]


def test_a_clip_of_one_frame(world):
    model, index = world
    best = alike(model, index, clip(model, FILMS["v4"], 7.0, 0.04, rate=25.0, noise=0.1))[0]
    assert best.segment.video == "v4"
    assert best.start == pytest.approx(7.0, abs=3.0)  # within its shot
    assert best.end > best.start


def test_a_clip_longer_than_the_video(world):
    model, index = world
    around = torch.cat([film(70, 5.0), FILMS["short"], film(71, 12.0)])
    best = alike(model, index, clip(model, around, 0.0, 20.0))[0]
    assert best.segment.video == "short"
    assert best.of_query is not None
    assert best.of_query == (pytest.approx(5.0, abs=1.0), pytest.approx(8.0, abs=1.0))
    assert (best.start, best.end) == (pytest.approx(0.0, abs=0.7), pytest.approx(3.0, abs=0.7))


def test_a_clip_that_is_in_a_video_twice(world):
    model, index = world
    hits = alike(model, index, clip(model, film(60, 10.0), 1.0, 8.0))
    assert [hit.segment.video for hit in hits[:2]] == ["twice", "twice"]
    assert sorted(offset(hit) for hit in hits[:2]) == [pytest.approx(1.0, abs=1.0), pytest.approx(26.0, abs=1.0)]
    assert hits[0].scores["peak"] < 0.3  # another place is as good


def test_a_clip_put_together_from_two_videos_finds_both(world):
    model, index = world
    both = torch.cat([FILMS["v2"][100:200], FILMS["v9"][40:140]])
    hits = alike(model, index, clip(model, both, 0.0, 10.0))[:2]
    assert {hit.segment.video for hit in hits} == {"v2", "v9"}
    ranges = {hit.segment.video: hit.of_query for hit in hits}
    assert ranges["v2"] == (pytest.approx(0.0, abs=0.7), pytest.approx(5.0, abs=0.7))
    assert ranges["v9"] == (pytest.approx(5.0, abs=0.7), pytest.approx(10.0, abs=0.7))


def test_a_still_stretch_has_no_peak_and_a_moving_one_has(world):
    model, index = world
    still = alike(model, index, clip(model, FILMS["still"], 10.0, 4.0))[0]
    moving = alike(model, index, clip(model, FILMS["v5"], 3.0, 8.0))[0]
    assert still.segment.video == "still"
    assert still.scores["peak"] < 0.2 < 0.35 < moving.scores["peak"]
    assert moving.score / moving.scores["alike"] > still.score / still.scores["alike"]


def test_only_the_videos_asked_for(world):
    model, index = world
    hits = alike(model, index, clip(model, FILMS["v3"], 3.3, 8.0), videos=["v1", "v2"])
    assert {hit.segment.video for hit in hits} <= {"v1", "v2"}
    assert alike(model, index, clip(model, FILMS["v3"], 3.3, 8.0), videos=[]) == []


def test_pictures_that_cannot_be_had_leave_a_hit_unverified(world):
    from rushes.video.sketch import SIDE, Sketch

    model, index = world
    query = clip(model, FILMS["v3"], 3.3, 8.0)
    random = torch.randint(0, 255, (80, SIDE, SIDE), dtype=torch.uint8).numpy()
    sketched = Clip(query.tokens, query.length, Sketch(torch.arange(80).double().numpy() / 10, random))

    def look(video: str, start: float, end: float) -> Sketch:
        raise VideoError("missing", f"{video} is gone")

    assert alike(model, index, sketched, look=look) == alike(model, index, query)


def test_an_empty_index_and_wrong_numbers(world):
    model, _ = world
    query = clip(model, FILMS["v3"], 3.3, 8.0)
    assert alike(model, ExactIndex(DIM), query) == []
    with pytest.raises(ValueError, match="most is 0"):
        alike(model, ExactIndex(DIM), query, most=0)
    blind = Clip(type(query.tokens)(query.tokens.vectors, query.tokens.mask), 8.0)
    with pytest.raises(ValueError, match="spans"):
        alike(model, ExactIndex(DIM), blind)
