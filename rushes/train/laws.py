"""The laws that every method keeps, as functions that say what broke: `check("wti")` or `check("mine.py")`."""

from __future__ import annotations

import inspect
import json
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.methods.base import Batch, Method
from rushes.train.cases import (
    FRAME_COUNTS,
    WORD_COUNTS,
    Broken,
    Case,
    Seen,
    backward,
    cases,
    descend,
    kept_after_all,
    told,
)
from rushes.train.pair import TWO_PROCESSES, compared, learnt_by_two
from rushes.types import Tokens

TOLERANCE = 1e-4  # of the largest value: fp32 sums in another order are far below, a forgotten mask is far above
HALF = 1e-2  # of the largest score, for tokens that were stored in fp16: 3 digits each


@dataclass(frozen=True)
class Verdict:
    """What `check` found out about one law."""

    law: str
    kept: bool
    detail: str
    seconds: float
    on_purpose: tuple[str, ...] = ()  # configurations that say they break it, and why; they were seen to


def check(
    name: str,
    *,
    dim: int = 64,
    seeds: Sequence[int] = (0, 1),
    laws: Collection[str] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Verdict]:
    """Try the laws on the method `name`, known to the registry or the path of a .py file.

    `dim` is the size of the random features. Every law is tried with the default configuration and the presets under
    every seed, and with each switch turned under the first. A configuration whose `breaks()` says that it breaks a law
    on purpose, as an author's code does, must be seen to break it; the verdict lists it with its reason. `laws` asks
    for some of `LAWS` only. A method that raises is no reason to stop: what it raised, and where, is the verdict.
    LookupError if there is no such method.
    `on_progress` hears how many of how many laws are done, and which is next.
    """
    known = [*LAWS, TWO_PROCESSES]
    wanted = known if laws is None else list(laws)
    if unknown := sorted(set(wanted) - set(known)):
        raise LookupError(f"no law is called {unknown[0]!r}; there are {', '.join(known)}")
    if not (Path(name).is_file() if name.endswith(".py") else name in registry.names("methods")):
        registry.find("methods", name, Method)  # raises, and says what there is
    found: list[Case] = []

    def build() -> Seen:
        found.extend(cases(registry.find("methods", name, Method), dim, seeds))
        for case in found:
            case.method()
            if strange := sorted(set(case.config.breaks()) - set(known)):
                raise Broken(f"{case.name} says it breaks {strange[0]!r}; the laws are {', '.join(known)}")
        return f"{len(found)} cases: {', '.join(dict.fromkeys(case.name for case in found))}", ()

    def trial(law: str) -> Callable[[], Seen]:
        if law == TWO_PROCESSES:
            return lambda: compared(found, learnt_by_two([name], dim, seeds)[name])
        return lambda: _in_all(found, law)

    with torch.random.fork_rng(devices=[]):
        verdicts = [_verdict(BUILT, build, name)]
        if verdicts[0].kept:
            file = inspect.getfile(found[0].method_class)
            for done, law in enumerate(wanted):
                if on_progress is not None:
                    on_progress(done, len(wanted), law)
                verdicts.append(_verdict(law, trial(law), file))
    return verdicts


# --- the laws: each raises Broken, or says in words what it saw ------------------------------------------------------


@torch.no_grad()
def padding_changes_nothing(case: Case) -> str:
    """A text or video gives the same tokens, scores and losses alone and among longer ones, whatever padding holds."""
    method, words, frames = case.method(), case.words(), case.frames()
    text, video = method.encode_text(words), method.encode_video(frames)
    scores = method.score(text, video)
    for row in range(len(text)):
        alone = method.encode_text(_one(words, row))
        _same_tokens(alone, text[row : row + 1], "a text alone and among longer ones")
        _same(method.score(alone, video), scores[row : row + 1], "scores of a text alone and among longer ones")
    for row in range(len(video)):
        alone = method.encode_video(_one(frames, row))
        _same_tokens(alone, video[row : row + 1], "a video alone and among longer ones")
        _same(method.score(text, alone), scores[:, row : row + 1], "scores of a video alone and among longer ones")
    wide_text, wide_video = _wider(text, case.seed), _wider(video, case.seed + 1)
    _same(method.score(wide_text, video), scores, "scores with more padding behind text tokens")
    _same(method.score(text, wide_video), scores, "scores with more padding behind video tokens")
    _same(method.summary(wide_text), method.summary(text), "summaries with more padding behind text tokens")
    _same(method.summary(wide_video), method.summary(video), "summaries with more padding behind video tokens")
    batch = case.batch()
    wide = case.batch(words=max(WORD_COUNTS) + 2, frames=max(FRAME_COUNTS) + 3)
    torch.manual_seed(case.seed)
    loss = method.step(batch)
    torch.manual_seed(case.seed)
    for term, value in method.step(wide).items():
        _same(value, loss[term], f"the loss {term!r} with more padding")
    return "texts and videos alone, among longer ones, and with 2 to 3 more columns of noise"


