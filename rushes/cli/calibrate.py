"""`rushes calibrate`: fits how likely a hit is relevant, for one model, on captioned pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes.cli.options import Json, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.model import Model
    from rushes.search.calibrate import Calibration, Kind, Searches
    from rushes.train.judged import Judged, Shots

SIZES = (5, 20, 100, 500, 2500)  # segments of the libraries that are drawn
DRAWN = 200  # searches of each kind of query and size, with an answer in the library and without
OTHER_REELS = 448  # of training, whose shots fill the largest libraries: some 2,000
VIEWS = 400  # pictures that are seen another time, as queries by image
FEWEST = 100  # segments of its own that a fit needs
SEED = 0


def calibrate(
    model: Annotated[str, typer.Argument(help="An installed model, or a trained run's folder.", show_default=False)],
    root: Annotated[
        Path,
        typer.Option(help="The folder of captioned pictures.", exists=True, file_okay=False, show_default=False),
    ],
    features: Annotated[
        Path | None,
        typer.Option(help="Where features are kept.", show_default="ROOT/.rushes/features", file_okay=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write.", show_default="calibration.json in the model's own folder", dir_okay=False
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Whose pictures are fitted to; never those you measure on.")] = "val",
    as_json: Json = False,
) -> None:
    """Fit the confidence of MODEL's hits, and write it beside its weights.

    Libraries of many sizes are drawn from the shots of Reels; captions and phrases ask for what they hold, or do not.
    A fit holds for these weights alone, and is ignored once they change.
    """
    from rushes.model import installed, load
    from rushes.search.calibrate import FILE

    loaded = load(model)
    if out is None:
        if loaded.folder is None:
            raise ValueError(f"{model!r} is no folder to write to; save the model into one, and give that")
        if loaded.folder.resolve() in {folder.resolve() for folder in installed().values()}:
            raise ValueError(f"{model!r} is an installed package, which is not written to; say where with --out FILE")
        out = loaded.folder / FILE
    with bar("frames") as show:

        def on_progress(now: Any) -> None:
            assert show is not None
            show(now.done, now.total, now.what, now.frames)

        found = fitted(loaded, root, features or root / ".rushes" / "features", split, on_progress if show else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    found.save(out)
    if as_json:
        print_json({"file": str(out), "fits": {kind: asdict(fit) for kind, fit in found.fits.items()}})
        return
    for kind, fit in found.fits.items():
        about = fit.about
        typer.echo(
            f"{kind:<6} {about['hits']:,} hits of {about['searches']:,} searches; good from {fit.good:.2f}, none below "
            f"{fit.weak:.3f}; calibration error {about['calibration error']:.3f} on what it was fitted to"
        )
    typer.echo(str(out))


@dataclass(frozen=True, eq=False)
class Material:
    """What is searched and what is asked: the first `own` columns are shots of the asked pictures' own split."""

    judged: dict[Kind, Judged]
    own: int
    elsewhere: Any  # Tokens


def fitted(
    model: Model,
    root: Path,
    features: Path,
    split: str = "val",
    on_progress: Callable[[Any], None] | None = None,
) -> Calibration:
    """The calibration of a model on one split's pictures. A kind of query whose scores tell nothing is left out."""
    from rushes.search.calibrate import Calibration, Searches, calibration_error, fit

    found = material_of_fit(model, root, features, split, on_progress)
    fits = {}
    for kind, judged in found.judged.items():
        sizes = [size for size in SIZES if size <= judged.scores.shape[1]]
        searches = Searches.join([drawn(judged, kind, size, found.own) for size in sizes])
        try:
            made = fit(searches)
        except ValueError as error:
            typer.echo(f"no confidence for {kind} queries: {error}", err=True)
            continue
        about = {
            "split": split,
            "queries": len(judged.asked),
            "searches": int(searches.search.max()) + 1,
            "hits": len(searches),
            "relevant": round(float(searches.relevant.mean()), 4),
            "libraries": sizes,
            "calibration error": round(calibration_error(made.curve.of(searches), searches.relevant), 4),
        }
        fits[kind] = replace(made, about=about)
    if not fits:
        raise ValueError(f"{model.name!r} cannot be calibrated on these pictures: its scores tell nothing of relevance")
    switches = model.method.settings()
    return Calibration(model.digest(), model.method_name, switches, fits, found.elsewhere)


