"""A made-up checkpoint of the published layout, against a transcription of its forward pass."""

from __future__ import annotations

import math
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

import scset_tools as sst
from scset_tools.train import TwoRatePlan

SMALL = {
    "n_genes": 30,
    "dim": 12,
    "depth": 2,
    "heads": 3,
    "ff": 20,
    "bins": 7,
    "dec": 8,
    "dec_depth": 2,
    "dec_head": 4,
    "features": 9,
}
PUBLISHED = {
    "n_genes": 19264, "dim": 768, "depth": 12, "heads": 12, "ff": 3072, "bins": 100,
    "dec": 512, "dec_depth": 6, "dec_head": 64, "features": 266,
}  # fmt: skip


def shapes(s: dict) -> dict[str, tuple[int, ...]]:
    """The table of the published state dict, for any sizes."""
    out = {
        "token_emb.mlp.weight": (s["bins"], 1),
        "token_emb.mlp.bias": (s["bins"],),
        "token_emb.mlp2.weight": (s["bins"], s["bins"]),
        "token_emb.mlp2.bias": (s["bins"],),
        "token_emb.emb.weight": (s["bins"], s["dim"]),
        "token_emb.emb_mask.weight": (1, s["dim"]),
        "token_emb.emb_pad.weight": (1, s["dim"]),
        "pos_emb.weight": (s["n_genes"] + 3, s["dim"]),
    }
    for i in range(s["depth"]):
        p = f"encoder.transformer_encoder.{i}."
        out |= {p + "self_attn.in_proj_weight": (3 * s["dim"], s["dim"]), p + "self_attn.in_proj_bias": (3 * s["dim"],)}
        out |= {p + "self_attn.out_proj.weight": (s["dim"], s["dim"]), p + "self_attn.out_proj.bias": (s["dim"],)}
        out |= {p + "linear1.weight": (s["ff"], s["dim"]), p + "linear1.bias": (s["ff"],)}
        out |= {p + "linear2.weight": (s["dim"], s["ff"]), p + "linear2.bias": (s["dim"],)}
        for norm in ("norm1", "norm2"):
            out |= {f"{p}{norm}.weight": (s["dim"],), f"{p}{norm}.bias": (s["dim"],)}
    out |= {"encoder.norm.weight": (s["dim"],), "encoder.norm.bias": (s["dim"],)}
    out |= {"decoder_embed.weight": (s["dec"], s["dim"]), "decoder_embed.bias": (s["dec"],)}
    out |= {"decoder.performer.calls_since_last_redraw": ()}
    for i in range(s["dec_depth"]):
        p = f"decoder.performer.net.layers.{i}."
        out |= {f"{p}0.fn.fast_attention.projection_matrix": (s["features"], s["dec_head"])}
        for part in ("q", "k", "v", "out"):
            out |= {f"{p}0.fn.to_{part}.weight": (s["dec"], s["dec"]), f"{p}0.fn.to_{part}.bias": (s["dec"],)}
        out |= {f"{p}1.fn.fn.w1.weight": (4 * s["dec"], s["dec"]), f"{p}1.fn.fn.w1.bias": (4 * s["dec"],)}
        out |= {f"{p}1.fn.fn.w2.weight": (s["dec"], 4 * s["dec"]), f"{p}1.fn.fn.w2.bias": (s["dec"],)}
        for norm in ("0.norm", "1.norm"):
            out |= {f"{p}{norm}.weight": (s["dec"],), f"{p}{norm}.bias": (s["dec"],)}
    for norm in ("decoder.norm", "norm"):
        out |= {f"{norm}.weight": (s["dec"],), f"{norm}.bias": (s["dec"],)}
    return out | {"to_final.weight": (1, s["dec"]), "to_final.bias": (1,)}


