"""The page that every report is: markup that cannot be broken by its content, one style, offline.

Text becomes markup through `element` alone, which escapes whatever is not markup already.  The
content security policy of the page forbids every request and every script but the one written here.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from html import escape
from importlib.metadata import version
from unicodedata import bidirectional, category

# Classes of characters that embed, override or isolate a direction of writing.
DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
VOID = frozenset({"br", "col", "hr", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name attributes>children</name>`.

    Children that are not Html are escaped, as is every attribute; None leaves an attribute (or a
    child) out and True writes its name alone.  `class_` is class, and `_` in a name stands for `-`.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Children one after the other, escaped where they are not Html."""
    return Html("".join(c if isinstance(c, Html) else _text(c) for c in children if c is not None))


def _text(value: object) -> str:
    # Control characters are none of HTML, bidirectional controls would reorder the page after them,
    # and half a surrogate pair cannot be written.  Joiners stay: scripts and emoji need them.
    text = str(value)
    if not text.isprintable():
        text = "".join("\ufffd" if _is_control(c) else c for c in text)
    return escape(text, quote=True)


def _is_control(character: str) -> bool:
    return character not in "\t\n" and (
        category(character) in ("Cc", "Cs") or bidirectional(character) in DIRECTIONS
    )


def section(identity: str, title: str, *children: object) -> Html:
    """A part of the page that can be linked to and is listed in its navigation."""
    heading = element("h2", title, id=f"{identity}-title")
    return element("section", heading, *children, id=identity, aria_labelledby=f"{identity}-title")


