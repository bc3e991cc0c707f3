"""The page of an evaluation: one file of HTML with its plots inside, for eyes rather than programs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from rushes.evaluate.answers import Answers, answers, recall_curve
from rushes.evaluate.metrics import METRICS
from rushes.evaluate.run import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20  # queries in each list
INK, LINES = "#010203", ("#0a0b01", "#0a0b02", "#0a0b03")  # stand for what the style sheet says, light or dark
NAMES = {"t2v": "text to video", "v2t": "video to text (captions)", "v2t_groups": "video to text (groups)"}
EDGES = (1, 5, 10, 50, 100, 500, 1000, 5000, 10_000, 50_000)  # upper ends of the bars of the histogram


@dataclass(frozen=True)
class Shown:
    """One query of a list on the page."""

    text: str
    query: str
    rank: float
    own: str  # the video that should have been first
    own_score: float
    top: str
    top_score: float
    why: str = ""


def available() -> None:
    """ModuleNotFoundError, with the way out, where what draws the page is not installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"the page needs {error.name}: `pip install 'rushes[report]'`, or leave it out with --no-page"
        ) from error


def page(
    evaluation: Evaluation, card: Mapping[str, Any], found: Sequence[Answers], thumbnails: Mapping[str, bytes]
) -> str:
    """report.html. Everything that came from data is escaped; nothing is loaded from anywhere."""
    available()
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        files("rushes.evaluate").joinpath("page.html").read_text(encoding="utf-8")
    )
    return template.render(
        card=card,
        names=NAMES,
        metrics=METRICS,
        histogram=_svg(_histogram(found, evaluation.ties), "histogram", _told_histogram(found, evaluation.ties)),
        curve=_svg(_curve(found, evaluation.ties), "curve", _told_curve(found, evaluation.ties)),
        hardest=hardest(evaluation, found[0]),
        suspects=false_negatives(evaluation, found[0]),
        pictures={name: _uri(data) for name, data in thumbnails.items()},
    )


def shown_videos(evaluation: Evaluation) -> list[str]:
    """The ids of the videos that the page shows, each once: those worth a thumbnail."""
    found = answers(evaluation)[0]
    lists = (*hardest(evaluation, found), *false_negatives(evaluation, found))
    return list(dict.fromkeys(video for one in lists for video in (one.own, one.top)))


def hardest(evaluation: Evaluation, found: Answers) -> list[Shown]:
    """The texts whose best video came latest; none where it came first."""
    ranks = found.ranks.best(evaluation.ties)
    order = np.argsort(-ranks, kind="stable")[:SHOWN]
    return [_shown(evaluation, found, int(text), float(ranks[text])) for text in order if ranks[text] > 1]


def false_negatives(evaluation: Evaluation, found: Answers) -> list[Shown]:
    """Texts whose first video is called wrong but may well be right, for somebody to look at.

    Either a caption of that video has the very words of the text, or it leads the best right video by more than the
    first video leads the second in half of the texts that are answered rightly: the model is surer of it than usual.
    """
    ranks = found.ranks.best(evaluation.ties)
    wrong = np.flatnonzero(found.top_score > found.own)
    words: dict[str, set[int]] = {}
    for text, video in zip(evaluation.positives.text.tolist(), evaluation.positives.video.tolist(), strict=True):
        words.setdefault(_plain(evaluation.split.captions[text].text), set()).add(video)
    lead = _usual_lead(evaluation, found)
    by_words, by_lead = [], []
    for text in wrong.tolist():
        if int(found.top[text]) in words[_plain(evaluation.split.captions[text].text)]:
            by_words.append(_shown(evaluation, found, text, ranks[text], "a caption of the first video has its words"))
        elif lead is not None and (ahead := found.top_score[text] - found.own[text]) > lead:
            why = f"ahead by {ahead:.3g}; right answers usually lead by {lead:.3g}"
            by_lead.append((ahead, _shown(evaluation, found, text, ranks[text], why)))
    by_lead.sort(key=lambda one: -one[0])
    return [*by_words, *(one for _, one in by_lead)][:SHOWN]


def _usual_lead(evaluation: Evaluation, found: Answers) -> float | None:
    """The median lead of the first video over the second, among texts that are answered rightly; None without any."""
    right = np.flatnonzero(found.top_score == found.own)
    if not len(right) or len(found.gallery) < 2:
        return None
    matrix = evaluation.scores["t2v"]
    chosen = right[np.linspace(0, len(right) - 1, min(len(right), 2000)).astype(int)]
    two = np.partition(matrix[chosen], -2, axis=1)[:, -2:]
    return float(np.median(two[:, 1] - two[:, 0]))