def make_state(s: dict) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes(s).items():
        if name.endswith("calls_since_last_redraw"):
            state[name] = torch.tensor(7)
            continue
        tensor = torch.empty(shape).uniform_(-1, 1, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor = 1 + 0.1 * tensor
        elif not (name.startswith("token_emb") or "projection" in name):
            tensor *= 1.5 / math.sqrt(shape[-1])
        state[name] = tensor
    return state


def make_file(path, s=SMALL, *, state=None, versions=("cell",), config=None):
    state = make_state(s) if state is None else state
    settings = {"encoder": {"heads": s["heads"], "hidden_dim": s["dim"]}, "bin_alpha": 1.0, "bin_num": s["bins"]}
    config = {"model": "mae_autobin", "model_config": {"mae_autobin": settings}} if config is None else config
    part = {"config": config, "state_dict": {f"model.{k}": v for k, v in state.items()}}
    torch.save(dict.fromkeys(versions, part), path)
    return state


def make_data(s=SMALL, n_cells=6, *, density=0.3, genes=None):
    rng = np.random.default_rng(0)
    names = [f"GENE{i}" for i in range(s["n_genes"])] if genes is None else genes
    x = rng.poisson(3, (n_cells, len(names))) * (rng.random((n_cells, len(names))) < density)
    x[:, 0] += 1
    obs = pd.DataFrame({"donor": [f"d{i % 2}" for i in range(n_cells)]}, index=[f"c{i}" for i in range(n_cells)])
    adata = ad.AnnData(sp.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))
    sst.SelfGuidedMAE.setup_anndata(adata, "donor")
    return adata


def names_of(s):
    return [f"GENE{i}" for i in range(s["n_genes"])]


# ---- the published forward pass, one cell at a time, written from its description


def layer_norm(x, state, name):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def embed_values(v, state):
    h = F.leaky_relu(v[:, None] @ state["token_emb.mlp.weight"].T + state["token_emb.mlp.bias"], 0.1)
    weight = (h * 1.0 + linear(h, state, "token_emb.mlp2")).softmax(-1)
    return weight @ state["token_emb.emb.weight"]


def transcribed_encoder(values, positions, state, s):
    x = embed_values(values, state) + state["pos_emb.weight"][positions]
    d = s["dim"] // s["heads"]
    for i in range(s["depth"]):
        p = f"encoder.transformer_encoder.{i}."
        q, k, v = (x @ state[p + "self_attn.in_proj_weight"].T + state[p + "self_attn.in_proj_bias"]).chunk(3, 1)
        heads = [
            (q[:, h : h + d] @ k[:, h : h + d].T / math.sqrt(d)).softmax(1) @ v[:, h : h + d]
            for h in range(0, s["dim"], d)
        ]
        attended = linear(torch.cat(heads, 1), state, p + "self_attn.out_proj")
        x = layer_norm(x + attended, state, p + "norm1")
        x = layer_norm(x + linear(F.relu(linear(x, state, p + "linear1")), state, p + "linear2"), state, p + "norm2")
    return layer_norm(x, state, "encoder.norm")


def transcribed_decoder(x, state, s):
    x = linear(x, state, "decoder_embed")
    d = s["dec_head"]
    for i in range(s["dec_depth"]):
        p = f"decoder.performer.net.layers.{i}."
        y = layer_norm(x, state, p + "0.norm")
        q, k, v = (linear(y, state, f"{p}0.fn.to_{part}") for part in "qkv")
        w = state[p + "0.fn.fast_attention.projection_matrix"]
        scale = d**-0.25
        q, k, v = (z.view(len(y), -1, d).transpose(0, 1) for z in (q, k, v))
        dash_q, dash_k = (scale * q) @ w.T, (scale * k) @ w.T
        half_q, half_k = ((z.square().sum(-1, keepdim=True) / 2) * scale**2 for z in (q, k))
        m = len(w) ** -0.5
        phi_q = m * (torch.exp(dash_q - half_q - dash_q.amax(-1, keepdim=True)) + 1e-4)
        phi_k = m * (torch.exp(dash_k - half_k - dash_k.max()) + 1e-4)
        out = phi_q @ (phi_k.transpose(1, 2) @ v) / (phi_q @ phi_k.sum(1)[:, :, None])
        x = x + linear(out.transpose(0, 1).flatten(1), state, p + "0.fn.to_out")
        y = layer_norm(x, state, p + "1.norm")
        x = x + linear(F.gelu(linear(y, state, p + "1.fn.fn.w1")), state, p + "1.fn.fn.w2")
    return linear(layer_norm(layer_norm(x, state, "decoder.norm"), state, "norm"), state, "to_final")[:, 0]


