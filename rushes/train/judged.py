"""Single shots as a library stores them, with queries and what is relevant to each: what confidence is fitted on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int8, Int64
from torch import Tensor

from rushes.backbones.base import Backbone, Frames
from rushes.data import load, reels
from rushes.data.base import Split
from rushes.data.compose import Box, Reel, Shot, draw
from rushes.data.features import MANIFEST, manifest
from rushes.data.pictures import captioned
from rushes.model import Model
from rushes.tagging import content_words
from rushes.train.features import Drawn, Features, Fingerprint, Progress, compute, digest_of, seconds_seen
from rushes.train.source import some
from rushes.types import Tokens
from rushes.video import sample

Captions = Mapping[str, Sequence[str]]

RELEVANT, NOT, UNKNOWN = 1, 0, -1
POLICY = "balanced"  # the library's default
PHRASES = (1, 2, 3)  # content words of the short queries
WHOLE, STRANGE = 0, -1  # `Asked.words` of a whole caption, and of what no picture shows
TEXTS, SHOTS_AT = 64, 512  # encoded at a time
DRAWN_AT = 8  # pictures that are seen at a time
_STRANGE = tuple(
    text.strip()
    for text in """
    a nuclear power plant | a spreadsheet with quarterly numbers | a submarine under the ice | a chess board
    | a microscope in a laboratory | a printed circuit board | the planet saturn | an x-ray of a hand
    | a violin maker at work | a cargo ship full of containers | a court room with a judge | sushi on a plate
    | a volcano erupting | an oil rig at sea | a wind turbine | a dentist drilling a tooth | the eiffel tower
    | a penguin colony | a bowl of ramen | a wedding cake | a giraffe | a kitchen with a refrigerator
    | knitting a scarf | a telescope | a grand piano on stage | a space shuttle launch | a tractor harvesting wheat
    | a library full of old books | a laptop showing source code | a cruise ship | an elephant bathing | a subway map
    | a clown fish in an aquarium | a steam locomotive | a blacksmith hammering iron | a surgeon operating
    | weather radar | a slide with a pie chart | a koala | asdf qwer zxcv | lorem ipsum dolor sit amet
    | blorp fnargle | qqqqqq | tax return form 1040 | quantum entanglement | yesterday | monetary policy | justice
    | goldfish | camel caravan | typewriter | lighthouse | dinosaur skeleton | thermometer | democracy | tungsten
    | photosynthesis | mortgage | espresso machine | roman aqueduct | hospital bed | satellite dish | brain scan
    | subtraction | password reset | zebra | stock market chart | vineyard in autumn | cathedral nave | coral reef
    | conveyor belt in a factory | astronaut in orbit | sewing machine | 42 | xylophone | passport | barcode
    | operating system update | milking cows | hot air balloon | glass blowing | bee hive | chandelier
    """.replace("\n", " ").split("|")
)


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """Segments of one shot each: frame features, and the picture that each shows."""

    frames: Frames
    pictures: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> Shots:
        rows = [int(row) for row in rows]
        return Shots(self.frames[rows], tuple(self.pictures[row] for row in rows))


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, the picture that it was made for, and how many content words it has; WHOLE: a caption; STRANGE: it is
    of what no picture shows, and its own picture. An image query has the empty text, and is WHOLE.
    """

    text: str
    picture: str
    words: int


