"""Arguments of a constructor are recorded without any bookkeeping in the constructor."""

from __future__ import annotations

import pytest
from _cohort import make_cohort

import scset_tools as sst
from scset_tools.model._init_params import record_init_params

SMALL = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20}


def recorded(cls, *args, **kwargs):
    return cls(*args, **kwargs).init_params_


class Base:
    def __init__(self, adata=None, registry=None, *, width=1, depth=2):
        self.width, self.depth = width, depth


record_init_params(Base)


def test_arguments_and_defaults_are_recorded_without_the_data():
    assert recorded(Base, "data", width=5) == {"kwargs": {}, "non_kwargs": {"width": 5, "depth": 2}}
    assert recorded(Base, registry={}) == {"kwargs": {}, "non_kwargs": {"width": 1, "depth": 2}}


def test_the_outermost_constructor_counts():
    class Wide(Base):
        def __init__(self, adata=None, registry=None, scale=3, **rest):
            super().__init__(adata, registry, width=10 * scale, **rest)

    record_init_params(Wide)
    assert recorded(Wide, scale=2, depth=7) == {"kwargs": {"rest": {"depth": 7}}, "non_kwargs": {"scale": 2}}
    assert recorded(Wide) == {"kwargs": {"rest": {}}, "non_kwargs": {"scale": 3}}
    assert Wide(scale=4).width == 40


def test_what_a_constructor_does_to_its_arguments_is_not_recorded():
    class Reassigns(Base):
        def __init__(self, adata=None, registry=None, width=1):
            width = width * 100
            other = 5  # noqa: F841  (scvi-tools reads local variables)
            super().__init__(adata, registry, width=width)

    record_init_params(Reassigns)
    assert recorded(Reassigns, width=3) == {"kwargs": {}, "non_kwargs": {"width": 3}}


def test_a_constructor_that_failed_can_be_called_again():
    class Picky(Base):
        def __init__(self, adata=None, registry=None, width=1):
            super().__init__(adata, registry)
            if width < 0:
                msg = "negative"
                raise ValueError(msg)

    record_init_params(Picky)
    model = Picky.__new__(Picky)
    with pytest.raises(ValueError, match="negative"):
        model.__init__(width=-1)
    model.__init__(width=2)
    assert model.init_params_["non_kwargs"] == {"width": 2}


@pytest.mark.parametrize("name", ["pretrained_model", "unlabeled_category", "datamodule"])
def test_names_that_scvi_tools_drops_on_load_raise_where_the_class_is_made(name):
    namespace = {}
    exec(f"def __init__(self, adata=None, registry=None, *, {name}=None): pass", namespace)
    with pytest.raises(
        TypeError, match=rf"Bad.__init__ has arguments that scvi-tools drops .*\['{name}'\]. Rename them"
    ):
        type("Bad", (sst.MAESTRO,), {"__init__": namespace["__init__"]})


def test_positional_arguments_without_names_raise_where_the_class_is_made():
    with pytest.raises(TypeError, match=r"Bad.__init__ takes \*sizes, which scvi-tools cannot load. Name them"):

        class Bad(sst.MAESTRO):
            def __init__(self, adata=None, registry=None, *sizes):
                super().__init__(adata, registry)


class Halved(sst.MAESTRO):
    """A subclass as a user writes it, without a word about saving."""

    def __init__(self, adata=None, registry=None, *, width=16, **rest):
        super().__init__(adata, registry, n_hidden=width // 2, **rest)


def test_a_subclass_without_bookkeeping_is_saved_and_loaded(tmp_path):
    adata = make_cohort()
    Halved.setup_anndata(adata, "sample")
    rest = {k: v for k, v in SMALL.items() if k != "n_hidden"}
    model = Halved(adata, width=24, **rest)
    assert model.init_params_ == {"kwargs": {"rest": rest}, "non_kwargs": {"width": 24}}
    model.is_trained_ = True
    model.save(tmp_path / "m")
    loaded = Halved.load(tmp_path / "m", adata=adata)
    assert loaded.init_params_ == model.init_params_
    assert loaded.module.student.encoder.lift.weight.shape[0] == 12
    assert loaded.get_sample_representation().equals(model.get_sample_representation())
