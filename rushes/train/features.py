"""Frame and word features of a frozen backbone, computed once for a benchmark's split, then read in batches."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from rushes.backbones.base import Backbone, Frames, Words
from rushes.data import features as store
from rushes.data import reels
from rushes.data.base import Benchmark, Split, Video, locate
from rushes.data.compose import RATE, SIZE, Reel, draw
from rushes.video import sample
from rushes.video.decode import Damage, Frame, Span
from rushes.video.probe import VideoError
from rushes.video.worker import Decoder

PART_VIDEOS = 64  # what a kill may cost: some 15 s of `small` on a CPU
PART_TEXTS = 2048
BATCH_FRAMES = 32
BATCH_TEXTS = 64
Fingerprint = Callable[[Path], str]  # names a file's content


@dataclass(frozen=True, slots=True)
class End:
    """A video is over: the seconds that were looked at, on its file's clock."""

    start: float
    end: float


class Source(Protocol):
    """Where the pixels of a split's videos come from."""

    decoder: str  # what makes pixels of files, with its version
    sampling: str  # which seconds are looked at

    @property
    def prints(self) -> Sequence[str | None]:
        """A name for the content of each video; None = its file is missing."""
        ...

    def read(self, row: int, size: int, squash: bool) -> Iterator[Frame | Damage | End]:
        """A video's frames in order of time, and in the end the End. VideoError where it cannot be had."""
        ...


class Files:
    """Videos decoded from their files, in a process that may hang or crash; of a clip, the seconds it was cut to.

    Frames are those that the library takes of windows: one in the middle of each second of the file's clock. A clip
    without one has the frame that a player shows when it begins.
    """

    def __init__(self, root: Path, videos: Sequence[Video], policy: str, fingerprint: Fingerprint):
        sample.policy(policy)
        self.videos, self.policy = videos, policy
        self.decoder, self.sampling = f"PyAV {av.__version__}", policy
        found = locate(root, videos)
        self.files = [root / found[video.id][0] if video.id in found else None for video in videos]
        names: dict[Path, str] = {}  # many clips may be of one file
        for file in self.files:
            if file is not None and file not in names:
                names[file] = fingerprint(file)
        self.prints = [
            None if file is None else store.digest([names[file], video.start, video.end])
            for file, video in zip(self.files, videos, strict=True)
        ]
        self._decoder = Decoder()

    def read(self, row: int, size: int, squash: bool) -> Iterator[Frame | Damage | End]:
        video, file = self.videos[row], self.files[row]
        if file is None:
            raise VideoError("missing", f"the video {video.id!r} has no file {video.file!r}; get it")
        start, end = video.start or 0.0, math.inf if video.end is None else video.end
        aligned = math.floor(start / sample.STEP) * sample.STEP
        before: Frame | None = None
        last, reached = -1.0, start
        events = self._decoder.read(
            file, policy=self.policy, segments="windows", size=size, squash=squash, start=aligned
        )
        with closing(events):  # type: ignore[type-var]  # a generator, which stops the decoder
            for event in events:
                if isinstance(event, Damage):
                    yield event
                elif isinstance(event, Span):
                    reached = max(reached, event.end)
                elif event.time >= end:
                    reached = end
                    break
                elif event.time < start:
                    before = event
                elif event.time > last:
                    last = event.time
                    yield event
        if last < 0:
            if before is None or reached <= start:
                raise VideoError("no-frames", f"{file} shows nothing from {start:g} s to {end:g} s; is it whole?")
            yield Frame(start, before.pixels)
        yield End(start, min(end, reached))

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()


class Drawn:
    """Reels drawn from their pictures at the seconds that the decoder would take of their files: no mp4 in between."""

    def __init__(self, root: Path, drawn: Sequence[Reel], policy: str, fingerprint: Fingerprint):
        self.root, self.reels, self.rate = root, drawn, sample.policy(policy).rate
        self.decoder = f"drawn {SIZE[0]}x{SIZE[1]} by OpenCV {cv2.__version__}, scaled by PyAV {av.__version__}"
        self.sampling = f"{self.rate:g}/s"
        contents: dict[str, str | None] = {}
        for name in sorted({shot.picture for reel in drawn for shot in reel.shots}):
            contents[name] = fingerprint(root / name) if (root / name).is_file() else None
        self.prints: list[str | None] = []
        for reel in drawn:
            known = {name: one for shot in reel.shots if (one := contents[name := shot.picture]) is not None}
            whole = len(known) == len({shot.picture for shot in reel.shots})
            self.prints.append(reels.fingerprint(reel, known) if whole else None)

    def read(self, row: int, size: int, squash: bool) -> Iterator[Frame | Damage | End]:
        reel = self.reels[row]
        # of the frame that is shown at a target, its own time
        targets = sample.targets(0.0, reel.length, self.rate)
        times = [math.floor(time * RATE + 1e-6) / RATE for time in targets] or [0.0]
        try:
            pictures = draw(reel, times, self.root, size, squash)
        except (ValueError, OSError) as error:
            raise VideoError("unreadable", f"{reel.id}: {error}") from None
        for time, pixels in zip(times, pictures, strict=True):
            yield Frame(time, pixels)
        yield End(0.0, reel.length)

    def close(self) -> None:
        """Nothing is open."""


