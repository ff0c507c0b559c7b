"""An explanation as a page: the text, each word shaded by its weight, and a table of weights."""

from __future__ import annotations

from importlib.metadata import version

from inspection.explain import Explanation
from reporting.charts import table
from reporting.page import Html, document, element, join
from reporting.words import percent


def explanation_page(found: Explanation) -> str:
    """The page; it holds the text, which belongs to whoever asked."""
    largest = max((abs(w) for w in found.weights), default=0.0) or 1.0
    marked: list[Html] = []
    for word, weight in zip(found.words, found.weights, strict=True):
        tone = "--c1" if weight > 0 else "--c2"
        share = round(60 * abs(weight) / largest)
        line = ("solid" if weight > 0 else "dashed") if share >= 6 else "none"
        style = (
            f"background:color-mix(in srgb, var({tone}) {share}%, transparent);"
            f"border-bottom:2px {line} var({tone});padding:.1em .15em;border-radius:2px"
        )
        marked += [element("span", word, style=style, title=f"{weight:+.3f}"), Html(" ")]
    rows = [
        [word, f"{weight:+.4f}"]
        for word, weight in sorted(
            zip(found.words, found.weights, strict=True), key=lambda p: -abs(p[1])
        )
    ]
    opening = join(
        element("p", "fedaccord · explanation", class_="over"),
        element("h1", found.label),
        element(
            "p",
            f"The model gives this label to the text below with probability "
            f"{percent(found.probability)}, which is not calibrated.",
            class_="lead",
        ),
    )
    text = join(
        element("p", *marked, style="line-height:2.1;font-size:1.1rem"),
        element(
            "p",
            "Blue and underlined: speaks for the label; orange and dashed: against it. The deeper, "
            "the more. Point at a word for its weight.",
            class_="note",
        ),
    )
    sums = element(
        "p",
        f"The weights add up to {sum(found.weights):+.4f}: the label's margin over the others for "
        f"this text ({found.margin:+.4f}) less that for a blank one ({found.blank_margin:+.4f}), "
        f"up to {abs(found.error):.4f}. Integrated gradients; they say what moved this model, not "
        "what is true.",
    )
    return document(
        f"fedaccord explanation: {found.label}",
        opening,
        [
            ("text", "The text", text),
            ("weights", "Every word", join(sums, table(["word", "weight"], rows, "Weights"))),
        ],
        f"Made by fedaccord {version('fedaccord')}. This page loads nothing from anywhere.",
    )