def prepared(counts):
    """Values of all genes, then target depth (1e4) and own depth, as log10."""
    total = counts.sum()
    return torch.cat([torch.log1p(counts / total * 1e4), torch.tensor([4.0, float(total.log10())])])


def assert_forward(path, s, state, *, n_cells, n_decoded=None):
    adata = make_data(s, n_cells, density=min(0.3, 300 / s["n_genes"]))
    model = sst.SelfGuidedMAE.from_scfoundation(path, adata=adata, genes=names_of(s), accept_license=True)
    # cell embeddings
    got = model.get_cell_representation().to_numpy()
    counts = torch.from_numpy(adata.X.toarray())
    assert got.shape == (n_cells, 4 * s["dim"])
    for c in range(n_cells):
        values = prepared(counts[c])
        positions = torch.nonzero(values > 0)[:, 0]
        x = transcribed_encoder(values[positions], positions, state, s)
        want = torch.cat([x[-1], x[-2], x[:-2].amax(0), x[:-2].mean(0)])
        np.testing.assert_allclose(got[c], want, atol=1e-4)
    # values of hidden genes
    module = model.module
    dataset = model._dataset(adata)
    n_decoded = n_cells if n_decoded is None else n_decoded
    batch = dataset.cells(np.arange(n_decoded))
    with torch.no_grad():
        tokens = module.tokens(batch)
        embedded = module.encoder.embed(tokens)
        hidden = module.hide(tokens, embedded, batch.seed)
        predicted, _ = module.predict_hidden(tokens, embedded, hidden, depth=module.depth_tokens(batch))
    assert predicted[hidden.is_real].std() > 1e-3  # not all alike
    for c in range(n_decoded):
        values = prepared(counts[c])
        is_hidden = torch.zeros(len(values), dtype=torch.bool)
        genes = hidden.gene[c][hidden.is_real[c]]
        is_hidden[genes] = True
        positions = torch.nonzero((values > 0) & ~is_hidden)[:, 0]
        full = embed_values(values, state)
        full[is_hidden] = state["token_emb.emb_mask.weight"][0]
        full[positions] = transcribed_encoder(values[positions], positions, state, s)
        want = transcribed_decoder(full + state["pos_emb.weight"][: len(values)], state, s)
        np.testing.assert_allclose(predicted[c][hidden.is_real[c]], want[genes], atol=1e-4)
    return model


@torch.no_grad()
def test_forward_of_a_small_checkpoint(tmp_path):
    state = make_file(tmp_path / "models.ckpt")
    model = assert_forward(tmp_path / "models.ckpt", SMALL, state, n_cells=6)
    assert model.checkpoint_["n_matched"] == 30
    assert model.checkpoint_["share_of_genes"] == 1.0
    own = dict(model.module.named_parameters())
    new = {id(p) for p in model.module.new_parameters()}
    assert all(("latents" in name) == (id(p) in new) for name, p in own.items())


def test_the_layout_has_the_published_size():
    published = shapes(PUBLISHED)
    n_buffers = sum(math.prod(v) for k, v in published.items() if "projection_matrix" in k or "calls_since" in k)
    assert len(published) == 265
    assert sum(map(math.prod, published.values())) - n_buffers == 119_252_285


@pytest.mark.slow
@torch.no_grad()
def test_forward_of_a_checkpoint_of_the_published_shape(tmp_path):
    state = make_file(tmp_path / "models.ckpt", PUBLISHED)
    assert_forward(tmp_path / "models.ckpt", PUBLISHED, state, n_cells=2, n_decoded=1)