def source_of(
    benchmark: Benchmark, split: str, root: str | os.PathLike[str], fingerprint: Fingerprint, policy: str = "balanced"
) -> Files | Drawn:
    """Where the pixels of a split come from: reels are drawn, all else is decoded. Fingerprints every file."""
    videos = benchmark[split].videos
    if benchmark.name != "reels":
        return Files(Path(root), videos, policy, fingerprint)
    drawn = reels.reels_of(Path(root), benchmark.protocol, split)
    if [reel.id for reel in drawn] != [video.id for video in videos]:
        raise ValueError(f"split {split!r} is of another drawing than the usual; render it and use it as a folder")
    return Drawn(Path(root), drawn, policy, fingerprint)


def missing_of(split: Split, source: Source, allow: bool) -> list[str]:
    """The ids of the videos without a file; an error where there are some and that is not allowed."""
    missing = [video.id for video, one in zip(split.videos, source.prints, strict=True) if one is None]
    if missing and not allow:
        raise FileNotFoundError(
            f"{len(missing):,} of {len(split.videos):,} videos of split {split.name!r} have no file: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}; get them, or write them down as missing "
            "with --allow-missing"
        )
    return missing


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: `done` of `total` videos or captions. `frames` went through the backbone in this run."""

    what: str  # "videos" or "captions"
    done: int
    total: int
    frames: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a run left: `folder` is what `Features` opens."""

    folder: str
    benchmark: str
    protocol: str
    split: str
    videos: int
    captions: int
    frames: int
    words: int
    cut_texts: int  # different texts that lost their end, being longer than the backbone reads; 0 if it cannot tell
    computed_frames: int  # in this run; the rest was there
    computed_texts: int
    missing: tuple[str, ...]
    failures: tuple[dict[str, Any], ...]
    damage: tuple[dict[str, Any], ...]


