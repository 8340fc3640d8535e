"""A page of what monitoring found, in one file."""

import base64
import html
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.monitoring.anomalies import usual
from tfrec_llm.monitoring.drift import EMBEDDING
from tfrec_llm.monitoring.report import moment, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrec_llm.monitoring.drift import Drift
    from tfrec_llm.monitoring.report import MonitoringReport, Series

# Nothing is loaded and nothing runs, whatever an id may say.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
img {{ max-width: 100%; }}
.alarm {{ background: #fde8e8; border-left: .4rem solid #c0392b; padding: .5rem 1rem; }}
.well {{ background: #e8f6ec; border-left: .4rem solid #27ae60; padding: .5rem 1rem; }}
</style></head><body>
<h1>{title}</h1>
<p>{about}</p>
{body}
</body></html>
"""
_LONGEST_LABEL, _MOST_PARTS = 24, 15


def html_of(report: "MonitoringReport") -> str:
    """Returns the page of a report."""
    body = [_alarms(report), "<h2>Quality</h2>"]
    body.append(_table(["", "now"], [[name, value] for name, value in report.quality.items()]))
    if len(report.versions) > 1:
        names = list(next(iter(report.versions.values())))
        rows = [[version, *found.values()] for version, found in report.versions.items()]
        body += ["<h2>Versions</h2>", _table(["version", *names], rows)]
    body.append("<h2>Drift from training</h2>")
    if report.drifts:
        drifts = [
            [drift.name, drift.psi, drift.by_chance, drift.jensen_shannon, drift.kolmogorov_smirnov]
            for drift in report.drifts
        ]
        heading = ["of", "PSI", "PSI by chance", "Jensen-Shannon", "Kolmogorov-Smirnov"]
        body.append(_table(heading, drifts))
        body += [
            _picture(_draw_drift(drift), f"drift of {drift.name}")
            for drift in report.drifts
            if not drift.name.startswith(EMBEDDING)  # parts of a direction tell people nothing
        ]
    else:
        body.append("<p>Not known: too little traffic, or the model has no snapshot.</p>")
    if report.series:
        body += ["<h2>Over time</h2>", _picture(_draw_series(report), "traffic over time")]
    if report.anomalies:
        anomalies = [
            [one.series, moment(one.time), one.value, one.expected, one.score]
            for one in report.anomalies[-50:]
        ]
        heading = ["series", "time, UTC", "value", "usual", "robust standard deviations"]
        body += ["<h2>Anomalies</h2>", _table(heading, anomalies)]
    about = f"version {report.version}, {moment(report.first)} to {moment(report.last)} UTC"
    return _PAGE.format(title="Recommendations", about=about, body="\n".join(body))


def _alarms(report: "MonitoringReport") -> str:
    if not report.alarms:
        return '<p class="well">No alarm.</p>'
    items = "".join(f"<li>{html.escape(str(alarm))}</li>" for alarm in report.alarms)
    return f'<div class="alarm"><strong>Alarms</strong><ul>{items}</ul></div>'


def _table(heading: list[str], rows: list[list[Any]]) -> str:
    def cell(value: Any) -> str:
        if isinstance(value, str):
            return f"<td>{html.escape(value)}</td>"
        return f'<td class="number">{"" if value is None else shown(float(value))}</td>'

    head = "".join(f"<th>{html.escape(name)}</th>" for name in heading)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _picture(figure: "Figure", words: str) -> str:
    written = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(written, format="png", dpi=80)
    data = base64.b64encode(written.getvalue()).decode()
    return f'<p><img alt="{html.escape(words)}" src="data:image/png;base64,{data}"></p>'


def _draw_drift(drift: "Drift") -> "Figure":
    """Draws the shares of the parts before and now, of many those that changed most."""
    from matplotlib.figure import Figure

    chosen = np.arange(len(drift.labels))
    if len(chosen) > _MOST_PARTS:
        change = np.abs(drift.now - drift.before)
        chosen = np.sort(np.argsort(-change, kind="stable")[:_MOST_PARTS])
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(chosen))
    axes.bar(places - 0.2, drift.before[chosen], 0.4, label="training", color="tab:gray")
    axes.bar(places + 0.2, drift.now[chosen], 0.4, label="now", color="tab:blue")
    labels = [str(drift.labels[place])[:_LONGEST_LABEL] for place in chosen]
    # Ids may hold what looks like a formula.
    axes.set_xticks(places, labels, rotation=30, ha="right", fontsize=7, parse_math=False)
    axes.set_ylabel("share")
    axes.set_title(drift.name, fontsize=10, parse_math=False)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_series(report: "MonitoringReport") -> "Figure":
    """Draws every series with what is usual and its anomalies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.8 * len(report.series)), layout="constrained")
    panels = figure.subplots(len(report.series), sharex=True, squeeze=False)[:, 0]
    for axes, series in zip(panels, report.series, strict=True):
        times = series.times.astype("datetime64[us]")
        axes.plot(times, series.values, linewidth=1)
        axes.plot(times, _usual(series), color="tab:gray", linewidth=0.8, label="usual")
        own = [one for one in report.anomalies if one.series == series.name]
        if own:
            moments = np.array([one.time for one in own]).astype("datetime64[us]")
            axes.plot(moments, [one.value for one in own], "o", color="tab:red", markersize=4)
        axes.axvspan(np.datetime64(report.first, "us"), np.datetime64(report.last, "us"), alpha=0.1)
        axes.set_title(series.name, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _usual(series: "Series") -> np.ndarray:
    distance = series.times[1] - series.times[0] if len(series.times) > 1 else 86_400_000_000
    return usual(series.values, season=max(1, round(86_400_000_000 / distance)))[0]