@torch.no_grad()
def pairs_are_independent(case: Case) -> str:
    """A block of scores holds what single pairs score; 5 texts and 4 videos need not be as many."""
    method, words, frames = case.method(), case.words(), case.frames()
    text, video = method.encode_text(words), method.encode_video(frames)
    scores = method.score(text, video)
    if scores.shape != (len(text), len(video)):
        raise Broken(f"{len(text)} texts and {len(video)} videos gave scores of shape {tuple(scores.shape)}")
    for row in range(len(text)):
        _same_tokens(method.encode_text(words[row : row + 1]), text[row : row + 1], "a text encoded by itself")
        for column in range(len(video)):
            single = method.score(text[row : row + 1], video[column : column + 1])
            _same(single, scores[row : row + 1, column : column + 1], f"text {row} with video {column} by themselves")
    for column in range(len(video)):
        _same_tokens(method.encode_video(frames[column : column + 1]), video[column : column + 1], "a video by itself")
    return f"{scores.numel()} pairs by themselves"


@torch.no_grad()
def permuting_permutes(case: Case) -> str:
    """Texts and videos in another order give the same scores in that order."""
    method, words, frames = case.method(), case.words(), case.frames()
    scores = method.score(method.encode_text(words), method.encode_video(frames))
    draw = torch.Generator().manual_seed(case.seed)
    rows, columns = (torch.randperm(len(side), generator=draw).roll(1) for side in (words, frames))
    permuted = method.score(method.encode_text(words[rows]), method.encode_video(frames[columns]))
    _same(permuted, scores[rows][:, columns], "scores in another order")
    return "texts and videos in another order"


def save_and_load_is_exact(case: Case) -> str:
    """After a training step, weights and configuration written and read give every bit again, as a saved model does."""
    method = case.method()
    backward(method.train(), case.batch())
    descend(method)
    method.eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in method.state_dict().items()}, file)
        settings = json.loads(json.dumps(method.settings()))
        torch.manual_seed(case.seed + 77)  # what is drawn anew and not saved must show
        again = case.method_class(case.dim, case.method_class.configured(**settings)).eval()
        again.load_state_dict(load_file(file))
    if json.dumps(again.settings()) != json.dumps(method.settings()):
        raise Broken(f"the configuration came back as {again.settings()}, it was {method.settings()}")
    for encode, features in (("encode_text", case.words()), ("encode_video", case.frames())):
        before, after = getattr(method, encode)(features), getattr(again, encode)(features)
        _same_tokens(after, before, f"{encode} after loading", exact=True)
        _same(again.summary(after), method.summary(before), f"summaries of {encode} after loading", exact=True)
    scores = method.score(method.encode_text(case.words()), method.encode_video(case.frames()))
    loaded = again.score(again.encode_text(case.words()), again.encode_video(case.frames()))
    _same(loaded, scores, "scores after loading", exact=True)
    return f"{len(method.state_dict())} tensors, bit for bit"


def gradients_reach_every_parameter(case: Case) -> str:
    """Within three training steps every parameter that wants a gradient gets one that is not zero throughout.

    Three, since behind a gate that starts at zero there is none in the first.
    """
    method = case.method().train()
    waiting = {name: "no gradient" for name, weight in method.named_parameters() if weight.requires_grad}
    count = len(waiting)
    if count == 0:
        return "it has no parameters"
    for step in range(3):
        backward(method, replace(case, seed=case.seed + step).batch())
        for name, weight in method.named_parameters():
            if weight.grad is not None and not bool(weight.grad.isfinite().all()):
                raise Broken(f"the gradient of {name} is not finite")
            if name in waiting and weight.grad is not None:
                waiting[name] = "a gradient of zeros"
                if bool(weight.grad.any()):
                    del waiting[name]
        descend(method)
    if waiting:
        first, what = next(iter(waiting.items()))
        raise Broken(f"{len(waiting)} of {count} parameters learn nothing: {first} gets {what}")
    return f"{count} parameters"


