"""Where the processor's time of a command goes: a table of phases and a flame graph.

``py-spy record --nonblocking --rate 20 --format raw -o STACKS -- fedaccord simulate ...`` samples
the call stacks of the command while it is at work, and with ``--pid`` those of a Ray worker (the
processes named ``ray::ClientAppActor``); the files are joined by ``cat``.  ``python -m bench.flame
STACKS --rate 20 --svg FILE`` sums them up by phase and draws them.  Of a stack the graph has the
project's own functions; below the last of them it is the libraries' time.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from common.files import write_atomic
from results.audit import PACKAGES

# A sample belongs to the first phase of which one of these is in its stack; & asks for both.
PHASES = {
    "training: frozen layers, once for a row": (
        "train (client/training.py & ready (common/examples/frozen_layers.py",
    ),
    "training: steps": ("train (client/training.py",),
    "evaluation: frozen layers, once for a row": ("ready (common/examples/frozen_layers.py",),
    "evaluation": ("evaluate (common/evaluation.py",),
    "tokens": (
        "_save_ids (common/examples/tokens.py",
        "_save (common/examples/token_classification.py",
    ),
    "imports": ("_find_and_load (<frozen importlib",),
    "loading models": ("build (common/models/build.py",),
    "data": ("simulated_shares (client/", "public_rows (server/", "resolve_labels (common/"),
    "privacy accounting": ("(client/accounting/", "(client/ledger/"),
    "aggregation": ("aggregate (strategies/pipeline.py",),
    "checkpoint, report": ("save (server/checkpoint.py", "write_report (", "export (common/"),
}
REST = "Flower, Ray and the rest"
OWN = re.compile(rf"^(\S+) \(((?:{'|'.join(PACKAGES)})/[\w/]+\.py):\d+\)$")
WAITING = re.compile(r"^(Condition\.)?wait \(threading\.py:\d+\)$")
WIDTH, ROW, LEFT_OUT = 1200, 18, 0.002
COLOURS = {"client": "#e07b39", "server": "#3b7dd8", "common": "#7a9e3f", "scripts": "#9a6fb0"}


def read(text: str) -> Counter[tuple[str, ...]]:
    """Samples of every stack in py-spy's raw format, frames from the outermost on.

    py-spy takes some threads that wait for a lock for busy: they are left out.
    """
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(frames.split(";"))
        if not WAITING.match(stack[-1]):
            stacks[stack] += int(count)
    return stacks


def phase(stack: Sequence[str]) -> str:
    """The phase that a stack belongs to."""
    joined = ";".join(stack)

    def has(mark: str) -> bool:
        return all(part in joined for part in mark.split(" & "))

    return next((name for name, marks in PHASES.items() if any(map(has, marks))), REST)


def seconds_by_phase(stacks: Mapping[tuple[str, ...], int], rate: float) -> dict[str, float]:
    """Processor seconds, in the order of `PHASES`."""
    found = dict.fromkeys([*PHASES, REST], 0.0)
    for stack, count in stacks.items():
        found[phase(stack)] += count / rate
    return found


def own_frames(stack: Iterable[str]) -> tuple[str, ...]:
    """The project's functions in a stack as "module: function", without repeats in a row."""
    found: list[str] = []
    for frame in stack:
        if match := OWN.match(frame):
            name = f"{match[2].removesuffix('.py').replace('/', '.')}: {match[1]}"
            if not found or found[-1] != name:
                found.append(name)
    return tuple(found) or (REST,)


def draw(stacks: Mapping[tuple[str, ...], int], rate: float) -> str:
    """A flame graph as SVG: a box is as wide as the time in a function and what it calls."""
    totals: Counter[tuple[str, ...]] = Counter()
    for stack, count in stacks.items():
        frames = own_frames(stack)
        for depth in range(1, len(frames) + 1):
            totals[frames[:depth]] += count
    total = sum(stacks.values())
    shown = [path for path, count in totals.items() if count >= LEFT_OUT * total]
    left: dict[tuple[str, ...], float] = {}
    used: dict[tuple[str, ...], float] = {(): 0.0}
    for path in sorted(shown, key=lambda path: (len(path), path)):
        parent = path[:-1]
        left[path] = used[parent]
        used[path] = used[parent]
        used[parent] += totals[path] / total * WIDTH
    height = (max(map(len, shown)) + 1) * ROW
    boxes = []
    for path in shown:
        width = totals[path] / total * WIDTH
        label = f"{path[-1]}, {totals[path] / rate:.0f} s"
        short = path[-1].rpartition(": ")[2]
        fits = next((text for text in (label, short) if len(text) * 6.2 < width), "")
        colour = COLOURS.get(path[-1].split(".")[0], "#8a8a8a")
        top = (len(path) - 1) * ROW
        boxes.append(
            f'<g><title>{escape(label)}</title><rect x="{left[path]:.1f}" y="{top}" '
            f'width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>'
            f'<text x="{left[path] + 3:.1f}" y="{top + 13}">{escape(fits)}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#fff">{"".join(boxes)}</svg>\n'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument("stacks", type=Path, help="what py-spy wrote")
    parser.add_argument("--rate", type=float, required=True, help="samples a second")
    parser.add_argument("--svg", type=Path, help="where the picture goes")
    asked = parser.parse_args(argv)
    stacks = read(asked.stacks.read_text())
    found = seconds_by_phase(stacks, asked.rate)
    total = sum(found.values())
    for name, seconds in found.items():
        print(f"{name}\t{seconds:.1f} s\t{seconds / total:.1%}")
    if asked.svg:
        write_atomic(asked.svg, draw(stacks, asked.rate))


if __name__ == "__main__":
    main()