def _shown(evaluation: Evaluation, found: Answers, text: int, rank: float, why: str = "") -> Shown:
    positives = evaluation.positives
    own = positives.video[positives.text == text]
    best = int(own[evaluation.scores["t2v"][text, own].argmax()])
    caption = evaluation.split.captions[text]
    return Shown(
        text=caption.text,
        query=caption.id,
        rank=rank,
        own=found.gallery[best],
        own_score=float(found.own[text]),
        top=found.gallery[int(found.top[text])],
        top_score=float(found.top_score[text]),
        why=why,
    )


def _plain(text: str) -> str:
    """Words alone, to see whether two captions are the same.

    >>> _plain("A dog  runs."), _plain("a dog runs")
    ('a dog runs', 'a dog runs')
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


# --- plots ------------------------------------------------------------------------------------------------------------


def _bars(one: Answers, ties: Any) -> tuple[list[str], list[float]]:
    """Labels "1", "2–5", ... up to the size of the gallery, and the share of queries in each, in percent."""
    best, size = one.ranks.best(ties), one.ranks.gallery
    edges = [edge for edge in EDGES if edge < size] + [size]
    starts = [0, *edges[:-1]]
    labels = [
        str(end) if end - start == 1 else f"{start + 1:,}–{end:,}" for start, end in zip(starts, edges, strict=True)
    ]
    shares = [100 * float(((best > start) & (best <= end)).mean()) for start, end in zip(starts, edges, strict=True)]
    return labels, shares


def _histogram(found: Sequence[Answers], ties: Any) -> Figure:
    figure, axes = _axes()
    same = [one for one in found if one.ranks.gallery == found[0].ranks.gallery]  # bars of one gallery stand together
    width = 0.8 / len(same)
    labels: list[str] = []
    for number, one in enumerate(same):
        labels, shares = _bars(one, ties)
        places = np.arange(len(labels)) + (number - (len(same) - 1) / 2) * width
        hatch = ("", "//", "..")[number]
        axes.bar(places, shares, width, color=LINES[number], hatch=hatch, edgecolor=INK, label=NAMES[one.name])
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(f"rank among {found[0].ranks.gallery:,}")
    axes.set_ylabel("% of queries")
    if len(same) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return figure


def _curve(found: Sequence[Answers], ties: Any) -> Figure:
    figure, axes = _axes()
    for number, one in enumerate(found):
        ks, recall = recall_curve(one.ranks, ties)
        axes.plot(ks, 100 * recall, color=LINES[number], linestyle=("-", "--", "-.")[number], label=NAMES[one.name])
    size = found[0].ranks.gallery
    places = np.geomspace(1, size, 60)
    axes.plot(places, 100 * places / size, ":", color=INK, label="chance, text to video")
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    ticks = [
        k for k in (1, 5, 10, 50, 100, 500, 1000, 5000, 10_000, 50_000) if k <= max(one.ranks.gallery for one in found)
    ]
    axes.set_xticks(ticks, [f"{k:,}" for k in ticks])
    axes.minorticks_off()
    axes.set_xlabel("k")
    axes.set_ylabel("recall at k, %")
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    return figure


def _axes() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _svg(figure: Figure, name: str, told: str) -> Any:
    """The drawing as part of a page: its own ids, its colours from the style sheet, and words for who cannot see it."""
    import matplotlib
    from markupsafe import Markup, escape

    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for number, colour in enumerate(LINES):
        svg = svg.replace(colour, f"var(--line{number})")
    svg = svg.replace(INK, "currentColor")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(told)}"', 1))


def _told_histogram(found: Sequence[Answers], ties: Any) -> str:
    labels, shares = _bars(found[0], ties)
    parts = ", ".join(f"{label}: {share:.1f} %" for label, share in zip(labels, shares, strict=True))
    return f"Histogram of ranks, {NAMES[found[0].name]}: {parts}"


def _told_curve(found: Sequence[Answers], ties: Any) -> str:
    parts = []
    for one in found:
        ks = [k for k in (1, 5, 10, 50) if k <= one.ranks.gallery]
        numbers = ", ".join(f"{100 * one.ranks.recall(k, ties).mean():.1f} % at {k}" for k in ks)
        parts.append(f"{NAMES[one.name]} {numbers}")
    return f"Recall by k: {'; '.join(parts)}"


def _uri(data: bytes) -> str:
    """A picture inside the page. ValueError for what is no JPEG or PNG."""
    kinds = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png"}
    kind = next((kind for magic, kind in kinds.items() if data.startswith(magic)), None)
    if kind is None:
        raise ValueError(f"a thumbnail of {len(data)} bytes is neither JPEG nor PNG")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