@torch.no_grad()
def spans_lie_inside(case: Case) -> str:
    """Every video token says which seconds it saw, on the video's own clock and inside the segment."""
    method, frames = case.method(), case.frames()
    video = method.encode_video(frames)
    if video.spans is None:
        raise Broken("video tokens have no spans: no moment could be told")
    if video.spans.shape != (*video.mask.shape, 2):
        raise Broken(f"spans have shape {tuple(video.spans.shape)}, tokens {tuple(video.mask.shape)}")
    later = method.encode_video(replace(frames, spans=frames.spans + 1000))
    assert later.spans is not None  # it had spans a line ago
    for row in range(len(video)):
        real = frames.spans[row][frames.mask[row]]
        start, end = float(real[:, 0].min()), float(real[:, 1].max())
        for first, last in video.spans[row][video.mask[row]].tolist():
            if not start - 1e-3 <= first < last <= end + 1e-3:
                raise Broken(f"a token saw {first:.2f} to {last:.2f} s of a segment from {start:.2f} to {end:.2f} s")
        moved = (later.spans[row] - video.spans[row])[video.mask[row]]
        _same(moved, torch.full_like(moved, 1000), "how far tokens move when the segment starts 1000 s later")
    return f"{int(video.mask.sum())} tokens of {len(video)} segments"


@torch.no_grad()
def only_real_tokens_count(case: Case) -> str:
    """Masks are bool with a real token in every row; weights are finite, and 0 on padding; levels are 0, 1 or 2."""
    method = case.method()
    text, video = method.encode_text(case.words()), method.encode_video(case.frames())
    for side, tokens, rows in (("text", text, len(WORD_COUNTS)), ("video", video, len(FRAME_COUNTS))):
        if tokens.mask.dtype != torch.bool or tokens.vectors.shape[:2] != tokens.mask.shape or len(tokens) != rows:
            raise Broken(
                f"{rows} {side}s gave vectors {tuple(tokens.vectors.shape)} and mask {tokens.mask.dtype} "
                f"{tuple(tokens.mask.shape)}"
            )
        if not bool(tokens.mask.any(dim=1).all()):
            raise Broken(f"a {side} has no real token")
        if not bool(tokens.vectors[tokens.mask].isfinite().all()):
            raise Broken(f"real {side} tokens are not finite")
        if tokens.weights is not None:
            if not bool(tokens.weights.isfinite().all()):
                raise Broken(f"{side} weights are not finite")
            if bool(tokens.weights[~tokens.mask].any()):
                raise Broken(f"{side} padding has weights up to {float(tokens.weights[~tokens.mask].abs().max()):.2g}")
        if tokens.level is not None and not bool(torch.isin(tokens.level[tokens.mask], torch.arange(3)).all()):
            raise Broken(f"{side} levels are {sorted(set(tokens.level[tokens.mask].tolist()))}; known are 0, 1, 2")
    if text.vectors.shape[2] != video.vectors.shape[2]:
        raise Broken(f"text tokens have {text.vectors.shape[2]} numbers, video tokens {video.vectors.shape[2]}")
    return f"{int(text.mask.sum())} text tokens and {int(video.mask.sum())} video tokens"


@torch.no_grad()
def stored_tokens_score_the_same(case: Case) -> str:
    """Tokens kept in fp16, row by row, padded again and scored by a model just loaded give the live model's scores."""
    method, words, frames = case.method(), case.words(), case.frames()
    text, video = method.encode_text(words), method.encode_video(frames)
    scores = method.score(text, video)
    rows = [_stored(video[row : row + 1]) for row in range(len(video))]
    other = case.method()
    other.load_state_dict(method.state_dict())
    other.encode_video(case.frames(FRAME_COUNTS[:2]))  # whatever it may keep of these must not show in the scores
    again = other.score(other.encode_text(words), Tokens.cat(rows).to(torch.float32))
    _same(again, scores, "scores from stored tokens", tolerance=HALF)
    return f"largest difference {float((again - scores).abs().max()):.1g}, scores up to {float(scores.abs().max()):.2g}"


