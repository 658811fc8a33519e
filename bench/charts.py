"""The pictures of a run. matplotlib is needed for these alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bench.records import Result, Run, Spread

OWN: Final = "#0b7285"
OTHER: Final = "#adb5bd"
INK: Final = "#343a40"
SHADES: Final = ("#99e9f2", "#22b8cf", "#0b7285")
GREYS: Final = ("#dee2e6", "#adb5bd", "#868e96")
WIDTH: Final = 8.0
STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#ced4da",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.dpi": 130,
    "svg.hashsalt": "aqueue",
}


def draw(run: Run, directory: Path) -> list[Path]:
    """Draw every chart that the run has figures for."""
    mpl.use("Agg")
    charts = {
        "drain.png": _drain,
        "latency.png": _latency,
        "enqueue.png": _enqueue,
        "backlog.png": _backlog,
        "redis_cpu.png": _redis_cpu,
    }
    written = []
    with mpl.rc_context(STYLE):
        for name, chart in charts.items():
            figure = chart(run)
            if figure is not None:
                figure.savefig(directory / name, bbox_inches="tight", metadata={"Software": None})
                plt.close(figure)
                written.append(directory / name)
    return written


def _spreads(run: Run, measure: str, label: str, metric: str) -> dict[str, Spread]:
    """Give the figures by queue; one that runs a job at a time is shown with that."""
    found = {}
    for result in run.of(measure):
        if (result.cell.label == label or result.cell.entrant.one_at_a_time) and not result.failed:
            spread = result.metrics.get(metric)
            if spread is not None and spread.median > 0:
                found[_name(result)] = spread
    return found


def _failed(run: Run, measure: str, label: str) -> list[str]:
    """Name the queues that have no figure because they failed; they are shown as that, not left out."""
    return [_name(result) for result in run.of(measure, label) if result.failed]


def _name(result: Result) -> str:
    label = result.cell.entrant.label
    return f"{label}, one at a time" if result.cell.entrant.one_at_a_time else label


def _canvas(rows: int, title: str) -> tuple[Any, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * rows))
    axes.set_title(title, pad=12)
    axes.grid(visible=True, axis="x", color="#f1f3f5", zorder=0)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _bars(
    spreads: dict[str, Spread],
    title: str,
    unit: str,
    *,
    failed: Sequence[str],
    digits: int,
    lower_first: bool = False,
) -> Any:
    """Draw one bar per queue on a logarithmic scale, the best on top, the spread as a whisker."""
    if not spreads:
        return None
    ordered = sorted(spreads.items(), key=lambda item: item[1].median, reverse=lower_first)
    figure, axes = _canvas(len(ordered) + len(failed), title)
    names, values = [name for name, _ in ordered], [spread.median for _, spread in ordered]
    around = [
        [spread.median - spread.low for _, spread in ordered],
        [spread.high - spread.median for _, spread in ordered],
    ]
    colours = [OWN if name == "aqueue" else OTHER for name in names]
    axes.barh(failed, [0] * len(failed))
    axes.barh(names, values, color=colours, height=0.66, zorder=2, xerr=around, ecolor=INK, capsize=2)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(spread.high for _, spread in ordered) * 3)
    for row, (name, spread) in enumerate(ordered, len(failed)):
        weight = "bold" if name == "aqueue" else "normal"
        axes.text(spread.high * 1.12, row, f"{spread.median:,.{digits}f}", va="center", fontweight=weight)
    for row in range(len(failed)):
        axes.text(axes.get_xlim()[0] * 1.12, row, "failed", va="center", style="italic")
    _plain_numbers(axes)
    axes.set_xlabel(f"{unit}, logarithmic scale")
    return figure


def _plain_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _legend_below(figure: Any, axes: Axes) -> None:
    handles, words = axes.get_legend_handles_labels()
    below = 0.62 / figure.get_size_inches()[1]
    axes.legend(handles, words, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -below), ncols=len(words))


def _drain(run: Run) -> Any:
    title = "No-op jobs drained per second: one worker process, concurrency 100"
    failed = _failed(run, "drain", "c=100")
    return _bars(_spreads(run, "drain", "c=100", "rate"), title, "jobs per second", failed=failed, digits=0)


def _redis_cpu(run: Run) -> Any:
    title = "CPU time of the Redis server per job, from enqueue to end"
    spreads = _spreads(run, "drain", "c=100", "redis_cpu")
    failed = _failed(run, "drain", "c=100")
    return _bars(spreads, title, "microseconds per job", failed=failed, digits=1, lower_first=True)


def _latency(run: Run) -> Any:
    """Draw a line per queue from the median to the worst; results where they are stored, else starts."""
    rows: list[tuple[str, list[float]]] = []
    for result in run.of("latency"):
        kind = "result" if result.median("result_p50") is not None else "start"
        values = [result.median(f"{kind}_{q}") for q in ("p50", "p99", "max")]
        if None not in values:
            name = result.cell.entrant.label + ("" if kind == "result" else " (start)")
            rows.append((name, [value for value in values if value is not None]))
    if not rows:
        return None
    rows.sort(key=lambda row: row[1][0], reverse=True)
    figure, axes = _canvas(len(rows), "From enqueue to the result in hand, on an idle worker")
    for row, (name, (middle, rare, worst)) in enumerate(rows):
        colour = OWN if name == "aqueue" else "#868e96"
        axes.plot([middle, worst], [row, row], color=colour, linewidth=1.5, alpha=0.5, zorder=2)
        axes.plot(middle, row, "o", color=colour, markersize=8, zorder=3, label="median" if not row else None)
        axes.plot(rare, row, "D", color=colour, markersize=5, zorder=3, label="99 %" if not row else None)
        axes.plot(worst, row, "|", color=colour, markersize=11, zorder=3, label="worst" if not row else None)
        axes.text(middle, row + 0.24, f"{middle:,.2f}", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xscale("log")
    _plain_numbers(axes)
    axes.set_xlabel("milliseconds, logarithmic scale")
    _legend_below(figure, axes)
    return figure


def _enqueue(run: Run) -> Any:
    """Draw three bars per queue."""
    ways = {"one": "one awaited at a time", "producers": "50 producers", "bulk": "bulk"}
    results = [result for result in run.of("enqueue") if result.metrics]
    if not results:
        return None
    results.sort(key=lambda result: max(result.median(way) or 0 for way in ways))
    figure, axes = _canvas(2 * len(results), "Jobs enqueued per second, one producing process")
    for offset, (way, words) in enumerate(ways.items()):
        rows = [row + 0.27 * (1 - offset) for row in range(len(results))]
        values = [result.median(way) or 0 for result in results]
        own = [result.cell.entrant.label == "aqueue" for result in results]
        colours = [SHADES[offset] if mine else GREYS[offset] for mine in own]
        axes.barh(rows, values, height=0.25, color=colours, zorder=2)
        axes.barh([0], [0], color=GREYS[offset], label=words)
        _label_bars(axes, rows, values)
    axes.set_yticks(range(len(results)), [result.cell.entrant.label for result in results])
    axes.set_xscale("log")
    axes.set_xlim(left=50)
    _plain_numbers(axes)
    axes.set_xlabel("jobs per second, logarithmic scale")
    _legend_below(figure, axes)
    return figure


def _label_bars(axes: Axes, rows: Sequence[float], values: Sequence[float]) -> None:
    for row, value in zip(rows, values, strict=True):
        if value:
            axes.text(value * 1.06, row, f"{value:,.0f}", va="center", fontsize=7)


def _backlog(run: Run) -> Any:
    """Draw the three rates of aqueue over the depth of the queue; flat is good."""
    results = sorted((r for r in run.of("backlog") if r.metrics), key=lambda r: r.cell.level)
    if len(results) < 2:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    axes.set_title("aqueue: rates on a full queue", pad=12)
    axes.grid(visible=True, color="#f1f3f5", zorder=0)
    depths = [result.cell.level for result in results]
    for colour, (metric, words) in zip(
        SHADES[::-1], {"bulk": "enqueue in bulk", "rate": "drain", "one": "single enqueue"}.items(), strict=True
    ):
        values = [result.median(metric) or 0 for result in results]
        axes.plot(depths, values, "o-", color=colour, label=words, linewidth=2)
        axes.annotate(f"{values[-1]:,.0f}", (depths[-1], values[-1]), xytext=(8, -3), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _plain_numbers(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("jobs that wait, logarithmic scale")
    axes.set_ylabel("jobs per second")
    _legend_below(figure, axes)
    return figure
