"""The JSON of the HTTP API: what may be sent, what is answered. Times are seconds, ids are opaque."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PLAIN = r"^[^\x00-\x1f\x7f]*$"  # a line without control characters
SPOKEN = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"  # that has something to read, too
VIDEO = r"^[0-9a-f]{32}$"
SEGMENT = r"^[0-9a-f]{32}:[0-9]{9,12}$"
UPLOAD = r"^[0-9a-f]{32}$"
JOB = r"^[0-9a-f]{16}$"
THUMBNAIL = r"^[0-9a-f]{32}$"
CURSOR = r"^[A-Za-z0-9_-]{1,200}$"
LONG = 1e9  # seconds, more than any video

Text = Annotated[str, Field(min_length=1, max_length=500, pattern=SPOKEN)]
VideoId = Annotated[str, Field(pattern=VIDEO)]
SegmentId = Annotated[str, Field(pattern=SEGMENT)]
UploadId = Annotated[str, Field(pattern=UPLOAD)]
ThumbnailId = Annotated[str, Field(pattern=THUMBNAIL)]
JobId = Annotated[str, Field(pattern=JOB)]
Cursor = Annotated[str, Field(pattern=CURSOR)]
Tag = Annotated[str, Field(min_length=1, max_length=100, pattern=SPOKEN)]
Folder = Annotated[str, Field(max_length=1000, pattern=PLAIN)]
Seconds = Annotated[float, Field(ge=0, le=LONG, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _day(given: object) -> object:
    if isinstance(given, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        return date.fromisoformat(given)  # ValueError for a day that is none
    raise ValueError("a day is written YYYY-MM-DD")


def _whole(given: object) -> object:
    return int(given) if isinstance(given, float) and given.is_integer() else given  # JSON knows one kind of number


Day = Annotated[date, BeforeValidator(_day)]
Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)]


class Asked(BaseModel):
    """What is sent: no field that is not known, no text where a number should be."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Part(Asked):
    """A text, an uploaded image or a segment to be like: exactly one. A weight below 0 is to be avoided."""

    text: Text | None = None
    image: UploadId | None = None
    like: SegmentId | None = None
    weight: Weight = 1.0


class Then(Asked):
    """What comes next in the same video, at most `within` seconds later."""

    text: Text
    within: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0


class Where(Asked):
    """Which videos are searched."""

    videos: Annotated[list[VideoId], Field(max_length=1000)] | None = None
    folder: Folder | None = None
    min_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    after: Day | None = None
    before: Day | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] = []


class Question(Asked):
    """What to look for: `text` and the other parts add up; `video` stands alone."""

    text: Text | None = None
    avoid: Annotated[list[Text], Field(max_length=10)] = []
    parts: Annotated[list[Part], Field(max_length=10)] = []
    image: UploadId | None = None
    video: UploadId | None = None
    like: SegmentId | None = None
    then: Then | None = None
    spoken: Literal["with", "only", "without"] = "with"
    where: Where | None = None
    group: Literal["segment", "video"] = "segment"
    sort: Literal["relevance", "time"] = "relevance"
    merge: bool = True
    min_confidence: Share | None = None


class Search(Question):
    """A question, and which page of its answer: the first, or the one that `cursor` leads to.

    With a cursor the question may be left out; if it is there it must be the one that the cursor came from.
    """

    limit: Limit = 24
    cursor: Cursor | None = None


class ExplainQuestion(Asked):
    segment: SegmentId
    text: Text


class TagsQuestion(Asked):
    add: Annotated[list[Tag], Field(max_length=50)] = []
    remove: Annotated[list[Tag], Field(max_length=50)] = []


class JobQuestion(Asked):
    kind: Literal["index"] = "index"
    retry_failed: bool = False


# ------------------------------------------------------------------ answers


class Told(BaseModel):
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class VideoShort(Told):
    id: str
    name: str
    folder: str
    seconds: float
    date: datetime
    playable: bool
    tags: list[str]


class Video(VideoShort):
    """A video of the library. `copies` are the folders and names under which the same content lies."""

    size_bytes: int
    status: Literal["done", "partial", "failed"]
    copies: list[str]
    media_type: str | None


class Moment(Told):
    start: float
    end: float
    score: float


class Cue(Told):
    start: float
    end: float
    text: str


class Span(Told):
    start: float
    end: float


class Hit(Told):
    rank: int
    segment: str
    video: VideoShort
    start: float
    end: float
    score: float
    confidence: float | None
    scores: dict[str, float]
    moments: list[Moment]
    cues: list[Cue]
    then: Moment | None
    of_query: Span | None
    merged: int
    thumbnail: str | None


class SearchAnswer(Told):
    hits: list[Hit]
    total: int
    cursor: str | None
    match: Literal["good", "weak", "none", "unknown"]
    seconds: dict[str, float]
    notes: list[str]


class Match(Told):
    segment: str
    start: float
    end: float
    score: float
    confidence: float | None


class Matches(Told):
    matches: list[Match]


class Explanation(Told):
    """How much each word counts, and how well each fits each span of the segment: `scores[word][span]`.

    `whole` is the row, if any, of what belongs to no single word.
    """

    words: list[str]
    weights: list[float]
    spans: list[tuple[float, float]]
    scores: list[list[float]]
    whole: int | None


class Videos(Told):
    videos: list[Video]
    total: int
    cursor: str | None


class Upload(Told):
    id: str
    kind: Literal["image", "video"]
    seconds: float | None
    width: int
    height: int
    expires: datetime


class Problem(Told):
    """RFC 9457. `code` is stable; programs should look at nothing else."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    errors: list[dict[str, Any]] | None = None


class Job(Told):
    """An indexing job. Bytes are of video files, done or to do; `frames` and `segments` are of all its runs."""

    id: str
    kind: Literal["index"]
    state: Literal["queued", "running", "paused", "done", "failed", "cancelled"]
    done_bytes: float
    total_bytes: int
    frames: int
    segments: int
    frames_per_second: float
    seconds_left: float | None
    video: str | None
    report: dict[str, Any] | None
    error: Problem | None
    created: datetime
    updated: datetime


class Jobs(Told):
    jobs: list[Job]


class Failure(Told):
    """What could not be indexed: a whole file, or the seconds from `start` to `end` of one."""

    video: str
    code: str
    reason: str
    start: float | None
    end: float | None
    at: datetime


class Failures(Told):
    failures: list[Failure]


class LibraryInfo(Told):
    """`name` is the folder's. Counts are null until it is indexed; `reason` says why searching is not ready."""

    name: str
    ready: bool
    reason: str | None
    indexed: bool
    calibrated: bool | None
    videos: int | None
    files: int | None
    segments: int | None
    hours: float | None
    unfinished: int | None
    failures: int | None
    size_bytes: int | None
    model: str | None
    method: str | None
    policy: str | None
    segments_by: str | None
    version: str


class Health(Told):
    status: Literal["alive"]


class Ready(Told):
    status: Literal["ready"]
