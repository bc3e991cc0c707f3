"""Subtitle lines in a Lance table, found by their words."""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from rushes.index.store import KEEP, Store, among, of_videos
from rushes.index.view import View
from rushes.tagging import CLOSED_CLASS
from rushes.types import Cue

if TYPE_CHECKING:
    from lancedb.table import Table

NAME = "cues"
MOST_TERMS = 32  # of a query that are looked up, each by itself
MOST_LINES = 50_000  # that a term is looked up in; a term in more of them tells nothing
MOST_KNOWN = 500_000  # ids of lines that are remembered for words: some 50 MB
AT_LARGE = 1000  # lines without the word that are added to the library's own
SMALL_WORD = 0.1  # what "the" or "is" counts beside a word of content that is as rare
TIDY_EVERY = 256  # versions
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("folded", pa.string(), nullable=False),  # what is searched: see `fold`
    ]
)


@dataclass(frozen=True, slots=True)
class Heard:
    """The lines that have words of a query, best first.

    terms    of each line, which of the query's terms it has, by number
    weights  of the terms: how much of what was asked each one is; they sum to 1
    information  of all terms together, in nats: how seldom lines have them

    A line's `score` is the sum of its terms' weights, in (0, 1]: the share of the query that it says.
    """

    cues: tuple[Cue, ...] = ()
    terms: tuple[frozenset[int], ...] = ()
    weights: tuple[float, ...] = ()
    information: float = 0.0

    def __len__(self) -> int:
        return len(self.cues)

    def share(self, rows: Sequence[int]) -> float:
        """The share of the query that these lines say together; a word said twice counts once.

        >>> lines = Cue("v", 0, 1, "a dog"), Cue("v", 1, 2, "dog, jump")
        >>> heard = Heard(lines, (frozenset({0}), frozenset({0, 1})), (0.4, 0.6))
        >>> heard.share([0]), heard.share([0, 1]), heard.share([])
        (0.4, 1.0, 0.0)
        """
        said = frozenset[int]().union(*(self.terms[row] for row in rows))
        return min(1.0, math.fsum(self.weights[term] for term in said))


