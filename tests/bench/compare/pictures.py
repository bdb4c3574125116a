"""Draws a comparison that was kept, as PNG and SVG:

    python -m tests.bench.compare.pictures [tests/bench/compare/results/comparison.json]

Needs matplotlib, and measures nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.bench.compare.figures import Comparison, Figure, number

matplotlib.use("agg")  # no display is looked for

__all__ = ["draw"]

# One colour and one mark for each in all pictures, told apart by those who see no colours too.
LOOKS = {
    "Cellgate": ("#0b6e4f", "o"),
    "Cellgate, docker": ("#35a7a0", "s"),
    "Cellgate, gVisor": ("#7b6fb0", "^"),
    "Jupyter Server": ("#f37726", "D"),
    "Kernel Gateway": ("#b5482e", "v"),
    "raw ZMQ": ("#777777", "x"),
}
DPI = 110

# The name of each picture, its title, and the figures side by side in it.
CURVES = {
    "sessions": ("How cost grows with sessions", ("memory_whole", "start_beside", "warm_beside")),
    "output": ("How long a cell takes, by what it puts out", ("lines", "bytes", "images")),
    "throughput": ("Cells a second, by sessions that ask at once", ("concurrency",)),
}
POINTS = {"latency": ("Latencies", ("start", "start_pooled", "warm", "interrupt", "kernel_killed", "gateway_killed"))}


def draw(comparison: Comparison, place: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams["svg.hashsalt"] = "cellgate"  # the same picture of the same figures
    for pictures, draw_panel in ((CURVES, _curve), (POINTS, _points)):
        for name, (title, wanted) in pictures.items():
            figures = [figure for one in wanted if (figure := comparison.figure(one)) and figure.samples]
            if figures:
                _draw(comparison, place / name, title, figures, draw_panel)


def _draw(comparison: Comparison, path: Path, title: str, figures: list[Figure], draw_panel) -> None:
    rows = (len(figures) + 2) // 3
    columns = min(3, len(figures))
    picture, panels = plt.subplots(rows, columns, figsize=(max(5.0, 3.7 * columns), 3.1 * rows), squeeze=False)
    for panel, figure in zip(panels.flat, figures):
        draw_panel(panel, figure)
    for panel in list(panels.flat)[len(figures) :]:
        panel.set_axis_off()
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if handles:
        picture.legend(handles, labels, loc="outside lower center", ncols=6 if columns > 1 else 3, frameon=False)
    made = comparison.made
    where = f"{made['cores']} cores of {made['processor']}, {made['on']}, load {made['load']}; medians and quartiles"
    picture.suptitle(f"{title}\n", fontweight="bold")
    picture.text(0.5, 0.955 if rows > 1 else 0.92, where, ha="center", va="top", fontsize=7, color="#555555")
    picture.set_layout_engine("constrained")
    picture.savefig(path.with_suffix(".png"), dpi=DPI)
    picture.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(picture)


def _curve(panel: Axes, figure: Figure) -> None:
    for name in figure.samples:
        colour, mark = LOOKS[name]
        found = [(at, spread) for at in figure.sizes() if (spread := figure.spread(name, at))]
        sizes = [at for at, _ in found]
        panel.plot(sizes, [one.median for _, one in found], color=colour, marker=mark, markersize=4, lw=1.4, label=name)
        lows, highs = [one.low for _, one in found], [one.high for _, one in found]
        panel.fill_between(sizes, lows, highs, color=colour, alpha=0.15)
    panel.set(xscale="log", yscale="log", xlabel=figure.axis, ylabel=figure.unit)
    panel.set_title(_broken(figure.title), fontsize=8)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.25, which="major")


def _points(panel: Axes, figure: Figure) -> None:
    """A row for each contender. Points and no bars, for a logarithmic axis has no zero to begin at."""
    names = [name for name in reversed(figure.samples) if figure.spread(name)]
    for row, name in enumerate(names):
        spread = figure.spread(name)
        assert spread
        error = [[spread.median - spread.low], [spread.high - spread.median]]
        colour, mark = LOOKS[name]
        panel.errorbar(spread.median, row, xerr=error, color=colour, marker=mark, markersize=6, capsize=2, lw=1)
        panel.annotate(f"  {number(spread.median)}", (spread.high, row), va="center", fontsize=7)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set(xscale="log", xlabel=figure.unit)
    panel.set_title(_broken(figure.title), fontsize=8)
    panel.margins(x=0.25, y=0.12)
    panel.grid(alpha=0.25, axis="x")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _broken(title: str) -> str:
    head, comma, rest = title.partition(", ")
    return f"{head}{comma}\n{rest}" if comma else title


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("results") / "comparison.json"
    draw(Comparison.load(path), path.parent)


if __name__ == "__main__":
    main()
