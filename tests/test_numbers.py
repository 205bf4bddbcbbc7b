"""Every number among the arguments of public calls is looked at before anything else happens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import scset_tools as sst
from scset_tools._numbers import KINDS, check_numbers, is_numeric

MODELS = [sst.MAESTRO, sst.ScSet, sst.PaSCient, sst.SelfGuidedMAE]
ELSEWHERE = {
    "devices": "the trainer's",
    "steps": "the nearest ones are taken",
    "kept": "numbers or names of latents",
}
"""Numeric arguments that have no kind: why."""


def public() -> Iterator[tuple[str, Any, inspect.Signature]]:
    """Public functions, methods and constructors, but for those of results, which nobody calls."""
    for room in (sst.tl, sst.pp, sst.pl, sst.datasets):
        for name in room.__all__:
            member = getattr(room, name)
            owners = [(name, member)]
            if inspect.isclass(member):
                owners = [(f"{name}.{n}", m) for n, m in inspect.getmembers(member, inspect.isfunction) if n[0] != "_"]
            for label, function in owners:
                if callable(function):
                    yield f"{room.__name__.split('.')[-1]}.{label}", function, inspect.signature(function)
    yield "report", sst.report, inspect.signature(sst.report)
    for model in MODELS:
        yield model.__name__, model, inspect.signature(model)
        for name, method in inspect.getmembers(model, inspect.isroutine):
            if name[0] != "_" and getattr(method, "__module__", "").startswith("scset_tools"):
                yield f"{model.__name__}.{name}", method, inspect.signature(method)


CALLS = [
    (label, call, name, str(p.annotation))
    for label, call, signature in public()
    for name, p in signature.parameters.items()
    if is_numeric(p.annotation)
]
PROFILES = [
    (profile, name, str(p.annotation))
    for profile in (getattr(sst.profiles, n) for n in sst.profiles.__all__)
    if inspect.isclass(profile) and profile is not sst.profiles.Profile
    for name, p in inspect.signature(profile).parameters.items()
    if is_numeric(p.annotation)
]


def wrong(name: str, annotation: str) -> list[Any]:
    """Values that this argument may not have."""
    values: list[Any] = [float("nan"), True, object()]
    if "str" not in annotation:
        values.append("3")
    if KINDS[name].whole:
        values += [1.5, float("inf"), np.float32(2.5)]
    if not KINDS[name].holds(-1.0) or KINDS[name].low > -1:
        values.append(-1)
    if KINDS[name].low == 1 or not KINDS[name].holds(0.0):
        values.append(0)
    return values


def test_every_number_of_a_public_call_has_a_kind():
    names = {name for _, _, name, _ in CALLS} | {name for _, name, _ in PROFILES}
    assert sorted(names - set(KINDS) - set(ELSEWHERE)) == []
    assert sorted((set(KINDS) | set(ELSEWHERE)) - names) == []


@pytest.mark.parametrize(("label", "call", "name", "annotation"), CALLS, ids=[f"{c[0]}-{c[2]}" for c in CALLS])
def test_a_number_that_cannot_be_is_refused_by_name_before_all_else(label, call, name, annotation):
    """Without any other argument: nothing else is looked at, let alone computed."""
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    is_method = "." in label and "self" in inspect.signature(call).parameters
    for value in wrong(name, annotation):
        with pytest.raises((TypeError, ValueError), match=rf"^{name}=.* must be "):
            call(*([None] if is_method else []), **{name: value})


@pytest.mark.parametrize(("profile", "name", "annotation"), PROFILES)
def test_profiles_look_at_their_numbers_when_they_are_fitted(profile, name, annotation):
    for value in wrong(name, annotation):
        given = profile(
            **{p: "x" for p in inspect.signature(profile).parameters if p.endswith("_key")}, **{name: value}
        )
        with pytest.raises((TypeError, ValueError), match=rf"^{name}=.* must be "):
            given.fit(None)


def test_each_number_of_a_sequence_or_a_mapping_is_looked_at():
    with pytest.raises(ValueError, match=r"^n_samples\[1\]=0 must be a whole number of 1 or more"):
        sst.tl.power(None, n_samples=[8, 0])
    with pytest.raises(ValueError, match=r"^batch_weight\['chip'\]=-1.0 must be"):
        sst.ScSet(batch_weight={"chip": -1.0})
    with pytest.raises(TypeError, match="mask_rates"):
        sst.MAESTRO(mask_rates=0.5)


def test_numbers_of_numpy_and_what_is_no_number_by_right_pass():
    annotations = {"n_cells": "int | None", "rng": "np.random.Generator | int | None", "cofactor": "float | str | None"}
    for given in (
        {"n_cells": np.int32(3), "rng": np.random.default_rng(0), "cofactor": "own"},
        {"n_cells": None, "rng": np.uint8(0), "cofactor": np.float32(5)},
    ):
        check_numbers(annotations, given)
    with pytest.raises(TypeError, match=r"n_cells=\[3\] must be .* is of type list"):
        check_numbers(annotations, {"n_cells": [3]})


def test_a_call_that_python_refuses_keeps_its_message():
    with pytest.raises(TypeError, match=r"probe\(\) got an unexpected keyword argument 'n_fold'"):
        sst.tl.probe(None, "x", n_fold=3)
