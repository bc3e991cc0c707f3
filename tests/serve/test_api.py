"""What the API answers, on a real library: the same as the library itself, page by page."""

from __future__ import annotations

import io
import re

import av
import pytest

import rushes
from rushes.search.query import Query
from rushes.serve import schemas
from tests.serve.conftest import CANARY, wait_until


def search(client, **body):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer, status: int, code: str):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["code"], told["status"], told["type"]) == (code, status, f"/problems/{code}")
    assert told["title"]
    assert told["hint"]
    return told


def test_search_answers_as_the_library_does(client, library):
    wanted = library.ask(Query.of_text("a red dog"))
    told = search(client, text="a red dog", limit=100)
    assert [hit["segment"] for hit in told["hits"]] == [hit.segment.id for hit in wanted.hits]
    assert [hit["score"] for hit in told["hits"]] == pytest.approx([hit.score for hit in wanted.hits], abs=1e-5)
    assert [hit["rank"] for hit in told["hits"]] == list(range(1, len(wanted.hits) + 1))
    assert told["total"] == len(wanted.hits) > 5
    assert told["match"] == wanted.match
    assert set(told["seconds"]) == set(wanted.seconds)
    for hit in told["hits"]:
        assert hit["start"] <= hit["moments"][0]["start"] < hit["moments"][0]["end"] <= hit["end"]


def test_pages_put_together_are_the_whole_answer(client):
    whole = search(client, text="a dog", limit=100)
    page = search(client, text="a dog", limit=4)
    found = page["hits"]
    while page["cursor"] is not None:
        page = search(client, cursor=page["cursor"], limit=3)
        assert page["total"] == whole["total"]
        found += page["hits"]
    assert [hit["segment"] for hit in found] == [hit["segment"] for hit in whole["hits"]]
    assert [hit["rank"] for hit in found] == [hit["rank"] for hit in whole["hits"]]


def test_a_cursor_goes_with_its_question_or_alone(client):
    cursor = search(client, text="a dog", limit=2)["cursor"]
    assert search(client, text="a dog", cursor=cursor, limit=2)["hits"]
    problem(client.post("/v1/search", json={"text": "a cat", "cursor": cursor}), 422, "cursor-mismatch")
    problem(client.get("/v1/videos", params={"cursor": cursor}), 422, "cursor-mismatch")


def test_avoided_and_weighed_parts_change_the_answer(client, segment):
    plain = search(client, text="a dog", limit=100)["hits"]
    for more in ({"avoid": ["snow"]}, {"parts": [{"text": "snow", "weight": 2.0}]}, {"like": segment}):
        other = search(client, text="a dog", limit=100, **more)["hits"]
        assert [hit["segment"] for hit in other] != [hit["segment"] for hit in plain]


def test_filters(client, video):
    hits = search(client, text="a dog", where={"videos": [video]}, limit=100)["hits"]
    assert {hit["video"]["id"] for hit in hits} == {video}
    beach = search(client, text="a dog", where={"folder": "beach/"}, limit=100)["hits"]
    assert {hit["video"]["folder"] for hit in beach} == {"beach/"}
    assert search(client, text="a dog", where={"min_seconds": 1e6})["total"] == 0
    assert search(client, text="a dog", where={"before": "2001-01-01"})["total"] == 0
    assert search(client, text="a dog", where={"after": "2001-01-01"})["total"] > 0


def test_groups_and_sorting(client):
    videos = search(client, text="a dog", group="video", limit=100)["hits"]
    names = [hit["video"]["id"] for hit in videos]
    assert len(names) == len(set(names)) == 6
    in_time = search(client, text="a dog", sort="time", limit=100)["hits"]
    order = [(hit["video"]["date"], hit["video"]["folder"] + hit["video"]["name"], hit["start"]) for hit in in_time]
    assert order == sorted(order)


def test_a_then_b(client):
    hits = search(client, text="a dog", then={"text": "snow", "within": 30}, limit=100)["hits"]
    assert hits
    for hit in hits:
        assert hit["then"]["start"] >= hit["start"]


