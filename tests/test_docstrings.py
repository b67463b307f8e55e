"""The examples in the docstrings of the Python modules run and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import fastrna

EXTRAS = {"fastrna.estimators": "sklearn.callback", "fastrna.lbfgs": "scipy"}


def modules():
    for module in pkgutil.walk_packages(fastrna.__path__, "fastrna."):
        if not module.name.startswith(("fastrna.kernels.", "fastrna.__main__")):
            yield module.name
    yield "fastrna"


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_of(name):
    for package, needed in EXTRAS.items():
        if name.startswith(package):
            pytest.importorskip(needed)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_names_have_examples():
    """All that is called has one; the estimators' and the modules' are elsewhere."""
    called = {name for name in fastrna.__all__ if callable(vars(fastrna).get(name))}
    assert {"Network", "Trainer", "train", "gradient_descent"} < called
    for name in called - {"DivergenceError"}:
        assert ">>>" in vars(fastrna)[name].__doc__, name
