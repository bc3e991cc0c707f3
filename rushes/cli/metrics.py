"""`rushes metrics`: recall, ranks and their kin of a score matrix, whoever made it."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes.cli.options import Json, print_json

if TYPE_CHECKING:
    import numpy as np

    from rushes.evaluate.metrics import Direction, Metrics, Positives, Ranking, Ties

ROWS = 512  # of scores that a bank re-scores at once


class TiePolicy(StrEnum):
    expected = "expected"
    optimistic = "optimistic"
    pessimistic = "pessimistic"


class Rescore(StrEnum):
    dsl = "dsl"
    qbnorm = "qbnorm"
    sinkhorn = "sinkhorn"


class Only(StrEnum):
    t2v = "t2v"
    v2t = "v2t"


def metrics(
    scores: Annotated[
        Path,
        typer.Argument(help="A .npy matrix of scores, texts by videos, higher is better.", exists=True, dir_okay=False),
    ],
    positives: Annotated[
        Path | None,
        typer.Option(
            help="A .npy of which belong together: a matrix like SCORES of bool or 0/1, or integer pairs (text, video)"
            " of shape (n, 2), numbers from 0. Without it and --groups: text i belongs to video i.",
            exists=True,
            dir_okay=False,
            show_default="the diagonal",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="A text file with the video of each text, a line each in the order of the rows of SCORES. If all lines"
            " are whole numbers they are column numbers, from 0; if not they are video ids, and the columns are the"
            " videos in the order in which their ids first appear.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    ties: Annotated[
        TiePolicy,
        typer.Option(help="What equal scores count: the mean over all orders, positives first, or positives last."),
    ] = TiePolicy.expected,
    rescore: Annotated[
        Rescore | None,
        typer.Option(
            help="Also rank re-scored scores: dsl (transductive), qbnorm (inductive, takes --bank), sinkhorn"
            " (transductive; inductive with --bank). What a bank re-scores is text-to-video; v2t is raw then."
        ),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            help="A .npy of scores of training captions by the videos of SCORES.", exists=True, dir_okay=False
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Inverse temperature of --rescore; choose it on a validation split, never here.", show_default="20"
        ),
    ] = None,
    only: Annotated[
        Only | None,
        typer.Option(help="One direction only: with t2v the gallery may hold videos that no text belongs to."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the metrics of SCORES, text-to-video and video-to-text; recall in percent.

    v2t ranks all texts for each video, whose best-ranked own text counts (convention "captions"). Where every text has
    one video and some videos have several texts, v2t_groups ranks the videos, each scored by the best of its texts
    (convention "groups"). `tied` is the share of queries, in [0, 1], for which a right and a wrong answer have the same
    score.
    """
    if positives and groups:
        raise typer.BadParameter("give --positives or --groups, not both", param_hint="--groups")
    if rescore is None and (bank or beta is not None):
        raise typer.BadParameter("is for --rescore, which is missing", param_hint="--bank" if bank else "--beta")
    if rescore is Rescore.qbnorm and bank is None:
        raise typer.BadParameter("qbnorm takes --bank BANK.npy, training captions by videos", param_hint="--rescore")
    if rescore is Rescore.dsl and bank is not None:
        raise typer.BadParameter("dsl looks at SCORES only; qbnorm and sinkhorn take a bank", param_hint="--bank")
    if rescore and bank and only is Only.v2t:
        raise typer.BadParameter("a bank of captions re-scores t2v, which is left out", param_hint="--only")
    if beta is not None and not 0 < beta < float("inf"):
        raise typer.BadParameter(f"{beta:g} must be a positive number; higher is sharper", param_hint="--beta")

    from rushes.evaluate.metrics import rank

    matrix = _matrix(scores)
    relation = _relation(scores, matrix, positives, groups)
    directions: list[Direction] = [only.value] if only else ["t2v", "v2t"]
    try:
        raw = rank(matrix, relation, directions)
    except ValueError as error:
        raise ValueError(f"{scores}: {error}") from error
    plain = _summaries(raw, ties.value)
    about: dict[str, Any] = {}
    shown = plain
    if rescore:
        beta = 20.0 if beta is None else beta
        if bank:
            again, kind = _with_bank(matrix, relation, rescore, beta, scores, bank), "inductive"
            again = replace(again, v2t=raw.v2t, v2t_groups=raw.v2t_groups)
            directions = ["t2v"]
        else:
            again, kind = _among_themselves(matrix, relation, directions, rescore, beta), "transductive"
        shown = _summaries(again, ties.value)
        about = {"name": rescore.value, "kind": kind, "beta": beta, "directions": directions}

    texts, videos = matrix.shape
    if as_json:
        data: dict[str, Any] = {name: one.printed() for name, one in shown.items()}
        data |= {"queries": texts, "gallery": videos, "tied": next(iter(shown.values())).tied, "ties": ties.value}
        if about:
            data |= {"rescore": about, "raw": {name: one.printed() for name, one in plain.items()}}
        print_json(data)
        return
    typer.echo(f"{texts} texts x {videos} videos, ties {ties.value}", err=True)
    if about:
        which = " and ".join(directions)
        typer.echo(f"{which} re-scored by {rescore}, which is {about['kind']}, at beta {about['beta']:g}", err=True)
    rows = [(f" {rescore}", one) for name, one in shown.items() if about and name[:3] in directions]
    _print_table([*rows, *(("", one) for one in plain.values())])


