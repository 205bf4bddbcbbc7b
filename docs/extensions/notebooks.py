"""Each tutorial offers itself for download: as the notebook that ran when the pages were built, with its outputs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

FOLDER = "tutorials/"


def with_link(body: str, href: str, *, is_executed: bool) -> str:
    """The page with a link below its heading.

    Parameters
    ----------
    body
        HTML of the page.
    href
        Address of the notebook.
    is_executed
        Whether it holds outputs.
    """
    text = "Download this page as a notebook" + (", with its outputs" if is_executed else ", not run")
    link = f'<p class="notebook-download"><a class="reference download" download href="{href}">{text} (.ipynb)</a></p>'
    return re.sub(r"</h1>", lambda found: f"{found[0]}\n{link}", body, count=1)


def offer(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Copy the notebook that MyST-NB left beside the pages, and link it."""
    del templatename, doctree
    made = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    if not pagename.startswith(FOLDER) or pagename == f"{FOLDER}index" or "body" not in context or not made.is_file():
        return
    target = Path(app.outdir) / "_downloads" / f"{pagename}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, target)
    up = "../" * pagename.count("/")
    is_executed = app.config.nb_execution_mode != "off"
    context["body"] = with_link(context["body"], f"{up}_downloads/{pagename}.ipynb", is_executed=is_executed)


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("html-page-context", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