def document(
    title: str, opening: Html, parts: list[tuple[str, str, Html]], closing: str = ""
) -> str:
    """The whole page: `opening` is the first screen, `parts` (identity, title, content) follow."""
    links = [element("li", element("a", name, href=f"#{key}")) for key, name, _ in parts]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(sha256(SCRIPT.encode()).digest()).decode()}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"fedaccord {version('fedaccord')}"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", opening),
        element("nav", element("ul", *links), aria_label="Sections") if links else None,
        element("main", *(section(*part) for part in parts), id="content"),
        element("footer", element("p", closing)) if closing else None,
        element("script", Html(SCRIPT)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


# Okabe and Ito's colours, which people with any colour vision can tell apart, a little lighter on
# dark; wherever a colour says something, a shape or a word says it too.
STYLE = """
:root { --paper:#fdfcfa; --ink:#1d2430; --soft:#5b6472; --line:#dcd9d2; --faint:#f1efe9;
  --accent:#0b4f6c; --c1:#0072b2; --c2:#c4500a; --c3:#00805e; --c4:#8a4f78; --c5:#6b6b6b;
  --warn:#9a3c00; --warn-paper:#fbeee4; --good:#00664b; --good-paper:#e7f3ee;
  --merged:#dfe9ee; --clipped:#bcd7e6; --down:#f0d9a0; --dropped:#eab08a; --refused:#a63d14;
  --readmitted:#b5dccb; --missing:#e4e2dc; }
@media (prefers-color-scheme: dark) { :root { --paper:#14181e; --ink:#e7e5df; --soft:#a5adb8;
  --line:#343b45; --faint:#1d232b; --accent:#8cc8e4; --c1:#62b4ea; --c2:#f08a4b; --c3:#43c39c;
  --c4:#d79cc5; --c5:#a8a8a8; --warn:#ffb27d; --warn-paper:#3a2618; --good:#7fdcb9;
  --good-paper:#16322a; --merged:#24323b; --clipped:#1f4c66; --down:#66521a; --dropped:#7d4220;
  --refused:#e0764a; --readmitted:#1f5a47; --missing:#2c323a; } }
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; scroll-behavior:smooth; scroll-padding-top:1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior:auto; } }
body { margin:0; background:var(--paper); color:var(--ink); overflow-wrap:anywhere;
  font:1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
header, nav, main, footer { max-width:66rem; margin:0 auto; padding:0 1.25rem; }
h1, h2 { font-family:Charter, "Iowan Old Style", "Palatino Linotype", Georgia, serif;
  font-weight:600; line-height:1.2; letter-spacing:-.01em; text-wrap:balance; }
h1 { font-size:clamp(1.7rem, 4.5vw, 2.7rem); margin:.2rem 0 .8rem; }
h2 { font-size:1.55rem; margin:0 0 .75rem; }
h3 { font-size:1rem; margin:1.75rem 0 .5rem; }
p { max-width:44rem; margin:.5rem 0; }
a { color:var(--accent); text-underline-offset:.15em; }
code { font:.86em/1.4 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace;
  background:var(--faint); padding:.1em .3em; border-radius:3px; }
:focus-visible { outline:3px solid var(--c1); outline-offset:2px; border-radius:2px; }
.skip { position:absolute; left:-99rem; } .skip:focus { left:1rem; top:1rem; }
header h2 { font-size:1.2rem; margin-top:1.75rem; }
header { padding-top:clamp(1.5rem, 5vw, 3.5rem); }
.over { color:var(--soft); font-size:.85rem; letter-spacing:.06em; text-transform:uppercase;
  margin:0; }
.lead { font-size:1.15rem; line-height:1.5; max-width:48rem; }
.soft, .note { color:var(--soft); } .note { font-size:.9rem; }
nav { margin-top:1.5rem; } nav ul { display:flex; flex-wrap:wrap; gap:.3rem 1.25rem; margin:0;
  padding:.7rem 0; list-style:none; border-block:1px solid var(--line); font-size:.95rem; }
section { padding:2.25rem 0 1rem; } section + section { border-top:1px solid var(--line); }
.tiles { display:grid; gap:1px; margin:1.75rem 0 1rem; padding:1px; background:var(--line);
  grid-template-columns:repeat(auto-fit, minmax(min(100%, 14.5rem), 1fr)); }
.tile { background:var(--paper); padding:1rem 1.1rem; display:flex; flex-direction:column; }
.tile dt { color:var(--soft); font-size:.88rem; } .tile dd { margin:0; }
.tile .figure { font:600 1.9rem/1.2 Charter, "Iowan Old Style", "Palatino Linotype", Georgia,
  serif; margin:.15rem 0 .25rem; font-variant-numeric:lining-nums; }
.tile .more { font-size:.9rem; line-height:1.45; color:var(--soft); }
.tile.warn .figure { color:var(--warn); } .tile.good .figure { color:var(--good); }
.notice { border-left:4px solid var(--warn); background:var(--warn-paper); padding:.6rem 1rem;
  margin:1rem 0; max-width:48rem; }
.chips { display:flex; flex-wrap:wrap; gap:.35rem; list-style:none; padding:0; margin:.5rem 0; }
.chips li { border:1px solid var(--line); border-radius:99px; padding:.05rem .7rem;
  font-size:.9rem; }
.chips li.warn { border-color:var(--warn); color:var(--warn); }
figure { margin:1.25rem 0 2rem; } figcaption { margin-bottom:.75rem; max-width:44rem; }
figcaption b { display:block; } figcaption span { color:var(--soft); font-size:.93rem; }
details { margin:.6rem 0; } summary { cursor:pointer; color:var(--accent); font-size:.92rem;
  padding:.25rem 0; width:fit-content; }
.scroll { overflow-x:auto; max-width:100%; }
table { border-collapse:collapse; font-size:.92rem; font-variant-numeric:tabular-nums; }
th, td { padding:.32rem .9rem .32rem 0; text-align:left; vertical-align:top;
  border-bottom:1px solid var(--line); overflow-wrap:normal; }
caption { text-align:left; color:var(--soft); font-size:.88rem; padding-bottom:.2rem; }
thead th { color:var(--soft); font-weight:500; vertical-align:bottom; }
tbody th { font-weight:500; } td.n, th.n { text-align:right; white-space:nowrap; }
.legend { display:flex; flex-wrap:wrap; gap:.25rem 1.2rem; list-style:none; padding:0;
  margin:.5rem 0; font-size:.9rem; } .legend li { display:flex; align-items:center; gap:.45rem; }
.legend svg { width:26px; height:14px; flex:none; overflow:visible; }
svg { display:block; overflow:visible; } svg text { font-size:12px; fill:var(--soft);
  font-variant-numeric:tabular-nums; }
.plot { display:grid; grid-template-columns:3.2rem minmax(0, 1fr); gap:0; padding-right:.9rem; }
.plot > svg { width:100%; height:260px; } .plot .left { height:260px; position:relative;
  font-size:12px; color:var(--soft); font-variant-numeric:tabular-nums; }
.plot .left span { position:absolute; right:.6rem; transform:translateY(-50%); }
.plot .below { grid-column:2; position:relative; height:2.6rem; font-size:12px;
  color:var(--soft); font-variant-numeric:tabular-nums; }
.plot .below span { position:absolute; top:.4rem; transform:translateX(-50%);
  white-space:nowrap; } .plot .below em { position:absolute; bottom:0; left:0; right:0;
  text-align:center; font-style:normal; }
.parallel { position:relative; height:300px; margin:.5rem 0;
  font-size:12px; color:var(--soft); font-variant-numeric:tabular-nums; }
.parallel > svg { position:absolute; left:0; top:1.8rem; width:100%; height:260px; }
.parallel > b { position:absolute; top:0; white-space:nowrap; font-weight:600;
  max-width:11rem; overflow:hidden; text-overflow:ellipsis; }
.parallel > span { position:absolute; margin-top:1.8rem; transform:translateY(-50%);
  padding:0 .3rem; white-space:nowrap; background:var(--paper); opacity:.9; }
.parallel > .between { transform:translateX(-50%); } .parallel > .last {
  transform:translateX(-100%); } .parallel > span.between { transform:translate(-50%, -50%); }
.parallel > span.last { transform:translate(-100%, -50%); }
.thick { stroke-width:3; } .faint { opacity:.55; stroke-width:1.2; }
.grid { stroke:var(--line); stroke-width:1; } .axis { stroke:var(--soft); stroke-width:1; }
.path { fill:none; stroke-width:2; vector-effect:non-scaling-stroke; stroke-linejoin:round; }
.band { opacity:.16; stroke:none; } .dash { stroke-dasharray:5 4; }
.s1 { stroke:var(--c1); } .s2 { stroke:var(--c2); } .s3 { stroke:var(--c3); }
.s4 { stroke:var(--c4); } .s5 { stroke:var(--c5); }
.f1 { fill:var(--c1); } .f2 { fill:var(--c2); } .f3 { fill:var(--c3); } .f4 { fill:var(--c4); }
.f5 { fill:var(--c5); } .hollow { fill:var(--paper); stroke-width:2; } .whisker {
  stroke-width:2; } .limit { stroke:var(--warn); stroke-width:2; stroke-dasharray:5 3; }
.rows { display:grid; grid-template-columns:minmax(6rem, max-content) minmax(0, 1fr) max-content;
  column-gap:1.1rem; align-items:center; font-variant-numeric:tabular-nums; }
.rows > .name { max-width:16rem; font-size:.93rem; line-height:1.25; padding:.2rem 0; }
.rows > .name small { display:block; color:var(--soft); } .rows > svg { width:100%;
  height:30px; } .rows > .value { font-size:.93rem; text-align:right; }
.rows > .ticks { position:relative; height:1.5rem; font-size:12px; color:var(--soft); }
.rows > .ticks span { position:absolute; transform:translateX(-50%); white-space:nowrap; }
.rows > .ticks { grid-column:2; } .rows > .full { grid-column:1 / -1; }
.heat { border-collapse:separate; border-spacing:2px; font-size:.82rem; }
.heat th, .heat td { border:0; padding:0; vertical-align:middle; }
.heat th[scope=row] { padding-right:.7rem; white-space:nowrap;
  position:sticky; left:0; background:var(--paper); z-index:1;
  max-width:11rem; overflow:hidden; text-overflow:ellipsis; }
.heat thead th { text-align:center; font-size:.72rem; }
.cell { display:block; width:26px; height:26px; line-height:26px; text-align:center;
  font-weight:600; border-radius:3px; cursor:default; color:var(--ink); }
.cell:hover { outline:2px solid var(--ink); } .cell.merged { background:var(--merged); }
.cell.clipped { background:var(--clipped); } .cell.down-weighted { background:var(--down); }
.cell.dropped { background:var(--dropped); } .cell.refused { background:var(--refused);
  color:var(--paper); } .cell.readmitted { background:var(--readmitted); }
.cell.missing { background:var(--missing); } .cell.absent { color:var(--soft); }
.told { min-height:3.2em; margin:.6rem 0 0; padding:.5rem .8rem; background:var(--faint);
  border-radius:4px; font-size:.92rem; max-width:none; }
footer { color:var(--soft); font-size:.88rem; padding-block:1rem 3rem; }
@media (max-width: 40rem) { .rows { grid-template-columns:minmax(0, 1fr) max-content; }
  .rows { grid-auto-flow:dense; } .rows > .name { grid-column:1; max-width:none; }
  .rows > .value { grid-column:2; } .rows > svg, .rows > .ticks { grid-column:1 / -1;
  margin:0 .6rem; width:calc(100% - 1.2rem); } header, nav, main, footer { padding-inline:1rem; } }
@media print { nav, .skip, .told { display:none; } body { background:#fff; }
  section, figure { break-inside:avoid; } .scroll { overflow:visible; } }
"""

# Arrow keys walk through a heat map's cells; the reason of the cell in hand stands below the map.
SCRIPT = """
for (const map of document.querySelectorAll('.heat')) {
  const rows = [...map.tBodies[0].rows].map(row => [...row.querySelectorAll('.cell')]);
  const told = document.getElementById(map.dataset.told);
  const first = told.textContent;
  const tell = cell => { told.textContent = cell ? cell.title : first; };
  let held = rows.length && rows[0][0];
  const hold = cell => { held.tabIndex = -1; held = cell; held.tabIndex = 0; held.focus(); };
  map.addEventListener('mouseover', e => {
    const cell = e.target.closest('.cell');
    if (cell) tell(cell);
  });
  map.addEventListener('focusin', e => { if (e.target.matches('.cell')) tell(e.target); });
  map.addEventListener('click', e => {
    const cell = e.target.closest('.cell');
    if (cell) hold(cell);
  });
  map.addEventListener('keydown', e => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      Home: [0, -1e9], End: [0, 1e9]}[e.key];
    if (!step || !held) return;
    e.preventDefault();
    const y = rows.findIndex(row => row.includes(held));
    const row = rows[Math.min(Math.max(y + step[0], 0), rows.length - 1)];
    const x = rows[y].indexOf(held) + step[1];
    hold(row[Math.min(Math.max(x, 0), row.length - 1)]);
  });
}
"""
