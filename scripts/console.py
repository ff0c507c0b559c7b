"""The one way in which commands print through rich: what is printed is text, never a command.

Names, reasons and values that partners invented reach the terminal, and rich would obey markup in
them (`[/bold]` alone raises an error) and pass escape sequences on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from common.printable import printable_lines


class PlainConsole(Console):
    """A console that reads no markup and no emoji codes, and writes printable characters only.

    Styles come from `rich.text.Text`, e.g. ``Text.assemble(("damaged", "red"), f": {problem}")``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, **settings}, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A text, a table's cell or title; cleaned here so that widths are right."""
        # Some of rich's renderables ask for markup of their own accord.
        settings |= {"markup": False, "emoji": False}
        return super().render_str(printable_lines(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Everything else that becomes characters, a `Text` that was made elsewhere included."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)