@torch.no_grad()
def scores_are_finite_fp32(case: Case) -> str:
    """Scores are finite and fp32, also of tokens that are fp16."""
    method = case.method()
    text, video = method.encode_text(case.words()), method.encode_video(case.frames())
    for kind in (torch.float32, torch.float16):
        scores = method.score(text.to(kind), video.to(kind))
        if scores.dtype != torch.float32:
            raise Broken(f"tokens of {kind} gave scores of {scores.dtype}")
        if not bool(scores.isfinite().all()):
            raise Broken(
                f"{int((~scores.isfinite()).sum())} of {scores.numel()} scores of {kind} tokens are not finite"
            )
    return f"from {float(scores.min()):.2g} to {float(scores.max()):.2g}"


@torch.no_grad()
def summaries_are_unit_vectors(case: Case) -> str:
    """Both sides have summaries of one size, finite and of length one."""
    method = case.method()
    text = method.summary(method.encode_text(case.words()))
    video = method.summary(method.encode_video(case.frames()))
    if text.shape != (len(WORD_COUNTS), text.shape[-1]) or video.shape != (len(FRAME_COUNTS), text.shape[-1]):
        raise Broken(f"summaries have shapes {tuple(text.shape)} and {tuple(video.shape)}")
    for side, vectors in (("text", text), ("video", video)):
        lengths = vectors.norm(dim=1)
        if not bool(((lengths - 1).abs() < 1e-3).all()):  # a NaN is not below anything
            raise Broken(f"{side} summaries have lengths {[round(length, 4) for length in lengths.tolist()]}")
    return f"{text.shape[1]} numbers"


@torch.no_grad()
def evidence_is_of_real_tokens(case: Case) -> str:
    """What a moment is read from: finite on real video tokens, -inf on padding."""
    method = case.method()
    text, video = method.encode_text(case.words()), method.encode_video(case.frames())
    for row in range(len(text)):
        evidence = method.evidence(text[row : row + 1], video)
        if evidence.shape != video.mask.shape:
            raise Broken(f"evidence has shape {tuple(evidence.shape)}, video tokens {tuple(video.mask.shape)}")
        if not bool(evidence[video.mask].isfinite().all()):
            raise Broken("evidence of real tokens is not finite")
        if not bool((evidence[~video.mask] == -float("inf")).all()):
            raise Broken("evidence of padding is not -inf")
    return f"{int(video.mask.sum())} tokens for each of {len(text)} texts"


def one_word_and_one_frame_are_enough(case: Case) -> str:
    """Texts of one word and videos of one frame have finite scores, losses and gradients."""
    method = case.method()
    words, frames = case.words((1, 1)), case.frames((1, 1))
    scores = method.score(method.encode_text(words[:1]), method.encode_video(frames[:1]))
    if scores.shape != (1, 1) or not bool(scores.isfinite().all()):
        raise Broken(f"one text of one word and one video of one frame score {scores.tolist()}")
    numbers = torch.tensor([3, 8])
    second = frames if case.config.views == 2 else None
    backward(method.train(), Batch(words, frames, numbers, numbers, second))
    for name, weight in method.named_parameters():
        if weight.grad is not None and not bool(weight.grad.isfinite().all()):
            raise Broken(f"the gradient of {name} is not finite")
    return f"score {scores.item():.2g}"


@torch.no_grad()
def the_same_twice(case: Case) -> str:
    """In eval mode the same features give the same bits, and the features themselves are left alone."""
    method, words, frames = case.method(), case.words(), case.frames()
    text, video = method.encode_text(words), method.encode_video(frames)
    scores = method.score(text, video)
    _same_tokens(method.encode_text(case.words()), text, "text tokens the second time", exact=True)
    _same_tokens(method.encode_video(case.frames()), video, "video tokens the second time", exact=True)
    for use in (
        lambda: method.summary(text),
        lambda: method.evidence(text[:1], video),
        lambda: method.step(case.batch()),
    ):
        use()
    _same(method.score(text, video), scores, "scores the second time", exact=True)
    for given, now in ((case.words(), words), (case.frames(), frames)):
        for field in fields(given):
            if not torch.equal(getattr(given, field.name), getattr(now, field.name)):
                raise Broken(f"{type(given).__name__}.{field.name} was changed by who was only to read it")
    return "bit for bit"


