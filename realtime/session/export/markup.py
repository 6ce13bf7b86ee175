"""Pieces of HTML that the pages of sessions share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_markup
from importlib.resources import files

from realtime.languages import language
from realtime.session.sentences import printable


def escape(text: str) -> str:
    """Return text for the page, without what no page may hold."""
    return escape_markup(printable(text))


def document(title: str, body: str) -> str:
    """Return a page that needs nothing but itself. title: escaped already."""
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="{language()}">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls where it is too wide; the first cell of a row names it. Cells are markup."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def folded(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that opens when it is asked for."""
    return f"<details><summary>{title}</summary>{table(head, rows)}</details>"