class Cues:
    """Subtitle lines of many videos. Readers see whole commits; the lines of one source are replaced at once.

    Words are compared without case and accents, cut by Unicode's rules (so Chinese and Japanese are searched by words,
    too), and without English endings: "dogs" finds "dog". Other languages are matched as they are written.
    """

    def __init__(self, store: Store):
        self._store = store
        self._known: tuple[View | None, dict[str, list[str]]] = None, {}
        self._lock = threading.Lock()

    def replace(self, sources: Mapping[str, Sequence[Cue]]) -> None:
        """Put these lines in the place of all that these sources had; a source without lines is emptied.

        All in one commit: a kill leaves the old lines or the new ones. A source is a name of the caller's.
        """
        if not sources:
            return
        rows = [
            {
                "id": f"{source}#{number}",
                "source": source,
                "video": cue.video,
                "start": cue.start,
                "end": cue.end,
                "text": cue.text,
                "folded": fold(cue.text),
            }
            for source, cues in sources.items()
            for number, cue in enumerate(cues)
        ]
        with self._store.writing(NAME):
            if not rows and self._store.open(NAME) is None:
                return
            table = self._table()
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge = merge.when_not_matched_by_source_delete(among("source", list(sources)))
            if merge.execute(pa.Table.from_pylist(rows, schema=SCHEMA)).version % TIDY_EVERY == 0:
                table.optimize(cleanup_older_than=KEEP)

    def count(self, videos: Sequence[str] | None = None) -> int:
        """Lines, of all videos or of some."""
        table = self._store.view(NAME)
        return 0 if table is None else table.count(of_videos(videos))

    def of(self, video: str) -> list[Cue]:
        """Every line of one video, in order of time; a line that two sources have, once."""
        table = self._store.view(NAME)
        return [] if table is None else sorted(set(_cues(table, among("video", [video])).values()), key=_by_time)

    def search(self, text: str, videos: Sequence[str] | None = None, k: int | None = None, least: float = 0.0) -> Heard:
        """The `k` lines (None = all) that have most of the words of `text`, by how telling those are.

            score(line) = sum of w(term) over the terms it has,   w(term) ~ log(1 + (lines + 1000) / lines with it)

        scaled so that all terms of the text sum to 1. The 1,000 are lines of a language at large: ten lines alone could
        not tell that "zebra" is rare. Small words of English (the, is, with) weigh a tenth. So a score
        is a share of what was asked, comparable from query to query, unlike BM25, whose scale depends on the query and
        on how the table happens to be cut into files. `videos` narrows the search. Ties are ordered by video and time.
        A text without a word finds nothing.
        """
        words = terms(text)
        table = self._store.view(NAME)
        where = of_videos(videos)
        if not words or table is None or (videos is not None and not videos):
            return Heard()
        lines = table.count(where)
        having = [self._having(table, word, where) for word in words]
        raw = [
            math.log(1 + (lines + AT_LARGE) / max(1, len(found))) * (SMALL_WORD if word in CLOSED_CLASS else 1.0)
            for word, found in zip(words, having, strict=True)
        ]
        total = math.fsum(raw)
        weights = [one / total for one in raw] if total else raw
        said: dict[str, set[int]] = {}
        for number, found in enumerate(having):
            for name in found:
                said.setdefault(name, set()).add(number)
        if not said:
            return Heard((), (), tuple(weights), total)
        scores = {name: math.fsum(weights[term] for term in has) for name, has in said.items()}
        scores = {name: score for name, score in scores.items() if score >= least}
        ranked = sorted(scores, key=lambda name: (-scores[name], name))
        chosen = ranked if k is None else ranked[: 2 * k]  # twice: lines that two sources have are one
        cues = _cues(table, among("id", chosen))
        best: dict[Cue, frozenset[int]] = {}
        for name in chosen:
            if name in cues:
                best[replace(cues[name], score=min(1.0, scores[name]))] = frozenset(said[name])
        order = sorted(best, key=lambda cue: (-cue.score, cue.video, cue.start, cue.text))[:k]
        return Heard(tuple(order), tuple(best[cue] for cue in order), tuple(weights), total)

    def optimize(self) -> None:
        """Bring the full-text index up to date (lines are found before that, too, only slower), and tidy the files."""
        with self._store.writing(NAME):
            table = self._store.open(NAME)
            if table is not None:
                table.optimize(cleanup_older_than=KEEP)

    def _having(self, table: View, word: str, where: str | None) -> list[str]:
        """Ids of the lines with a word; for scripts without spaces, a run of words, all of which they must have.

        Of all videos it is remembered until the lines change: most words of a query were in one before.
        """
        from lancedb.query import FullTextOperator, MatchQuery

        with self._lock:
            if self._known[0] is not table:
                self._known = table, {}
            known = self._known[1]
            if where is None and word in known:
                return known[word]
        wanted = MatchQuery(word, "folded", operator=FullTextOperator.AND)  # pyright: ignore[reportCallIssue]
        query = table.table.query().nearest_to_text(wanted)
        found = table.rows(["id", "_score"], where, MOST_LINES, query)["id"].to_pylist()
        if where is None:
            with self._lock:
                if sum(1 + len(ids) for ids in known.values()) + len(found) > MOST_KNOWN:
                    known.clear()
                known[word] = found
        return found

    def _table(self) -> Table:
        """The table and its full-text index, made with the first lines. For writers."""
        from lancedb.index import FTS

        table = self._store.open_or_create(NAME, SCHEMA)
        if not any(index.name == "folded_idx" for index in table.list_indices()):
            config = FTS(base_tokenizer="icu/split", language="English", stem=True, remove_stop_words=False)
            table.create_index("folded", config=config, name="folded_idx")
        return table


def fold(text: str) -> str:
    """As words are compared: without case and accents.

    >>> fold("L'ÉTÉ, Straße!"), fold("が")
    ("l'ete, strasse!", 'が')
    """
    parted = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in parted if not "\u0300" <= c <= "\u036f"))


def terms(text: str) -> list[str]:
    """The words of a query, each once.

    >>> terms("The dog's DOG, and the cat?")
    ['the', 'dog', 's', 'and', 'cat']
    """
    return list(dict.fromkeys(re.findall(r"\w+", fold(text).replace("_", " "))))[:MOST_TERMS]


def _cues(table: View, where: str) -> dict[str, Cue]:
    rows = table.rows(["id", "video", "start", "end", "text"], where).to_pylist()
    return {row.pop("id"): Cue(**row) for row in rows}


def _by_time(cue: Cue) -> tuple[float, float, str]:
    return cue.start, cue.end, cue.text
