"""Fixtures of `pytest bench/`: two implementations in one group, arithmetic against the peak.

Install `fastrna[bench]` and run ``pytest bench/`` alone on the machine; it takes some minutes. In
each group of the table fastrna stands beside the NumPy reference, the number in brackets being
the ratio to the faster one. After it comes the fraction of the processor's multiply-add peak that
fastrna reached, also in `extra_info` of ``--benchmark-json FILE``.
"""

from __future__ import annotations

import pytest

import fastrna

IMPLEMENTATIONS = ("fastrna", "reference")
_fractions = pytest.StashKey[list]()


def pytest_configure(config):
    """Keep the whole run within minutes, unless the command line says otherwise."""
    config.stash[_fractions] = []
    if config.getoption("benchmark_max_time", None) == "1.0":
        config.option.benchmark_max_time = "0.2"


@pytest.fixture(scope="session")
def peak():
    """Measure flop/s of multiply-adds on registers, by dtype and number of threads."""
    known = {}

    def measure(dtype, n_threads=1):
        if (dtype, n_threads) not in known:
            known[dtype, n_threads] = fastrna.kernels.load(dtype).fma_peak(0.2, n_threads)
        return known[dtype, n_threads]

    return measure


@pytest.fixture
def compare(benchmark, request, peak):
    """Time `function(*arguments)` in a group; `flops` is the arithmetic of one call."""

    def run(group, function, *arguments, flops=None, dtype="float32", n_threads=1, rounds=None):
        benchmark.group = group
        if rounds:
            benchmark.pedantic(function, arguments, rounds=rounds, warmup_rounds=1)
        else:
            benchmark(function, *arguments)
        if flops and benchmark.stats:
            speed = flops / benchmark.stats.stats.median
            benchmark.extra_info["gflops"] = speed / 1e9
            benchmark.extra_info["fraction_of_peak"] = speed / peak(dtype, n_threads)
            if "reference" not in request.node.name:
                fraction = benchmark.extra_info["fraction_of_peak"]
                request.config.stash[_fractions].append((group, speed / 1e9, fraction))

    return run


def pytest_terminal_summary(terminalreporter, config):
    """Print the fractions of peak, which pytest-benchmark's table has no column for."""
    if config.stash[_fractions]:
        terminalreporter.section("fastrna: fraction of the multiply-add peak")
        for group, gflops, fraction in config.stash[_fractions]:
            terminalreporter.write_line(f"{group:<56}{gflops:9.1f} GFLOP/s{fraction:8.0%}")