def shots_of(
    root: str | os.PathLike[str],
    split: str,
    backbone: Backbone,
    features: str | os.PathLike[str],
    fingerprint: Fingerprint,
    *,
    name: str,
    first: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Shots:
    """The shots of a split of Reels, protocol "shot", each as the library would store it: one segment.

    Features are read from `features`, as `rushes features` writes them; where there are none of this backbone they are
    computed. A shot holds the frames whose second lies in it, those of a fade at its start included. `first`: of that
    many reels alone, whose features, where they must be computed, lie apart in `features`/some.
    """
    benchmark = load("reels", Path(root), "shot")
    chosen = reels.reels_of(Path(root), "shot", split)[:first]
    stored = _there(Path(features), backbone, benchmark[split])
    if stored is None:
        source = Drawn(Path(root), chosen, POLICY, fingerprint)
        if first is not None:  # texts are read when they are asked
            part = some(benchmark[split], range(len(chosen)), captions=0)
            benchmark, features = replace(benchmark, splits={split: part}), Path(features) / "some"
        made = compute(benchmark, split, source, backbone, features, name=name, on_progress=on_progress)
        stored = Features(made.folder, benchmark[split])
    rate = sample.policy(POLICY).rate
    vectors, spans, pictures = [], [], []
    for row, reel in enumerate(chosen):
        found = stored.frames([row]).vectors[0]
        times = np.array(sample.targets(0.0, reel.length, rate) or [0.0])
        if len(times) != len(found):
            raise ValueError(f"{stored.folder} has {len(found)} frames of {reel.id}, not {len(times)}; compute it anew")
        for shot in reel.shots:
            inside = (times >= shot.start) & (times < shot.end)
            if inside.any():
                vectors.append(found[torch.from_numpy(inside)])
                spans.append(torch.from_numpy(seconds_seen(times[inside].tolist(), shot.start, shot.end)).double())
                pictures.append(shot.picture)
    return Shots(Frames.pack(vectors, spans), tuple(pictures))


def _there(features: Path, backbone: Backbone, split: Split) -> Features | None:
    """Features of the whole split by this very backbone, if they have been computed."""
    revision = digest_of(backbone)
    for file in sorted(features.glob(f"reels-shot-{split.name}-*/{MANIFEST}")):
        told = manifest(file.parent)
        if (told["revision"], told["split_digest"]) == (revision, split.digest()) and not told["failures"]:
            return Features(file.parent, split)
    return None


def texts_of(captions: Captions, shown: Sequence[str], seed: int = 0) -> list[Asked]:
    """Queries for the pictures shown: of each a caption, and out of another caption phrases of 1, 2, 3 content words.

    A phrase is a stretch of the caption from one content word to another. No text comes twice.

    >>> [(one.text, one.words) for one in texts_of({"a.jpg": ["A dog on the beach."]}, ["a.jpg"])]
    [('A dog on the beach.', 0), ('dog', 1), ('dog on the beach', 2)]
    """
    found: dict[str, Asked] = {}
    for picture in sorted(set(shown)):
        random = np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(picture.encode()).digest()[:7], "big")])
        whole, other = (captions[picture][int(random.integers(len(captions[picture])))] for _ in range(2))
        asked = [Asked(whole, picture, WHOLE)]
        places = content_words(other)
        for count in PHRASES:
            if len(places) >= count:
                first = int(random.integers(len(places) - count + 1))
                text = other[places[first][0] : places[first + count - 1][1]].lower()
                asked.append(Asked(text, picture, count))
        for one in asked:
            found.setdefault(one.text, one)
    return list(found.values())


def relevance(asked: Sequence[Asked], shown: Sequence[str], captions: Captions) -> Int8[np.ndarray, "query segment"]:
    """RELEVANT, NOT or UNKNOWN for each query and segment, by the captions of the picture that the segment shows.

    Relevant is the picture that the query was made for, and any whose captions together have every content word of the
    query. Unknown is one whose captions lack a single word of three or more: people name different things. Words are
    compared by their stems; that a puppy is a dog is not known, so some truly relevant segments count as not.

    >>> captions = {"a": ["a dog runs on grass"], "b": ["dogs", "running", "green grass"], "c": ["a dog runs"]}
    >>> relevance([Asked("the dog runs over the grass", "a", 0)], ["a", "b", "c"], captions).tolist()
    [[1, 1, -1]]
    >>> relevance([Asked("running dogs", "a", 2)], ["c"], captions).tolist()
    [[1]]
    """
    stems = {picture: set().union(*map(_stems, captions[picture])) for picture in set(shown)}
    judged = np.zeros((len(asked), len(shown)), dtype=np.int8)
    for row, one in enumerate(asked):
        wanted = _stems(one.text)
        lacking = {picture: len(wanted - known) for picture, known in stems.items()}
        verdict = {
            picture: RELEVANT
            if picture == one.picture or (wanted and not lacks)
            else UNKNOWN
            if lacks == 1 and len(wanted) >= 3
            else NOT
            for picture, lacks in lacking.items()
        }
        judged[row] = [verdict[picture] for picture in shown]
    return judged


