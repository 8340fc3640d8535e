"""What a server measures of itself, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SOURCES = ("model", "profile", "popularity", "fallback")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    """Counters, gauges and histograms of one server.

    Example:
        >>> measures = Measures()
        >>> measures.request("POST", "/v1/recommend", 200, 0.004)
        >>> 'route="/v1/recommend"' in measures.text().decode()
        True
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "tfrec_request_duration_seconds",
            "Time from a request to its response.",
            ["method", "route", "status"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._recommendations = Counter(
            "tfrec_recommendations",
            "Lists and scores, by which way they were made.",
            ["source", "version"],
            registry=self._registry,
        )
        self._events = Counter(
            "tfrec_events", "Events that arrived.", ["outcome"], registry=self._registry
        )
        self._batch = Histogram(
            "tfrec_batch_size",
            "Requests answered by one call of the model.",
            registry=self._registry,
            buckets=_SIZES,
        )
        self._recorded = Counter(
            "tfrec_recorded_rows", "Rows of lists and events.", ["outcome"], registry=self._registry
        )
        self._share = Gauge(
            "tfrec_version_traffic_ratio",
            "Share of the users that a version answers.",
            ["version"],
            registry=self._registry,
        )
        # A rule cannot tell that nothing happens of what is not there before it happens.
        for outcome in ("accepted", "duplicate"):
            self._events.labels(outcome)
        for outcome in ("written", "dropped"):
            self._recorded.labels(outcome)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._seconds.labels(method, route, str(status)).observe(seconds)

    def recommendation(self, source: str, version: int) -> None:
        """Counts a list, or scores."""
        self._recommendations.labels(source, str(version)).inc()

    def events(self, accepted: int, duplicates: int) -> None:
        """Counts events."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("duplicate").inc(duplicates)

    def batch(self, size: int) -> None:
        """Counts a call of the model."""
        self._batch.observe(size)

    def recorded(self, outcome: str, rows: int) -> None:
        """Counts rows of the record that were written, or were dropped."""
        self._recorded.labels(outcome).inc(rows)

    def text(self, shares: dict[int, float] | None = None) -> bytes:
        """Returns all measures as Prometheus reads them."""
        self._share.clear()
        for version, share in (shares or {}).items():
            self._share.labels(str(version)).set(share)
            for source in _SOURCES:
                self._recommendations.labels(source, str(version))
        return generate_latest(self._registry)
