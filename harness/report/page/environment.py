"""How pages are made of templates: everything is escaped, and what would hide is shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> "Environment":
    """The environment of all templates. Raises UserError where jinja2 is missing."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as problem:
        raise UserError(f"the page needs jinja2, which is missing ({problem}): pip install jinja2") from None

    # All text is from outside: names, reasons, ids. What is not marked as safe is escaped, and shown where it would
    # else hide.
    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def style(more: str = "") -> "Markup":
    """The style sheet of all pages, and `more`, which is not from outside."""
    from markupsafe import Markup

    return Markup((TEMPLATES / "page.css").read_text(encoding="utf-8") + more)