def compute(
    benchmark: Benchmark,
    split: str,
    source: Files | Drawn,
    backbone: Backbone,
    out: str | os.PathLike[str],
    *,
    name: str,
    tagger: str = "closed-class",
    allow_missing: bool = False,
    retry_failed: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Compute what is not there yet of a split's features, below `out`.

    name           of the backbone, as it was loaded by
    tagger         says which words are content words (rushes/tagging.py); where the tokenizer cannot tell characters,
                   no word is flagged, and `Features.words` gives no `content`
    allow_missing  write videos without a file down as missing; else they are an error before anything is computed
    retry_failed   try again what failed in an earlier run

    A file that fails is listed in the manifest, and asking for its frames is an error: no test set shrinks unseen.
    """
    out, whole = Path(out), benchmark[split]
    missing = missing_of(whole, source, allow_missing)
    backbone = backbone.eval()
    say = on_progress or (lambda now: None)
    revision = digest_of(backbone)
    about = {"format": store.FORMAT, "backbone": revision}
    seen = {"decoder": source.decoder, "sampling": source.sampling}
    seen |= {"image_size": backbone.image_size, "squash": backbone.squash}
    flagged = tagger if backbone.tokenize(["a"]).offsets is not None else None
    texts = list(dict.fromkeys(caption.text for caption in whole.captions))
    computed = _Computed()
    with store.writing(out):
        frame_parts, failures, damage = [], [], []
        for first in range(0, len(whole.videos), PART_VIDEOS):
            rows = range(first, min(first + PART_VIDEOS, len(whole.videos)))
            part = store.digest([about, seen, [source.prints[row] for row in rows]])
            told = store.told_by_part(out, part)
            if told is None or (retry_failed and told["failures"]):
                told = _write_frames(backbone, source, rows, out, part, computed)
            frame_parts.append(part)
            failures += [one | {"video": whole.videos[first + one["row"]].id} for one in told["failures"]]
            damage += [one | {"video": whole.videos[first + one["row"]].id} for one in told["damage"]]
            say(Progress("videos", rows.stop, len(whole.videos), computed.frames))
        word_parts, cut = [], 0
        for first in range(0, len(texts), PART_TEXTS):
            some = texts[first : first + PART_TEXTS]
            part = store.digest([about, flagged, some])
            told = store.told_by_part(out, part)
            if told is None:
                told = _write_words(backbone, some, flagged, out, part)
                computed.texts += len(some)
            cut += told["cut"]
            word_parts.append(part)
            say(Progress("captions", first + len(some), len(texts), computed.frames))
        place = {text: row for row, text in enumerate(texts)}
        frames, words = store.Ragged(out, frame_parts), store.Ragged(out, word_parts)
        manifest = {
            **about,
            "revision": revision,
            "backbone": name,
            "benchmark": benchmark.name,
            "protocol": benchmark.protocol,
            "split": split,
            "split_digest": whole.digest(),
            **seen,
            "dim": backbone.dim,
            "tagger": flagged,
            "frames": int(frames.length.sum()),
            "words": int(words.length.sum()),
            "cut_texts": cut,
            "missing": missing,
            "failures": [one for one in failures if one["code"] != "missing"],
            "damage": damage,
            "frame_parts": frame_parts,
            "word_parts": word_parts,
            "video_ids": [video.id for video in whole.videos],
            "caption_ids": [caption.id for caption in whole.captions],
            "texts": [place[caption.text] for caption in whole.captions],
        }
        key = store.digest(
            [manifest[one] for one in ("split_digest", "video_ids", "caption_ids")] + [frame_parts, word_parts]
        )
        folder = out / f"{benchmark.name}-{benchmark.protocol}-{split}-{key[:12]}"
        folder.mkdir(exist_ok=True)
        store.write_json(folder / store.MANIFEST, manifest)
    return Report(
        folder=str(folder),
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        split=split,
        videos=len(whole.videos),
        captions=len(whole.captions),
        frames=manifest["frames"],
        words=manifest["words"],
        cut_texts=cut,
        computed_frames=computed.frames,
        computed_texts=computed.texts,
        missing=tuple(missing),
        failures=tuple(manifest["failures"]),
        damage=tuple(damage),
    )


class Features:
    """A split's features, row by row as `Split.videos` and `Split.captions` are.

    Numbers are stored in 16 bits and read through memory maps: opening costs milliseconds, and what no batch asks for
    is never read. `split` is checked against what the features were computed of, where given.
    """

    def __init__(self, folder: str | os.PathLike[str], split: Split | None = None):
        self.folder = Path(folder)
        self.manifest = store.manifest(self.folder)
        self.dim: int = self.manifest["dim"]
        self.video_ids: tuple[str, ...] = tuple(self.manifest["video_ids"])
        self.caption_ids: tuple[str, ...] = tuple(self.manifest["caption_ids"])
        self._frames = store.Ragged(self.folder.parent, self.manifest["frame_parts"])
        self._words = store.Ragged(self.folder.parent, self.manifest["word_parts"])
        self._texts = np.array(self.manifest["texts"], dtype=np.int64)
        self.there: Bool[np.ndarray, "video"] = self._frames.length > 0  # False: missing or failed
        if split is not None:
            self._check(split)

    def __reduce__(self) -> tuple[type[Features], tuple[Path]]:
        return Features, (self.folder,)  # maps are opened anew in another process

    def __len__(self) -> int:
        """How many videos."""
        return len(self.video_ids)

    def frames(
        self,
        rows: Sequence[int] | Int[np.ndarray, "video"] | Int[Tensor, "video"],
        most: int | None = None,
        draw: np.random.Generator | None = None,
    ) -> Frames:
        """Frames of these videos, fp32, padded to the longest.

        most  of a video with more frames, that many: it is cut into `most` equal stretches, and of each the middle
              frame is taken, or one at random with `draw`. Each keeps the seconds it saw.
        LookupError for a video without frames: `there` says which have some, the manifest why not.
        """
        vectors, spans = [], []
        for row in _checked(rows, len(self), "videos", self.folder):
            count = int(self._frames.length[row])
            if count == 0:
                why = {one["video"]: one["reason"] for one in self.manifest["failures"]}
                id = self.video_ids[row]
                raise LookupError(
                    f"video {id!r} (row {row}) has no frames: {why.get(id, 'its file was missing')}; "
                    "mend it and run `rushes features` again, or leave it out and say so"
                )
            picked = None if most is None or count <= most else stretches(count, most, draw)
            vectors.append(_tensor(self._frames.rows("vectors", row, picked)))
            spans.append(_tensor(self._frames.rows("spans", row, picked)))
        return Frames.pack(vectors, spans)

    def words(self, rows: Sequence[int] | Int[np.ndarray, "text"] | Int[Tensor, "text"]) -> Words:
        """Words of these captions, fp32, padded to the longest; `content` by the manifest's tagger, if it has one."""
        texts = [int(self._texts[row]) for row in _checked(rows, len(self.caption_ids), "captions", self.folder)]
        counts = torch.from_numpy(self._words.length[texts])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        vectors = torch.zeros(*mask.shape, self.dim)
        content = None if self.manifest["tagger"] is None else torch.zeros_like(mask)
        for row, (text, count) in enumerate(zip(texts, counts.tolist(), strict=True)):
            vectors[row, :count] = _tensor(self._words.rows("vectors", text))
            if content is not None:
                content[row, :count] = torch.from_numpy(np.array(self._words.rows("content", text)))
        sentence = torch.stack([_tensor(self._words.of("sentences", text)) for text in texts])
        return Words(vectors, mask, sentence, content)

    def _check(self, split: Split) -> None:
        asked = (split.digest(), tuple(v.id for v in split.videos), tuple(c.id for c in split.captions))
        if asked != (self.manifest["split_digest"], self.video_ids, self.caption_ids):
            raise ValueError(
                f"{self.folder} holds features of split {self.manifest['split_digest']}, in its order of "
                f"{len(self):,} videos, not of {asked[0]}; compute them with `rushes features`"
            )


def stretches(count: int, most: int, draw: np.random.Generator | None) -> Int[np.ndarray, "frame"]:
    """One of each of `most` equal stretches of `count` frames: the middle one, or one that `draw` chooses.

    >>> stretches(9, 3, None), stretches(5, 4, None)
    (array([1, 4, 7]), array([0, 1, 2, 3]))
    """
    if most < 1:
        raise ValueError(f"at most {most} frames of a video cannot be; give 1 or more, or None for all")
    edges = np.arange(most + 1) * count // most
    if draw is None:
        return (edges[:-1] + edges[1:] - 1) // 2
    return draw.integers(edges[:-1], edges[1:])


def digest_of(backbone: Backbone) -> str:
    """32 hexadecimal digits over a backbone's class, settings and every number of its tensors."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(store.digest([type(backbone).__name__, backbone.settings()]).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def seconds_seen(times: Sequence[float], start: float, end: float) -> Float32[np.ndarray, "frame 2"]:
    """The seconds each frame stands for: half way to its neighbours, the video's ends at the ends.

    >>> seconds_seen([2.5, 3.5, 4.5], 2.0, 5.0).tolist()
    [[2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]
    """
    middles = [(one + other) / 2 for one, other in pairwise(times)]
    edges = np.array([start, *middles, end])
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32)


@dataclass(slots=True)
class _Computed:
    """What went through the backbone in this run."""

    frames: int = 0
    texts: int = 0


@dataclass(slots=True)
class _Row:
    """A video while its part is computed."""

    times: list[float] = field(default_factory=list)
    vectors: list[Float[np.ndarray, "dim"]] = field(default_factory=list)
    end: End | None = None


def _write_frames(
    backbone: Backbone, source: Source, rows: range, out: Path, part: str, computed: _Computed
) -> Mapping[str, Any]:
    """One part of frames. Batches run across its videos and end with it, so they are the same in every run."""
    found = [_Row() for _ in rows]
    failures: list[dict[str, Any]] = []
    damage: list[dict[str, Any]] = []
    waiting: list[tuple[int, np.ndarray]] = []

    def flush() -> None:
        if waiting:
            pixels = torch.from_numpy(np.stack([one for _, one in waiting])).permute(0, 3, 1, 2)
            for (place, _), vector in zip(waiting, _vectors(backbone, pixels), strict=True):
                found[place].vectors.append(vector)
            computed.frames += len(waiting)
            waiting.clear()

    for place, row in enumerate(rows):
        if source.prints[row] is None:
            failures.append({"row": place, "code": "missing", "reason": "its file is missing"})
            continue
        try:
            for event in source.read(row, backbone.image_size, backbone.squash):
                if isinstance(event, Frame):
                    if waiting and waiting[0][1].shape != event.pixels.shape:
                        flush()  # frames of another shape cannot share a batch
                    found[place].times.append(event.time)
                    waiting.append((place, event.pixels))
                    if len(waiting) == BATCH_FRAMES:
                        flush()
                elif isinstance(event, End):
                    found[place].end = event
                else:
                    damage.append({"row": place, **asdict(event)})
        except (VideoError, OSError) as error:
            code = error.code if isinstance(error, VideoError) else "unreadable"
            failures.append({"row": place, "code": code, "reason": str(error)})
    flush()
    kept = [one if one.end is not None else _Row() for one in found]  # of one that failed half way, nothing
    spans = [seconds_seen(one.times, one.end.start, one.end.end) for one in kept if one.end is not None]
    vectors = [vector for one in kept for vector in one.vectors]
    arrays = {
        "offsets": np.cumsum([0, *(len(one.vectors) for one in kept)]),
        "vectors": _halved(np.array(vectors, dtype=np.float32).reshape(-1, backbone.dim), "frames"),
        "spans": np.concatenate([np.zeros((0, 2), np.float32), *spans]),
    }
    told = {"failures": failures, "damage": damage}
    store.write_part(out, part, arrays, told)
    return told


@torch.inference_mode()
def _vectors(backbone: Backbone, pixels: Tensor) -> Float32[np.ndarray, "frame dim"]:
    return backbone.frames(pixels.to(next(backbone.parameters()).device)).float().cpu().numpy()


@torch.inference_mode()
def _write_words(backbone: Backbone, texts: Sequence[str], tagger: str | None, out: Path, part: str) -> dict[str, Any]:
    """One part of words: texts of like length share a batch, because padding is time."""
    tokens = backbone.tokenize(texts)
    lengths = tokens.mask.sum(dim=1).tolist()
    ends = [len(text) for text in texts] if tokens.offsets is None else tokens.offsets[..., 1].amax(dim=1).tolist()
    cut = sum(end < len(text.rstrip()) for end, text in zip(ends, texts, strict=True))
    order = sorted(range(len(texts)), key=lambda row: lengths[row])
    vectors: list[np.ndarray] = [np.zeros(0)] * len(texts)
    content: list[np.ndarray] = [np.zeros(0)] * len(texts)
    sentences = np.zeros((len(texts), backbone.dim), np.float32)
    for first in range(0, len(texts), BATCH_TEXTS):
        batch = order[first : first + BATCH_TEXTS]
        words = backbone.read([texts[row] for row in batch], tagger)
        for place, row in enumerate(batch):
            mask = words.mask[place]
            vectors[row] = words.vectors[place][mask].float().cpu().numpy()
            sentences[row] = words.sentence[place].float().cpu().numpy()
            if words.content is not None:
                content[row] = words.content[place][mask].cpu().numpy()
    arrays = {
        "offsets": np.cumsum([0, *map(len, vectors)]),
        "vectors": _halved(np.concatenate(vectors), "words"),
        "sentences": _halved(sentences, "sentences"),
    }
    if tagger is not None:
        arrays["content"] = np.concatenate(content)
    told = {"texts": len(texts), "cut": cut}
    store.write_part(out, part, arrays, told)
    return told


def _halved(vectors: Float32[np.ndarray, "row dim"], what: str) -> np.ndarray:
    """In 16 bits: 3 digits, and no number beyond 65,504."""
    if vectors.size and not np.abs(vectors).max() < 65504:  # NaN is not less either
        raise ValueError(
            f"{what} have features up to {np.abs(vectors).max()}, too large for 16 bits; is the model sane?"
        )
    return vectors.astype(np.float16)


def _tensor(array: np.ndarray) -> Float32[Tensor, "..."]:
    return torch.from_numpy(array.astype(np.float32))


def _checked(rows: Sequence[int] | np.ndarray | Tensor, count: int, what: str, folder: Path) -> list[int]:
    numbers = [int(row) for row in rows]
    unknown = [row for row in numbers if not 0 <= row < count]
    if unknown:
        raise LookupError(f"{folder} has {count:,} {what}, rows 0 to {count - 1}; none is row {unknown[0]}")
    if not numbers:
        raise ValueError(f"no rows of {what} were asked for; give at least one")
    return numbers