def test_pretraining_goes_on_with_two_learning_rates(tmp_path):
    make_file(tmp_path / "models.ckpt")
    adata = make_data(n_cells=8)
    arguments = {"adata": adata, "genes": names_of(SMALL), "accept_license": True, "n_latents": 4, "n_latent_hidden": 8}
    model = sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", **arguments)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "train_size": 1.0}
    model.train(1, learning_rate_monitor=True, **quiet)
    rates = {float(v.iloc[-1, 0]) for k, v in model.history.items() if k.startswith("lr-")}
    assert rates == {1e-4, 1e-5}
    moved = {k for k, v in model.module.state_dict().items() if not torch.equal(v, before[k])}
    assert "encoder.latents.adapter.2.weight" in moved
    assert "encoder.layers.0.linear1.weight" in moved
    # saved and loaded without the checkpoint
    model.save(tmp_path / "model")
    loaded = sst.SelfGuidedMAE.load(tmp_path / "model", adata=adata)
    pd.testing.assert_frame_equal(loaded.get_cell_representation(), model.get_cell_representation())
    assert loaded.checkpoint_ == model.checkpoint_


def test_masks_are_guided_from_the_first_step_on_pretrained_embeddings(tmp_path):
    """Whose size, and a direction that all genes share, say nothing about which genes are worth hiding."""
    state = make_state(SMALL)
    state["pos_emb.weight"] = 0.01 * state["pos_emb.weight"] + 5  # all nearly the same
    make_file(tmp_path / "models.ckpt", state=state)
    model = sst.SelfGuidedMAE.from_scfoundation(
        tmp_path / "models.ckpt", adata=make_data(n_cells=40), genes=names_of(SMALL), accept_license=True
    )
    module, batch = model.module, model._dataset(model.adata).cells(np.arange(40))
    assert module.mask_candidates == "all"  # as in the paper
    with torch.no_grad():
        tokens = module.tokens(batch)
        importance = module.importance(tokens, module.encoder.embed(tokens), batch.seed)
    of_cell = torch.cat(importance, 1)
    of_cell = of_cell[:, (of_cell > 0).any(0)]
    spread = torch.stack([w[w > 0].std() / w[w > 0].mean() for w in of_cell])
    assert 0.15 < float(spread.mean()) < 1.5  # neither even nor one gene alone


