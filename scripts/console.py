"""The console of all commands: it prints text and obeys no markup.

Names, reasons and values from partners reach the terminal. By default rich would obey markup in
them (`[/bold]` alone raises an error) and pass on escape sequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from common.printable import printable_lines


class PlainConsole(Console):
    """A console that reads no markup and no emoji codes, and prints printable characters only.

    Styles come from `rich.text.Text`, e.g. ``Text.assemble(("damaged", "red"), f": {problem}")``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, **settings}, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Clean a text, or the cell or title of a table, before its width is measured."""
        # Some of rich's renderables request markup by themselves.
        settings |= {"markup": False, "emoji": False}
        return super().render_str(printable_lines(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Clean everything else that becomes characters, such as a ready-made `Text`."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)