def test_no_confidence_without_a_calibration(client):
    told = search(client, text="a dog")
    assert told["match"] == "unknown"
    assert all(hit["confidence"] is None for hit in told["hits"])
    problem(client.post("/v1/search", json={"text": "a dog", "min_confidence": 0.5}), 422, "not-calibrated")


@pytest.mark.parametrize(
    "body", [{}, {"avoid": ["a dog"]}, {"text": "\u00a0"}, {"parts": [{"text": "x", "weight": 0}]}]
)
def test_a_question_that_asks_for_nothing(client, body):
    told = client.post("/v1/search", json=body)
    assert told.status_code == 422
    assert told.json()["code"] in ("empty-query", "bad-query")


def test_unknown_things(client):
    nobody, nothing = "0" * 32, f"{'0' * 32}:{0:09d}"
    problem(client.post("/v1/search", json={"like": nothing}), 404, "unknown-segment")
    problem(client.post("/v1/search", json={"image": nobody}), 404, "unknown-upload")
    problem(client.post("/v1/search", json={"video": nobody}), 404, "unknown-upload")
    problem(client.post("/v1/explain", json={"segment": nothing, "text": "a dog"}), 404, "unknown-segment")
    problem(client.post(f"/v1/videos/{nobody}/matches", json={"text": "a dog"}), 404, "unknown-video")
    for path in ("", "/stream", "/frame?t=0", "/clip?start=0&end=1"):
        problem(client.get(f"/v1/videos/{nobody}{path}"), 404, "unknown-video")
    problem(client.put(f"/v1/videos/{nobody}/tags", json={}), 404, "unknown-video")
    problem(client.delete(f"/v1/uploads/{nobody}"), 404, "unknown-upload")
    problem(client.get(f"/v1/thumbnails/{nobody}.webp"), 404, "no-thumbnail")
    problem(client.get("/v1/jobs/0123456789abcdef"), 404, "unknown-job")
    problem(client.post("/v1/jobs/0123456789abcdef/pause"), 404, "unknown-job")
    problem(client.get("/v1/jobs/0123456789abcdef/events"), 404, "unknown-job")
    problem(client.get("/v1/nothing"), 404, "not-found")
    problem(client.get("/problems/nothing"), 404, "not-found")


def test_validation_names_the_field_and_never_repeats_what_was_sent(client):
    told = problem(client.post("/v1/search", json={"text": 7, CANARY: CANARY, "limit": 0}), 422, "invalid")
    assert {tuple(one["at"]) for one in told["errors"]} >= {("body", "text"), ("body", "limit")}
    assert CANARY not in str([one["why"] for one in told["errors"]])


def test_wrong_method(client):
    answer = client.get("/v1/search")
    problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "POST"


def test_matches_run_along_the_video(client, video, library):
    told = client.post(f"/v1/videos/{video}/matches", json={"text": "a dog"}).json()["matches"]
    assert [one["segment"] for one in told] == [segment.id for segment in library.index.segments([video])]
    assert [one["start"] for one in told] == sorted(one["start"] for one in told)


def test_explain(client, segment):
    told = client.post("/v1/explain", json={"segment": segment, "text": "a dog"}).json()
    assert len(told["words"]) == len(told["weights"]) == len(told["scores"])
    assert all(len(row) == len(told["spans"]) for row in told["scores"])


def test_the_list_of_videos(client):
    whole = client.get("/v1/videos").json()
    assert whole["total"] == len(whole["videos"]) == 6
    assert whole["cursor"] is None
    page = client.get("/v1/videos", params={"limit": 4}).json()
    rest = client.get("/v1/videos", params={"limit": 4, "cursor": page["cursor"]}).json()
    assert page["videos"] + rest["videos"] == whole["videos"]
    (beach,) = client.get("/v1/videos", params={"folder": "beach"}).json()["videos"]
    assert (beach["folder"], beach["copies"]) == ("beach/", [f"beach/{beach['name']}"])
    assert client.get(f"/v1/videos/{beach['id']}").json() == beach
    assert beach["playable"]
    assert beach["media_type"] == "video/mp4"
    assert beach["status"] == "done"
    assert beach["seconds"] > 3


