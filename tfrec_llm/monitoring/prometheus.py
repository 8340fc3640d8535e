"""What monitoring found, as Prometheus reads it."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfrec_llm.monitoring.report import MonitoringReport


def prometheus_text(report: "MonitoringReport") -> bytes:
    """Returns the measures of a report, in Prometheus' text format.

    Raises:
        ImportError: If the extra `[serve]` is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, generate_latest
    except ImportError as error:
        raise ImportError(
            "Measures for Prometheus need prometheus-client: pip install 'tfrec-llm[serve]'."
        ) from error
    registry = CollectorRegistry()

    def gauge(name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"tfrec_monitor_{name}", words, labels, registry=registry)

    gauge("window_end_timestamp_seconds", "End of the traffic that was looked at.").set(
        report.last / 1e6
    )
    gauge("version", "Version of the model that traffic was compared with.").set(report.version)
    gauge("alarms", "How many alarms ring.").set(len(report.alarms))
    quality = gauge("quality", "What lists and events were like.", "measure")
    for name, value in report.quality.items():
        if not math.isnan(value):
            quality.labels(name).set(value)
    clicked = gauge("click_through", "Share of items shown that were chosen.", "version")
    for version, found in report.versions.items():
        if not math.isnan(found["click_through"]):
            clicked.labels(str(version)).set(found["click_through"])
    index = gauge("drift_psi", "Population stability index without what chance makes.", "of")
    distance = gauge("drift_jensen_shannon", "Jensen-Shannon distance.", "of")
    largest = gauge("drift_kolmogorov_smirnov", "Kolmogorov-Smirnov distance.", "of")
    for drift in report.drifts:
        index.labels(drift.name).set(drift.excess)
        distance.labels(drift.name).set(drift.jensen_shannon)
        if drift.kolmogorov_smirnov is not None:
            largest.labels(drift.name).set(drift.kolmogorov_smirnov)
    anomalies = gauge("anomalies", "Anomalies in the window.", "series")
    for series in report.series:
        own = [one for one in report.anomalies if one.series == series.name]
        anomalies.labels(series.name).set(sum(one.time >= report.first for one in own))
    return generate_latest(registry)
