"""A hit of a library is explained from what the index stores."""

from __future__ import annotations

import pytest

import rushes
from rushes.library import Library


@pytest.fixture(scope="module")
def library(reels, tiny_model, tmp_path_factory) -> Library:
    library = rushes.open(reels, tmp_path_factory.mktemp("store"))
    library.refresh(model=str(tiny_model))
    return library


def test_every_hit_is_explained_within_its_own_seconds(library):
    hits = library.search("a red dog", k=5)
    assert len(hits) == 5
    for hit in hits:
        told = library.explain(hit.segment.id, "a red dog")
        assert told.words == ("a", "red", "dog", "a red dog")
        assert told.spans[0][0] == pytest.approx(hit.start)
        assert told.spans[-1][1] == pytest.approx(hit.end)
        # the best moment is where the words, weighed, fit best
        sums = [
            sum(weight * row[place] for weight, row in zip(told.weights, told.scores, strict=True))
            for place in range(len(told.spans))
        ]
        best = told.spans[sums.index(max(sums))]
        assert hit.moments[0].start <= best[0] < best[1] <= hit.moments[0].end + 1e-6
        assert hit.moments[0].score == pytest.approx(max(sums), abs=1e-4)


def test_an_unknown_segment_is_an_error_that_names_it(library):
    with pytest.raises(LookupError, match="no segment 'nonsense' in the index") as caught:
        library.explain("nonsense", "a dog")
    assert not isinstance(caught.value, KeyError)
    with pytest.raises(ValueError, match="the text is empty"):
        library.explain(library.search("a dog", k=1)[0].segment.id, " ")