@pytest.mark.parametrize(("arguments", "rates"), [({}, {1e-4, 1e-5}), ({"lr": 1e-3, "lr_backbone": 1e-3}, {1e-3})])
def test_fine_tuning_has_the_rates_of_the_paper(tmp_path, monkeypatch, arguments, rates):
    make_file(tmp_path / "models.ckpt")
    adata = make_data(n_cells=12)
    adata.obs["type"] = [["A", "B"][i // 2 % 2] for i in range(12)]
    build = {"adata": adata, "genes": names_of(SMALL), "accept_license": True, "n_latents": 4, "n_latent_hidden": 8}
    model = sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", **build)
    seen = set()
    configure = TwoRatePlan.configure_optimizers

    def watched(self):
        optimizer = configure(self)
        seen.update(group["lr"] for group in optimizer.param_groups)
        return optimizer

    monkeypatch.setattr(TwoRatePlan, "configure_optimizers", watched)
    tune = {"max_epochs": 1, "train_size": 1.0, "accelerator": "cpu", "enable_progress_bar": False}
    model.finetune("type", level="cell", mode="partial", **tune, **arguments)
    assert seen == rates


def test_genes_without_a_match(tmp_path):
    make_file(tmp_path / "models.ckpt")
    load = {"genes": names_of(SMALL), "accept_license": True}
    part = ["MINE", *names_of(SMALL)[:20][::-1]]
    adata = make_data(genes=part)
    x = adata.X.toarray()
    x[:, 5] = 2
    adata.X = sp.csr_matrix(x)
    model = sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", adata=adata, **load)
    assert model.checkpoint_["unmatched_features"] == ["MINE"]
    assert model.checkpoint_["share_of_genes"] == 20 / 30
    whole = make_data()
    whole.X = sp.csr_matrix(np.hstack([x[:, :0:-1], np.zeros((6, 10))]).astype(np.float32))
    sst.SelfGuidedMAE.setup_anndata(whole, "donor")
    other = sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", adata=whole, **load)
    np.testing.assert_allclose(model.get_cell_representation(), other.get_cell_representation(), atol=1e-5)
    few = make_data(genes=[*(f"X{i}" for i in range(9)), "GENE3", "GENE4"])
    few.X = sp.csr_matrix(np.ones(few.shape, np.float32))
    with pytest.warns(UserWarning, match="Only 2 of 11 features are genes of the checkpoint"):
        sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", adata=few, **load)
    with pytest.raises(ValueError, match=r"None of the 3 features .*Are both symbols"):
        sst.SelfGuidedMAE.from_scfoundation(tmp_path / "models.ckpt", adata=make_data(genes=["a", "b", "c"]), **load)


class Evil:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_files_that_are_no_such_checkpoint(tmp_path, capsys):
    adata, path = make_data(), tmp_path / "models.ckpt"

    def load(version="cell", **kwargs):
        arguments = {"adata": adata, "genes": names_of(SMALL), "accept_license": True}
        return sst.SelfGuidedMAE.from_scfoundation(path, version, **{**arguments, **kwargs})

    with pytest.raises(FileNotFoundError, match="There is no file"):
        load()
    with pytest.raises(ValueError, match="for research only"):
        load(accept_license=False)
    make_file(path, versions=("rde", "gene"))
    with pytest.raises(ValueError, match="version='bulk' is not one of"):
        load("bulk")
    with pytest.raises(KeyError, match=r"has no version 'ce': it holds \['rde', 'gene'\]"):
        load("ce")
    assert load("rde").checkpoint_["version"] == "rde"
    torch.save({"cell": {"config": {}, "state_dict": {}, "more": Evil()}}, path)
    with pytest.raises(ValueError, match="was not unpickled, because that runs whatever code"):
        load()
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="was not unpickled"):
        load()
    assert "this code ran" not in capsys.readouterr().out
    torch.save({"cell": {"weights": {}}}, path)
    with pytest.raises(ValueError, match="no 'config' and 'state_dict'"):
        load()


def test_tensors_that_do_not_fit(tmp_path):
    adata, path = make_data(), tmp_path / "models.ckpt"

    def load(**kwargs):
        arguments = {"adata": adata, "genes": names_of(SMALL), "accept_license": True}
        return sst.SelfGuidedMAE.from_scfoundation(path, **{**arguments, **kwargs})

    state = make_state(SMALL)
    make_file(path, state={k: v for k, v in state.items() if "norm2" not in k})
    with pytest.raises(ValueError, match=r"lacks 4 of \d+ tensors: \['encoder.layers.0.norm2.weight'"):
        load()
    make_file(path, state={k: v for k, v in state.items() if "linear1" not in k})
    with pytest.raises(ValueError, match="lacks 1 tensors that tell its sizes"):
        load()
    make_file(path, state={**state, "flash.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"1 tensors are none of scFoundation's: \['model.flash.weight'\]"):
        load()
    make_file(path, state={**state, "to_final.weight": torch.ones(1, 5)})
    with pytest.raises(ValueError, match=r"1 tensors of the checkpoint do not fit.*decoder.to_value.weight \(1, 5\)"):
        load()
    make_file(path, config={"model": "mae_autobin"})
    with pytest.raises(ValueError, match=r"no model_config.mae_autobin.encoder.heads"):
        load()
    make_file(path)
    with pytest.raises(ValueError, match="genes has 29 names, but the checkpoint has embeddings of 30 genes"):
        load(genes=names_of(SMALL)[:-1])
    with pytest.raises(ValueError, match=r"\['n_hidden'\] are read from the checkpoint"):
        load(n_hidden=4)
    pd.DataFrame({"gene_name": names_of(SMALL), "index": range(30)}).to_csv(
        tmp_path / "genes.tsv", sep="\t", index=False
    )
    assert load(genes=tmp_path / "genes.tsv").checkpoint_["n_matched"] == 30
    pd.DataFrame({"symbol": ["a"]}).to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    with pytest.raises(ValueError, match="has no column 'gene_name', but"):
        load(genes=tmp_path / "genes.tsv")
