"""What the server counts, in Prometheus' text form; each app has a registry of its own."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
HITS = (0, 1, 5, 10, 25, 50, 100, 200)
MEDIA_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class Metrics:
    """Counters and histograms. Labels come from short lists that are ours, never from a request's text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "rushes_requests", "Requests by route and status", ("method", "route", "status"), registry=own
        )
        self.refused = Counter("rushes_refused", "Requests that were refused, by code", ("code",), registry=own)
        self.latency = Histogram(
            "rushes_request_seconds", "Seconds a request", ("route",), buckets=BUCKETS, registry=own
        )
        self.searches = Counter("rushes_searches", "Searches by how well the best hit fits", ("match",), registry=own)
        self.stages = Histogram("rushes_search_seconds", "Seconds a stage", ("stage",), buckets=BUCKETS, registry=own)
        self.queue = Gauge("rushes_searches_in_progress", "Searches that run or wait", registry=own)
        self.hits = Histogram("rushes_search_hits", "Hits of an answer", buckets=HITS, registry=own)
        self.candidates = Gauge("rushes_candidates", "Segments that the last search could choose from", registry=own)
        self.segments = Gauge("rushes_segments", "Segments in the index", registry=own)
        self.videos = Gauge("rushes_videos", "Videos in the index", registry=own)
        self.uploads = Gauge("rushes_uploads", "Uploads held", registry=own)
        self.uploads_bytes = Gauge("rushes_uploads_bytes", "Bytes of the uploads held", registry=own)
        self.results = Gauge("rushes_results", "Answers held for paging", registry=own)
        self.job = Gauge("rushes_jobs", "Jobs by state", ("state",), registry=own)
        self.ready = Gauge("rushes_ready", "1 if a search would be answered", registry=own)

    def done(self, scope: Scope, status: int, code: str, seconds: float) -> None:
        """Count one request. `scope["route"]` is what the router found, so ids in addresses make no new series."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.latency.labels(route).observe(seconds)
        if code:
            self.refused.labels(code).inc()

    def searched(self, match: str, hits: int, seconds: Mapping[str, float]) -> None:
        self.searches.labels(match).inc()
        self.hits.observe(hits)
        for stage, taken in seconds.items():
            self.stages.labels(stage).observe(taken)

    def text(self) -> bytes:
        return generate_latest(self.registry)