def material_of_fit(
    model: Model,
    root: Path,
    features: Path,
    split: str = "val",
    on_progress: Callable[[Any], None] | None = None,
) -> Material:
    """What a fit is made of. Some pictures of the split, in no library and never asked for, are the elsewhere."""
    from rushes.search.calibrate import ELSEWHERE
    from rushes.train.judged import stored

    shots = shots_of_split(model, root, features, split, None, on_progress)
    pictures = sorted(set(shots.pictures), key=_place)
    apart = set(pictures[: min(ELSEWHERE, len(pictures) // 3)])
    own = shots[[row for row, picture in enumerate(shots.pictures) if picture not in apart]]
    if len(own) < FEWEST:
        raise ValueError(f"{root} has {len(own)} shots of split {split!r} to fit to; {FEWEST} are the fewest")
    one_each = {picture: row for row, picture in enumerate(shots.pictures) if picture in apart}
    elsewhere = stored(model, shots[sorted(one_each.values())])
    others = others_of(model, root, features, slice(OTHER_REELS), on_progress)
    return material(model, root, split, own, others, elsewhere, odd=False)


def material(
    model: Model, root: Path, split: str, own: Shots, others: Shots | None, elsewhere: Any, *, odd: bool
) -> Material:
    """Queries for the pictures of `own`, scored against its shots and against those of `others`."""
    from rushes.search.calibrate import scorer
    from rushes.train.judged import captions_of, judged_texts, judged_views, stored, strange, texts_of
    from rushes.types import Tokens

    tokens = stored(model, own)
    shown = own.pictures
    captions = captions_of(root, split)
    if others is not None and len(others):
        tokens = Tokens.cat([tokens, stored(model, others)])
        shown += others.pictures
        captions |= captions_of(root, "train")
    every = [*strange(odd), *texts_of(captions, own.pictures)]
    asked = list({one.text: one for one in every}.values())  # a text that a caption has is not strange
    pictures = sorted(set(own.pictures), key=_place)[:VIEWS]
    score = scorer("image", model.method)
    return Material(
        {
            "text": judged_texts(model, asked, shown, tokens, elsewhere, captions),
            "image": judged_views(model, score, root, pictures, shown, tokens, elsewhere),
        },
        len(own),
        elsewhere,
    )


def drawn(judged: Judged, kind: Kind, size: int, own: int, each: int = DRAWN, seed: int = SEED) -> Searches:
    """Searches in libraries of one size: as many of every kind of query, half of them without an answer there.

    Libraries that the shots of the asked pictures can fill hold no others. Strange queries have no answer anywhere.
    """
    import numpy as np

    from rushes.search.calibrate import Searches, draw_searches
    from rushes.train.judged import PHRASES, STRANGE, WHOLE

    random = np.random.default_rng([seed, size])
    segments = slice(own if size <= own * 0.9 else None)
    scores, relevant = judged.scores[:, segments], judged.relevant[:, segments]
    parts = []
    for words in (WHOLE, *PHRASES, STRANGE) if kind == "text" else (WHOLE,):
        rows = judged.rows(words)
        if not len(rows):
            continue
        for present in (True, False):
            count = each * (2 if words == STRANGE or kind == "image" else 1)
            asked = random.permutation(np.tile(rows, -(-count // len(rows))))[:count]
            parts.append(draw_searches(scores, judged.elsewhere, relevant, asked, size, present=present, seed=seed))
    return Searches.join(parts)


def others_of(
    model: Model, root: Path, features: Path, reels: slice, on_progress: Callable[[Any], None] | None = None
) -> Shots | None:
    """Shots of some of the training reels, with which large libraries are filled; None without a split "train"."""
    from rushes.data.pictures import captioned

    if not captioned(root).splits["train"]:
        return None
    shots = shots_of_split(model, root, features, "train", reels.stop, on_progress)
    if not reels.start:
        return shots
    before = set(shots_of_split(model, root, features, "train", reels.start, on_progress).pictures)
    return shots[[row for row, picture in enumerate(shots.pictures) if picture not in before]]


def shots_of_split(
    model: Model,
    root: Path,
    features: Path,
    split: str,
    first: int | None = None,
    on_progress: Callable[[Any], None] | None = None,
) -> Shots:
    """The shots of a split's reels, or of its `first` reels, by this model's backbone."""
    from rushes.library.scan import fingerprint
    from rushes.train.judged import shots_of

    return shots_of(
        root, split, model.backbone, features, fingerprint, name=model.name, first=first, on_progress=on_progress
    )


def _place(picture: str) -> bytes:
    return hashlib.blake2b(picture.encode(), digest_size=8).digest()