def strange(odd: bool) -> list[Asked]:
    """Queries for what photographs of people and dogs outdoors hardly show, gibberish among them: half of them, or the
    other half. `relevance` marks whatever a picture's captions do have.
    """
    return [Asked(text, text, STRANGE) for text in _STRANGE[int(odd) :: 2]]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Queries scored against segments, and against the segments of elsewhere, with what is relevant."""

    asked: tuple[Asked, ...]
    scores: Float32[np.ndarray, "query segment"]
    elsewhere: Float32[np.ndarray, "query other"]
    relevant: Int8[np.ndarray, "query segment"]

    def rows(self, words: int) -> Int64[np.ndarray, "query"]:
        """The queries of so many words."""
        return np.flatnonzero([one.words == words for one in self.asked])


@torch.inference_mode()
def stored(model: Model, shots: Shots) -> Tokens:
    """The shots as an index gives them back: in its half precision."""
    parts = [model.videos(shots.frames[row : row + SHOTS_AT]).to("cpu") for row in range(0, len(shots), SHOTS_AT)]
    return Tokens.cat([part.to(torch.float16).to(torch.float32) for part in parts])


@torch.inference_mode()
def judged_texts(
    model: Model, asked: Sequence[Asked], shots: Sequence[str], tokens: Tokens, elsewhere: Tokens, captions: Captions
) -> Judged:
    """Text queries scored by the model's method; `tokens` are the stored shots of the pictures `shots`."""
    scores, others = [], []
    for row in range(0, len(asked), TEXTS):
        texts = model.texts([one.text for one in asked[row : row + TEXTS]]).to("cpu")
        scores.append(model.method.score(texts, tokens).numpy())
        others.append(model.method.score(texts, elsewhere).numpy())
    return Judged(tuple(asked), np.concatenate(scores), np.concatenate(others), relevance(asked, shots, captions))


@torch.inference_mode()
def judged_views(
    model: Model,
    score: Callable[[Tokens, Tokens], Tensor],
    root: str | os.PathLike[str],
    pictures: Sequence[str],
    shots: Sequence[str],
    tokens: Tokens,
    elsewhere: Tokens,
) -> Judged:
    """Other views of some pictures as queries. Relevant are the shots of the same picture, and no others."""
    views = model.videos(other_views(root, pictures, model.backbone)).to("cpu")
    relevant = np.array([[picture == shown for shown in shots] for picture in pictures], dtype=np.int8)
    asked = tuple(Asked("", picture, WHOLE) for picture in pictures)
    return Judged(asked, score(views, tokens).numpy(), score(views, elsewhere).numpy(), relevant)


@torch.inference_mode()
def other_views(
    root: str | os.PathLike[str], pictures: Sequence[str], backbone: Backbone, sides: tuple[float, float] = (0.5, 0.9)
) -> Frames:
    """Each picture seen another time, as a query by image: one frame, a crop of its own with a side in `sides`.

    Shots show 80 to 100 % of a picture's width and height and move; a query is mostly closer. The same each time.
    """
    vectors = []
    for first in range(0, len(pictures), DRAWN_AT):
        pixels = []
        for picture in pictures[first : first + DRAWN_AT]:
            random = np.random.default_rng(int.from_bytes(hashlib.blake2b(picture.encode()).digest()[:7], "big"))
            side = float(random.uniform(*sides))
            x, y = (float(random.uniform(side / 2, 1 - side / 2)) for _ in range(2))
            view: Box = (x, y, side)
            reel = Reel(picture, (Shot(picture, 0.0, 1.0, view, view),))
            pixels += draw(reel, [0.0], root, backbone.image_size, backbone.squash)
        device = next(backbone.parameters()).device
        seen = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device)
        vectors.append(backbone.frames(seen).float().cpu())
    every = torch.cat(vectors)
    mask = torch.ones(len(every), 1, dtype=torch.bool)
    return Frames(every[:, None], mask, torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(every), 1, 2))


def captions_of(root: str | os.PathLike[str], *splits: str) -> dict[str, tuple[str, ...]]:
    """All captions of the pictures of some splits, by picture."""
    known = captioned(Path(root)).splits
    return {picture: texts for split in splits for picture, texts in known[split].items()}


def _stems(text: str) -> set[str]:
    """Content words without the endings that count and tense give them.

    >>> sorted(_stems("Two dogs running and a boy who jumped on grasses"))
    ['boy', 'dog', 'gras', 'jump', 'run']
    """
    return {_stem(text[start:end].lower()) for start, end in content_words(text)}


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return re.sub(r"(.)\1$", r"\1", word).removesuffix("e")
