"""The gate: names, tokens, rates and headers, by themselves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from rushes.serve.limits import Limits
from rushes.serve.pool import Pool
from rushes.serve.problems import Refusal
from rushes.serve.security import CSP, Buckets, Gate, Hosts, cookie_name, is_loopback
from tests.serve.test_api import problem

TOKEN = "0123456789abcdefghij"


def guarded(token: str | None = None, hosts: Hosts | None = None, **limits) -> TestClient:
    async def echo(request: Request):
        return PlainTextResponse(f"{len(await request.body())}")

    async def broken(request: Request):
        raise ZeroDivisionError("a secret of the inside")

    routes = [Route("/", echo, methods=["GET", "POST"]), Route("/broken", broken)]
    gate = Middleware(Gate, hosts=hosts or Hosts(), token=token, limits=Limits(**limits))
    return TestClient(Starlette(routes=routes, middleware=[gate]), base_url="http://localhost:8000")


@given(st.text(max_size=30))
def test_no_text_is_a_host_by_chance(text):
    if Hosts().knows(text):
        assert text.lower().rpartition(":")[0] in ("", "localhost", "127.0.0.1", "[::1]") or text.lower() in (
            "localhost",
            "127.0.0.1",
            "[::1]",
        )


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "[::]"])
def test_a_server_on_every_address_answers_to_addresses_and_to_no_foreign_name(bound):
    hosts = Hosts(bound, ["films.lan"])
    assert all(hosts.knows(name) for name in ("192.168.1.7:8000", "[fe80::1]:8000", "films.lan", "FILMS.LAN:80"))
    assert not any(hosts.knows(name) for name in ("evil.example", "192.168.1.7.evil.example", "1.2.3", ""))


def test_loopback():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.7", "films.lan", ""))


def test_every_answer_has_the_headers():
    client = guarded()
    for answer in (client.get("/"), client.get("/", headers={"Host": "evil"}), client.get("/broken")):
        assert answer.headers["content-security-policy"] == CSP
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "permissions-policy" in answer.headers
    assert "unsafe" not in CSP
    assert "*" not in CSP
    assert CSP.startswith("default-src 'none'")


def test_what_breaks_inside_stays_inside(caplog):
    answer = guarded().get("/broken")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_the_token_in_its_places():
    client = guarded(TOKEN)
    problem(client.get("/"), 401, "no-token")
    assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    problem(client.get("/", headers={"Authorization": "Bearer no"}), 401, "bad-token")
    assert client.get("/").headers["www-authenticate"].startswith("Bearer")
    door = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (door.status_code, door.headers["location"]) == (303, "/")
    assert TOKEN not in door.text
    assert client.cookies[cookie_name(TOKEN)] == TOKEN
    assert client.get("/").status_code == 200
    cross = client.post("/", headers={"Origin": "http://evil.example"})
    problem(cross, 403, "cross-site")


def test_each_server_has_its_own_cookie():
    assert cookie_name("a" * 20) != cookie_name("b" * 20)
    assert "a" * 8 not in cookie_name("a" * 20)


def test_a_page_of_ours_may_post():
    client = guarded()
    headers = {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/", json={}, headers=headers).status_code == 200
    assert client.post("/", json={}).status_code == 200, "no browser, no origin"
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200, "a link to the page may be followed"


def test_buckets_fill_again():
    clock = [0.0]
    buckets = Buckets(rate=2.0, burst=4.0, most=2, clock=lambda: clock[0])
    assert [buckets.take("a", 1.0) for _ in range(4)] == [0.0] * 4
    assert buckets.take("a", 1.0) == pytest.approx(0.5)
    assert buckets.take("b", 1.0) == 0.0, "another client has its own"
    clock[0] = 0.5
    assert buckets.take("a", 1.0) == 0.0
    assert buckets.take("a", 1.0) > 0
    clock[0] = 1000.0
    assert [buckets.take("a", 1.0) for _ in range(4)] == [0.0] * 4
    assert buckets.take("a", 1.0) > 0, "no more than the burst is saved up"
    for name in "cdefg":
        buckets.take(name, 1.0)
    assert len(buckets._held) == 2


def test_too_often():
    client = guarded(rate=0.001, burst=2.0)
    assert [client.post("/", json={}).status_code for _ in range(2)] == [200, 200]
    answer = client.post("/", json={})
    problem(answer, 429, "rate")
    assert int(answer.headers["retry-after"]) >= 1


def test_bodies_are_counted():
    client = guarded(json_bytes=100)
    assert client.post("/", json="a" * 90).text == "92"
    problem(client.post("/", json="a" * 99), 413, "too-large")

    def chunked():  # the test's client reads it all before it sends: an endless one would fill the memory
        for _ in range(100):
            yield b"a" * 60

    answer = client.post("/", content=chunked(), headers={"Content-Type": "application/json"})
    problem(answer, 413, "too-large")


def test_the_pool_refuses_when_it_is_full_and_frees_its_places():
    import threading

    async def scene():
        pool, go = Pool("test", workers=1, waiting=1, seconds=30), threading.Event()
        first = asyncio.create_task(pool.run(go.wait))
        second = asyncio.create_task(pool.run(lambda: 2))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="busy"):
            await pool.run(lambda: 3)
        go.set()
        assert await first is True
        assert await second == 2
        assert await pool.run(lambda: 4) == 4
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        assert pool.load == 0
        pool.close()

    asyncio.run(scene())


def test_the_pool_gives_up_on_what_takes_too_long():
    import threading

    async def scene():
        pool, go, ran = Pool("test", workers=1, waiting=4, seconds=0.05), threading.Event(), []
        with pytest.raises(Refusal, match="too-slow"):
            await pool.run(go.wait)
        with pytest.raises(Refusal, match="too-slow"):
            await pool.run(lambda: ran.append(1))  # its turn never comes
        assert pool.load == 1, "the thread that has begun still has its place"
        go.set()
        pool.seconds = 30
        assert await pool.run(lambda: 5) == 5
        assert ran == []
        pool.close()

    asyncio.run(scene())


def test_the_pool_drops_who_has_gone():
    import threading

    from rushes.serve.security import Hangup

    class Gone:
        async def is_disconnected(self) -> bool:
            return True

    async def scene():
        pool, go, ran = Pool("test", workers=1, waiting=4, seconds=30), threading.Event(), []
        first = asyncio.create_task(pool.run(go.wait))
        await asyncio.sleep(0.05)
        with pytest.raises(Hangup):
            await pool.run(lambda: ran.append(1), Gone())  # type: ignore[arg-type]
        go.set()
        await first
        assert ran == []
        assert await pool.run(lambda: 6) == 6
        pool.close()

    asyncio.run(scene())
