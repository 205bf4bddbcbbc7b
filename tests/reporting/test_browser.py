"""The page in a browser that is there: at two widths nothing is cut, tables sort, and a sample is shown everywhere at once."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is on the path")

MEASURE = """<script>
const errors = [];
addEventListener("error", (e) => errors.push(e.message));
addEventListener("load", () => {
  const width = document.documentElement.clientWidth, wide = [], small = [];
  for (const e of document.querySelectorAll("main *, h1, nav a")) {
    const box = e.getBoundingClientRect();
    if (box.right > width + 1 && !e.closest(".wide")) wide.push(e.tagName + " " + e.textContent.slice(0, 40));
    if (e.tagName === "P" && parseFloat(getComputedStyle(e).fontSize) < 12) small.push(e.textContent.slice(0, 40));
  }
  const table = document.querySelector(".tall table"), column = () => [...table.tBodies[0].rows].map((r) => r.cells[r.cells.length - 1].dataset.v);
  const button = [...table.querySelectorAll("th button")].at(-1);
  button.click(); const up = column(); button.click(); const down = column();
  const point = document.querySelector(".point");
  point.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  const chosen = [...document.querySelectorAll(".chosen")].map((e) => e.tagName.toLowerCase());
  const said = document.querySelector(".readout").textContent;
  const found = { width, page: document.documentElement.scrollWidth, wide, small, up, down, chosen, said, errors,
    n_maps: document.querySelectorAll("figure svg").length };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""
FRAME = """<!DOCTYPE html><title>frame</title><pre id="found"></pre><script>
addEventListener("message", (e) => { document.getElementById("found").textContent = e.data; });
</script><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe>"""


@pytest.fixture(scope="module", params=[1280, 400])
def found(request, made, tmp_path_factory):
    """What a browser makes of the page in a frame of a width; a window has a least width of its own."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(made[0].replace("</head>", MEASURE + "</head>", 1), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("{width}", str(request.param)), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", (folder / "frame.html").as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    text = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert text is not None, ended.stderr[-2000:]
    assert text[1], ended.stderr[-2000:]
    return json.loads(html.unescape(text[1])) | {"asked": request.param}


def test_nothing_is_wider_than_the_page(found):
    assert found["width"] in range(found["asked"] - 20, found["asked"] + 1)  # less a scroll bar
    assert found["wide"] == []
    assert found["page"] <= found["width"]
    assert found["small"] == []


def test_the_script_runs_without_errors_and_sorts(found):
    assert found["errors"] == []
    up = [float(v) for v in found["up"]]
    assert len(up) == 12
    assert up == sorted(up)
    assert [float(v) for v in found["down"]] == sorted(up, reverse=True)


def test_a_sample_is_shown_in_every_map_and_in_its_table(found):
    assert found["chosen"].count("tr") == 1
    assert len(found["chosen"]) == 1 + found["n_maps"]
    assert "cells" in found["said"]
    assert "held out" in found["said"] or "trained on" in found["said"]
