"""The method that the contributing page builds is built as the page says, and keeps the promises of the contract."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scset_tools as sst

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "contributing_a_method.md").read_text()
BLOCK = re.compile(r"```\{code-block\} python\n:caption: (.+?)\n\n?(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def deepset(tmp_path, monkeypatch):
    """The blocks of the page by caption; the folder of the method is written where its caption says."""
    blocks = dict(BLOCK.findall(PAGE))
    for caption, code in blocks.items():
        if caption.startswith("src/scset_tools/model/deepset/"):
            path = tmp_path / "deepset" / Path(caption).name
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
    monkeypatch.setattr(sst.model, "__path__", [*sst.model.__path__, str(tmp_path)])
    exec(blocks["line 1"], scope := {})
    monkeypatch.setattr(sst, "DeepSet", scope["DeepSet"], raising=False)
    yield blocks
    for name in [name for name in sys.modules if name.startswith("scset_tools.model.deepset")]:
        del sys.modules[name]


def test_the_page_has_all_its_blocks(deepset):
    names = {f"src/scset_tools/model/deepset/{name}.py" for name in ("_module", "_model", "__init__")}
    assert {*names, "line 1", "line 2", "use", "tests/model/test_contract.py"} == set(deepset)
    assert eval("{" + deepset["line 2"] + "}") == {"DeepSet": "scset_tools.model"}
    cls, sizes = eval("{" + deepset["tests/model/test_contract.py"] + "}", {"sst": sst})["deepset"]
    assert (cls.__name__, sizes["n_latent"]) == ("DeepSet", 6)


def test_the_page_says_how_long_the_method_is(deepset):
    code = [text for name, text in deepset.items() if name.startswith("src/")]
    lines = [line for text in code for line in text.splitlines()]
    docs = [
        line
        for text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in text.splitlines()[node.body[0].lineno - 1 : node.body[0].end_lineno]
    ]
    n_bare = sum(bool(line.strip()) for line in lines) - sum(bool(line.strip()) for line in docs)
    says = re.search(r"in (\d+) files of (\d+) lines \((\d+) of them neither empty nor\ndocumentation\)", PAGE)
    assert [int(n) for n in says.groups()] == [len(code), len(lines), n_bare]


def test_it_works_as_shown(deepset, tmp_path, monkeypatch):
    exec(deepset["use"], scope := {})
    model, samples, adata = scope["model"], scope["samples"], scope["adata"]
    assert samples.obsm["X_deepset"].shape == (8, 4)
    assert {"loss_train", "mean_error_train", "spread_error_train"} <= set(model.history)
    found = scope["found"]
    assert found.head == "finetuned"
    assert scope["probed"].head == "probe"
    assert list(scope["predicted"].columns) == ["subtype"]
    assert model.heads["subtype"].mode == "end_to_end"
    with pytest.raises(ValueError, match="names no part of its encoder to train with mode='partial'"):
        model.finetune("subtype", mode="partial", accelerator="cpu", enable_progress_bar=False)
    assert found.completeness_error.to_numpy().max() <= 0.01
    parts = [found.contrast(group=group) for group in found.group_names]
    np.testing.assert_allclose(sum(parts), found.contrast(), atol=1e-5)
    with pytest.raises(ValueError, match="DeepSet has no attention: its network does not weigh cells"):
        model.get_attention()
    # the promises that a wrong page would break first
    want = model.get_sample_representation()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    pd.testing.assert_frame_equal(model.get_sample_representation(shuffled), want, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(model.get_sample_representation(batch_size=1), want, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "saved")
    loaded = sst.DeepSet.load(tmp_path / "saved", adata=False)
    pd.testing.assert_frame_equal(loaded.get_sample_representation(adata), want)
    monkeypatch.setattr(import_module("scset_tools.model._inference"), "MAX_CELLS", 7)
    pd.testing.assert_frame_equal(model.get_sample_representation(), want, rtol=1e-5, atol=1e-6)