LAWS: dict[str, Callable[[Case], str]] = {
    "padding changes nothing": padding_changes_nothing,
    "pairs are independent": pairs_are_independent,
    "permuting the gallery permutes the scores": permuting_permutes,
    "save and load is exact": save_and_load_is_exact,
    "gradients reach every parameter": gradients_reach_every_parameter,
    "spans lie inside the segment": spans_lie_inside,
    "only real tokens count": only_real_tokens_count,
    "stored tokens give the scores of the live model": stored_tokens_score_the_same,
    "scores are finite and fp32": scores_are_finite_fp32,
    "summaries are unit vectors": summaries_are_unit_vectors,
    "evidence is of real tokens": evidence_is_of_real_tokens,
    "one word and one frame are enough": one_word_and_one_frame_are_enough,
    "the same twice": the_same_twice,
}
BUILT = "the method can be built"  # beside `LAWS`, as TWO_PROCESSES: not of one case

# --- small parts -----------------------------------------------------------------------------------------------------


def _one(features: Any, row: int) -> Any:
    """Row `row` of words or frames without its padding, still a batch."""
    count = int(features.mask[row].sum())
    single = features[row : row + 1]
    if isinstance(single, Words):
        content = None if single.content is None else single.content[:, :count]
        return Words(single.vectors[:, :count], single.mask[:, :count], single.sentence, content)
    return Frames(single.vectors[:, :count], single.mask[:, :count], single.spans[:, :count])


def _wider(tokens: Tokens, seed: int) -> Tokens:
    """The same tokens with three more columns, and large random numbers in the vectors of all padding."""
    wide = tokens.padded(tokens.mask.shape[1] + 3)
    draw = torch.Generator().manual_seed(seed)
    noise = 30 * torch.randn(wide.vectors.shape, generator=draw)
    return replace(wide, vectors=torch.where(wide.mask[..., None], wide.vectors, noise))


def _stored(tokens: Tokens) -> Tokens:
    """What an index gives back of one row: no padding, vectors and weights through fp16 bytes."""

    def through_bytes(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point():
            return tensor
        return torch.from_numpy(tensor.detach().cpu().numpy().copy())

    half = tokens.trimmed().to(torch.float16)
    return replace(half, vectors=through_bytes(half.vectors), weights=through_bytes(half.weights))


def _same(found: Tensor, wanted: Tensor, what: str, tolerance: float = TOLERANCE, exact: bool = False) -> None:
    if found.shape != wanted.shape:
        raise Broken(f"{what}: shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    if found.numel() == 0 or torch.equal(found, wanted):
        return
    apart = float((found.detach().double() - wanted.detach().double()).abs().max())
    allowed = 0.0 if exact else tolerance * max(float(wanted.detach().abs().max()), 1e-3)
    if not apart <= allowed:  # a NaN is not below anything
        raise Broken(f"{what} differ by {apart:.2g}, allowed is {allowed:.2g}")


def _same_tokens(found: Tokens, wanted: Tokens, what: str, exact: bool = False) -> None:
    """The same real tokens in the same order, whatever the widths are."""
    if found.counts().tolist() != wanted.counts().tolist():
        raise Broken(f"{what} have {found.counts().tolist()} real tokens, not {wanted.counts().tolist()}")
    for field in ("vectors", "spans", "level", "weights"):
        one, other = getattr(found, field), getattr(wanted, field)
        if (one is None) != (other is None):
            raise Broken(f"{what}: {field} only once of twice")
        if one is not None:
            _same(one[found.mask], other[wanted.mask], f"{field} of {what}", exact=exact)


def _in_all(found: Sequence[Case], law: str) -> Seen:
    said, on_purpose = "", []
    for case in found:
        try:
            seen = LAWS[law](case)
        except Exception as error:
            if isinstance(error, Broken) and law in case.config.breaks():
                on_purpose.append(f"{case.name}: {case.config.breaks()[law]}")
                continue
            error.add_note(f"{case.name}, seed {case.seed}")
            raise
        if law in case.config.breaks():
            raise Broken(kept_after_all(case, law))
        said = said or seen
    return f"{said}; {len(found) - len(on_purpose)} cases", tuple(dict.fromkeys(on_purpose))


def _verdict(law: str, trial: Callable[[], Seen], file: str) -> Verdict:
    begun = time.perf_counter()
    try:
        (detail, on_purpose), kept = trial(), True
    except Exception as error:  # whatever a method raises is a verdict on it
        detail, on_purpose, kept = told(error, file), (), False
    return Verdict(law, kept, detail, time.perf_counter() - begun, on_purpose)