def _print_table(rows: list[tuple[str, Metrics]]) -> None:
    from rushes.evaluate.metrics import METRICS

    columns = [*METRICS, "tied"]
    typer.echo(" " * 24 + "".join(f"{column:>9}" for column in columns))
    for by, one in rows:
        printed = one.printed()
        label = (f"v2t {one.convention}" if one.convention else "t2v") + by
        cells = (f"{printed[column]:9.{1 if column[:2] in ('R@', 'Md', 'Mn') else 4}f}" for column in columns)
        typer.echo(f"{label:<24}" + "".join(cells))


def _summaries(ranking: Ranking, ties: Ties) -> dict[str, Metrics]:
    from rushes.evaluate.metrics import summarise

    found = {"t2v": ranking.t2v, "v2t": ranking.v2t, "v2t_groups": ranking.v2t_groups}
    return {name: summarise(ranks, ties) for name, ranks in found.items() if ranks}


def _with_bank(
    matrix: np.ndarray, relation: Positives, rescore: Rescore, beta: float, scores: Path, bank: Path
) -> Ranking:
    """Text-to-video after re-scoring with a bank, a block of texts at a time."""
    from rushes.evaluate.metrics import rank
    from rushes.evaluate.rescore import qb_norm, sinkhorn_bank

    captions = _matrix(bank)
    if captions.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"{bank} has {captions.shape[1]} columns, {scores} {matrix.shape[1]}: both score the same videos"
        )
    try:
        learnt = (qb_norm if rescore is Rescore.qbnorm else sinkhorn_bank)(captions, beta)
    except ValueError as error:
        raise ValueError(f"{bank}: {error}") from error
    tiles = lambda: ((row, 0, learnt.apply(matrix[row : row + ROWS])) for row in range(0, len(matrix), ROWS))  # noqa: E731
    return rank(tiles, relation, ["t2v"])


def _among_themselves(
    matrix: np.ndarray, relation: Positives, directions: list[Direction], rescore: Rescore, beta: float
) -> Ranking:
    """Both directions after re-scoring with nothing but the scores themselves."""
    from rushes.evaluate.metrics import Ranking, rank
    from rushes.evaluate.rescore import dual_softmax, sinkhorn

    if rescore is Rescore.sinkhorn:
        return rank(sinkhorn(matrix, beta), relation, directions)
    found = Ranking(None, None, None)
    if "t2v" in directions:
        found = replace(found, t2v=rank(dual_softmax(matrix, beta), relation, ["t2v"]).t2v)
    if "v2t" in directions:  # there the queries are the videos
        turned = rank(dual_softmax(matrix.T, beta).T, relation, ["v2t"])
        found = replace(found, v2t=turned.v2t, v2t_groups=turned.v2t_groups)
    return found


# --- files ------------------------------------------------------------------------------------------------------------


def _array(path: Path) -> np.ndarray:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy array that can be read without pickle: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds several arrays; save the one that is meant with numpy.save")
    return array


def _matrix(path: Path) -> np.ndarray:
    array = _array(path)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}; scores are numbers, texts by videos")
    return array


def _relation(scores: Path, matrix: np.ndarray, positives: Path | None, groups: Path | None) -> Positives:
    from rushes.evaluate.metrics import Positives, positives_of

    texts, videos = matrix.shape
    if groups:
        return Positives.of_videos(_columns(groups, scores, texts, videos), videos)
    if positives:
        try:
            return positives_of(_array(positives), matrix.shape)
        except ValueError as error:
            raise ValueError(f"{positives}: {error}") from error
    if texts != videos:
        raise ValueError(
            f"{scores} has {texts} texts and {videos} videos, so no diagonal: say with --groups or --positives which "
            "belong together"
        )
    return positives_of(None, matrix.shape)


def _columns(groups: Path, scores: Path, texts: int, videos: int) -> np.ndarray:
    """The column of each text's video, as the file says it."""
    import numpy as np

    try:
        lines = [line.strip() for line in groups.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{groups} is no UTF-8 text: {error}") from error
    if len(lines) != texts:
        raise ValueError(f"{groups} has {len(lines)} lines, {scores} {texts} texts: one line a text")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{groups}, line {number} is empty; every text has a video")
    if all(line.isdecimal() for line in lines):
        for number, line in enumerate(lines, start=1):
            if int(line) >= videos:
                raise ValueError(
                    f"{groups}, line {number}: no column {line} in {scores}, whose columns are 0 to {videos - 1} "
                    "(numbers that are ids need a letter before them)"
                )
        return np.array([int(line) for line in lines])
    column = {name: number for number, name in enumerate(dict.fromkeys(lines))}
    if len(column) != videos:
        raise ValueError(f"{groups} names {len(column)} videos, {scores} has {videos} columns; use column numbers")
    return np.array([column[line] for line in lines])
