"""What can be asked of a library, and what it answers: plain data that checks itself."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Literal, get_args

from rushes.types import Hit

Candidates = Literal["summary", "frame"]
Group = Literal["segment", "video"]
Sort = Literal["relevance", "time"]
Spoken = Literal["with", "only", "without"]
Match = Literal["good", "weak", "none", "unknown"]
Kind = Literal["text", "image", "like"]

DEPTH = 500  # candidates, of the cheap kind: 998 of 1,000 of the true ten best at every size tried, see docs/search.md
CANDIDATES: Candidates = "summary"
WITHIN = 30.0  # seconds that may pass between A and B of "A, then B"
MOST = 200  # hits of a frozen answer: what a person may page through


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that a query looks for, or avoids: a text, the picture in a file, or a segment to be like.

    Exactly one of `text`, `image` and `like` (a segment's id). `weight` says how much it counts beside the other parts;
    below 0 it is to be avoided, at 0 it is as if it were not there.
    """

    text: str | None = None
    image: Path | None = None
    like: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        given = [name for name in get_args(Kind) if getattr(self, name) is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none of them"
            raise ValueError(f"a part is one of text, image and like, got {told}; make one part of each")
        if self.text is not None and not self.text.strip():
            raise ValueError(f"the text {self.text!r} is empty; say what to look for")
        if self.like is not None and not self.like:
            raise ValueError("like is empty; give the id of a segment")
        if not math.isfinite(self.weight):
            raise ValueError(f"the weight {self.weight} is no number to multiply by; give a finite one")

    @property
    def kind(self) -> Kind:
        return "text" if self.text is not None else "image" if self.image is not None else "like"

    @property
    def said(self) -> str:
        """The text, the path or the id: what the part was made of."""
        return str(self.text if self.text is not None else self.image if self.image is not None else self.like)


@dataclass(frozen=True)
class Then:
    """A second text that must come after the first, in the same video, at most `within` seconds later."""

    text: str
    within: float = WITHIN

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"the text {self.text!r} of `then` is empty; say what comes next")
        if not (math.isfinite(self.within) and self.within > 0):
            raise ValueError(f"within is {self.within} s; give the seconds that may pass, more than 0")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which videos are searched: those that pass every condition given.

    videos       ids (contents); an empty tuple leaves nothing
    folder       one below the library's, "beach/" or "beach": videos of which any copy lies in it or deeper
    min_seconds  of the video's length, inclusive
    max_seconds  of the video's length, inclusive
    after        dated on this day or later; a day begins at midnight, local time
    before       dated earlier than this day
    tags         all of them, upper and lower case being the same
    """

    videos: tuple[str, ...] | None = None
    folder: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    after: date | None = None
    before: date | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("videos", "tags"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is the single text {getattr(self, name)!r}; give a tuple of texts")
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("min_seconds", "max_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"{name} is {seconds}; give seconds, 0 or more")
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise ValueError(f"no video is longer than {self.min_seconds} s and shorter than {self.max_seconds} s")
        if self.after is not None and self.before is not None and moment(self.after) >= moment(self.before):
            raise ValueError(f"no video is dated after {self.after} and before {self.before}; swap them")

    @property
    def open(self) -> bool:
        """Whether every video passes."""
        return self == EVERYWHERE

    def passes(self, video: VideoInfo) -> bool:
        """Whether this video meets all conditions."""
        has = {tag.casefold() for tag in video.tags}
        return (
            (self.videos is None or video.id in self.videos)
            and (self.folder is None or any(path.startswith(prefix(self.folder)) for path in video.paths))
            and (self.min_seconds is None or video.length >= self.min_seconds)
            and (self.max_seconds is None or video.length <= self.max_seconds)
            and (self.after is None or video.date >= moment(self.after))
            and (self.before is None or video.date < moment(self.before))
            and all(" ".join(unicodedata.normalize("NFC", tag).split()).casefold() in has for tag in self.tags)
        )


EVERYWHERE = Where()


@dataclass(frozen=True)
class VideoInfo:
    """What a library knows of one video, wherever its copies lie.

    id          its content's fingerprint
    path        of its first file, relative to the library's folder, with `/`; `paths` are those of all copies
    folder      that `path` lies in, as "beach/"; "" for the library's own
    name        of that file
    length      seconds, as far as it was decoded
    date        when it was recorded, as the file tells; where it does not, when the oldest copy was last changed
    status      "done", "partial" (the indexing of it goes on with the next run) or "failed"
    """

    id: str
    path: str
    paths: tuple[str, ...]
    folder: str
    name: str
    length: float
    date: datetime
    size_bytes: int
    status: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question. Texts, pictures and segments add up by their weights; a video is asked for alone.

    spoken   "with": subtitles count, too; "only": nothing else does; "without": only what is seen
    group    a hit for each segment, or one for each video
    sort     of the best hits: by relevance, or by time (the video's date, then its path, then the start)
    merge    neighbouring segments of one video that look the same become one hit
    exact    score every segment, not only the `depth` nearest candidates, which are found `by` their summary or frame

    >>> Query.of_text("a dog", avoid=["a beach"]).parts
    (Part(text='a dog', image=None, like=None, weight=1.0), Part(text='a beach', image=None, like=None, weight=-1.0))
    """

    parts: tuple[Part, ...] = ()
    video: Path | None = None
    then: Then | None = None
    spoken: Spoken = "with"
    where: Where = EVERYWHERE
    group: Group = "segment"
    sort: Sort = "relevance"
    merge: bool = True
    exact: bool = False
    depth: int = DEPTH
    by: Candidates = CANDIDATES

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        choices = {"spoken": Spoken, "group": Group, "sort": Sort, "by": Candidates}
        for name, kinds in choices.items():
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(get_args(kinds))}")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; ask for at least one candidate")
        if self.video is not None and (self.parts or self.then):
            raise ValueError("a query that is a video takes no text, picture, segment or `then` beside it; ask twice")
        if self.video is None and not self.wanted:
            avoided = ", ".join(repr(part.said) for part in self.parts if part.weight < 0)
            raise ValueError(
                f"the query only avoids {avoided}; say what to look for, too"
                if avoided
                else "the query is empty; give a text, an image, a segment or a video to look for"
            )
        if self.spoken == "only" and not any(part.kind == "text" for part in self.wanted):
            raise ValueError('spoken="only" looks for words that are said; give a text')
        if self.spoken == "only" and self.then:
            raise ValueError('spoken="only" knows no `then`; ask with spoken="with" or without `then`')

    @property
    def wanted(self) -> tuple[Part, ...]:
        """The parts to be found."""
        return tuple(part for part in self.parts if part.weight > 0)

    @property
    def avoided(self) -> tuple[Part, ...]:
        """The parts to be avoided."""
        return tuple(part for part in self.parts if part.weight < 0)

    @property
    def words(self) -> str:
        """The texts to be found as one: what subtitles are searched for."""
        return " ".join(part.text for part in self.wanted if part.text is not None)

    @classmethod
    def of_text(cls, text: str, avoid: Sequence[str] = (), **others: object) -> Query:
        """A text, and texts to be avoided, each of weight 1; `others` are the fields of Query.

        Raises ValueError for an empty text.
        """
        parts = (Part(text=text), *(Part(text=one, weight=-1.0) for one in avoid))
        return replace(cls(parts=parts), **others)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """A whole frozen answer: paging is slicing `hits`.

    match    "good", "weak" or "none": how well the best hit fits; "unknown" where the model is not calibrated
    seconds  that each stage took
    notes    what one should know about this answer, in sentences
    """

    hits: tuple[Hit, ...]
    match: Match = "unknown"
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def moment(day: date) -> datetime:
    """The instant at which a day begins, local time; an instant is itself, a naive one being local.

    >>> moment(date(2024, 1, 2)).replace(tzinfo=None)
    datetime.datetime(2024, 1, 2, 0, 0)
    """
    instant = day if isinstance(day, datetime) else datetime.combine(day, time())
    return instant if instant.tzinfo is not None else instant.astimezone()


def prefix(folder: str) -> str:
    """A folder as paths in it begin.

    >>> prefix("beach"), prefix("./beach/"), prefix("")
    ('beach/', 'beach/', '')
    """
    plain = folder.removeprefix("./").strip("/")
    return plain + "/" if plain and plain != "." else ""