def test_tags(client, video):
    told = client.put(f"/v1/videos/{video}/tags", json={"add": ["holiday", "Grandma"]}).json()
    assert told["tags"] == ["Grandma", "holiday"]
    assert [one["id"] for one in client.get("/v1/videos", params={"tag": "holiday"}).json()["videos"]] == [video]
    hits = search(client, text="a dog", where={"tags": ["holiday"]}, limit=100)["hits"]
    assert {hit["video"]["id"] for hit in hits} == {video}
    told = client.put(f"/v1/videos/{video}/tags", json={"remove": ["holiday", "Grandma"]}).json()
    assert told["tags"] == []


def test_the_stream_is_the_file(client, films, video, library):
    path = films / library.video(video).path
    answer = client.get(f"/v1/videos/{video}/stream")
    assert answer.content == path.read_bytes()
    assert answer.headers["etag"] == f'"{video}"'
    assert answer.headers["content-type"] == "video/mp4"
    part = client.get(f"/v1/videos/{video}/stream", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, path.read_bytes()[100:200])
    head = client.head(f"/v1/videos/{video}/stream")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(path.stat().st_size))
    problem(client.get(f"/v1/videos/{video}/stream", headers={"Range": "bytes=999999999-"}), 416, "bad-range")


def test_frames_clips_and_thumbnails_are_pictures_and_films(client, video):
    frame = client.get(f"/v1/videos/{video}/frame", params={"t": 0.5, "width": 64})
    assert frame.headers["content-type"] == "image/jpeg"
    with av.open(io.BytesIO(frame.content)) as container:
        assert next(container.decode(video=0)).width == 64
    clip = client.get(f"/v1/videos/{video}/clip", params={"start": 0.5, "end": 1.5})
    assert clip.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(clip.content)) as container:
        assert container.duration / 1e6 == pytest.approx(1.0, abs=0.2)
    part = client.get(f"/v1/videos/{video}/clip", params={"start": 0.5, "end": 1.5}, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, clip.content[:10])
    hit = search(client, text="a dog")["hits"][0]
    thumbnail = client.get(hit["thumbnail"])
    assert re.fullmatch(r"/v1/thumbnails/[0-9a-f]{32}\.webp", hit["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/webp"
    assert "immutable" in thumbnail.headers["cache-control"]
    assert thumbnail.content[8:12] == b"WEBP"


def test_times_that_a_video_does_not_have(client, video):
    problem(client.get(f"/v1/videos/{video}/frame", params={"t": 9999}), 404, "no-frame")
    problem(client.get(f"/v1/videos/{video}/clip", params={"start": 9000, "end": 9001}), 404, "no-frame")
    problem(client.get(f"/v1/videos/{video}/clip", params={"start": 2, "end": 1}), 422, "bad-query")
    problem(client.get(f"/v1/videos/{video}/clip", params={"start": 0, "end": 1000}), 404, "no-frame")
    for t in ("nan", "inf", "-1", "1e400", "soon"):
        problem(client.get(f"/v1/videos/{video}/frame", params={"t": t}), 422, "invalid")


def test_status(client, films, library):
    told = client.get("/v1/library").json()
    info = library.info()
    assert (told["name"], told["ready"], told["indexed"], told["reason"]) == ("films", True, True, None)
    assert (told["videos"], told["segments"], told["method"]) == (info.videos, info.segments, info.method)
    assert told["calibrated"] is False
    assert client.get("/v1/failures").json() == {"failures": []}
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics(client):
    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    counted = 'rushes_searches_total{match="unknown"}'
    before, refused = value(counted), value('rushes_refused_total{code="empty-query"}')
    search(client, text="a dog")
    client.post("/v1/search", json={})
    assert value(counted) == before + 1
    assert value('rushes_refused_total{code="empty-query"}') == refused + 1
    assert value("rushes_segments") > 5
    assert value("rushes_ready") == 1
    assert value('rushes_search_seconds_count{stage="encode"}') > 0
    assert value('rushes_jobs{state="running"}') == 0


def test_every_problem_has_a_page(client):
    from rushes.serve.problems import KINDS

    for code, kind in KINDS.items():
        told = client.get(f"/problems/{code}").json()
        assert (told["title"], told["status"]) == (kind.title, kind.status)


def test_a_folder_that_is_not_indexed(tmp_path):
    from starlette.testclient import TestClient

    from rushes.serve.app import create_app

    with TestClient(create_app(rushes.open(tmp_path)), base_url="http://localhost") as client:
        problem(client.post("/v1/search", json={"text": "a dog"}), 409, "not-indexed")
        problem(client.get("/v1/videos"), 409, "not-indexed")
        problem(client.get("/v1/failures"), 409, "not-indexed")
        problem(client.get("/readyz"), 503, "not-ready")
        told = client.get("/v1/library").json()
        assert (told["indexed"], told["ready"], told["segments"]) == (False, False, None)
    assert list(tmp_path.iterdir()) == [], "looking at a folder wrote into it"


def test_an_index_made_anew_is_opened_anew(copied, tiny_model, segment):
    from starlette.testclient import TestClient

    from rushes.serve.app import create_app

    library = rushes.open(copied)
    with TestClient(create_app(library), base_url="http://localhost") as client:
        before = search(client, text="a dog")
        (copied / "beach").rename(copied / "lake")
        rushes.open(copied).refresh(model=str(tiny_model), rebuild=True, segments="windows")
        after = search(client, text="a dog")
        assert after["total"] != before["total"]
        assert search(client, text="a dog", where={"folder": "lake"})["total"] > 0
        wait_until(lambda: client.get("/readyz").status_code == 200)


def test_what_is_said_passes_where_confidence_is_asked_for(copied, monkeypatch):
    from starlette.testclient import TestClient

    from rushes.library.asking import _Work
    from rushes.serve.app import create_app

    film = next(copied.glob("*.mp4"))
    film.with_suffix(".srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nthe quarterly budget\n")
    rushes.open(copied).refresh()
    monkeypatch.setattr(_Work, "_confidence", lambda self, scorer, then, scored, *_: [0.1] * len(scored))
    with TestClient(create_app(rushes.open(copied)), base_url="http://localhost") as client:
        (hit,) = search(client, text="quarterly budget", min_confidence=0.5)["hits"]
        assert (hit["video"]["name"], hit["confidence"], hit["scores"]["words"]) == (film.name, 0.1, 1.0)
        assert search(client, text="quarterly dog budget cat bird", min_confidence=0.5)["hits"] == []


def test_pages_stand_still_while_the_library_changes(copied):
    from starlette.testclient import TestClient

    from rushes.serve.app import create_app

    with TestClient(create_app(rushes.open(copied)), base_url="http://localhost") as client:
        whole = search(client, text="a dog", limit=100)
        first = search(client, text="a dog", limit=3)
        deleted = list(copied.glob("*.mp4"))
        for path in deleted:
            path.unlink()
        rushes.open(copied).refresh()
        rest = search(client, cursor=first["cursor"], limit=100)
        for hit in rest["hits"]:  # what stands in the answer stays, only a picture that is deleted is not promised
            assert (hit.pop("thumbnail") is None) == (hit["video"]["name"] in {path.name for path in deleted})
        stood = [{name: one for name, one in hit.items() if name != "thumbnail"} for hit in whole["hits"][3:]]
        assert (first["hits"], rest["hits"]) == (whole["hits"][:3], stood)
        assert search(client, text="a dog", limit=100)["total"] < whole["total"]
        gone = whole["hits"][0]["video"]["id"]
        assert client.get(f"/v1/videos/{gone}/stream").status_code in (200, 404)


def test_nothing_that_is_told_names_a_place_of_this_machine(client, films, video):
    for path in ("/v1/library", "/v1/videos", f"/v1/videos/{video}", "/v1/jobs", "/v1/failures", "/metrics"):
        text = client.get(path).text
        assert str(films) not in text
        assert str(films.parent) not in text


def test_the_schemas_of_the_contract():
    assert set(schemas.Hit.model_fields) == {
        "rank", "segment", "video", "start", "end", "score", "confidence", "scores", "moments", "cues", "then",
        "of_query", "merged", "thumbnail",
    }  # fmt: skip
