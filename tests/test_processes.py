"""Training beside other threads, other processes and other libraries; from data larger than memory
is to be used for."""

import concurrent.futures
import importlib.util
import os
import platform
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

import fastrna
from fastrna import kernels

SIZES = [20, 64, 3]
OPTIONS = {"batch_size": 64, "epochs": 3, "seed": 0}


def problem(seed=0, m=600):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, SIZES[0])).astype(np.float32), rng.integers(SIZES[-1], size=m)


def trained(seed, **options):
    """Train a network of its own; return its parameters."""
    net = fastrna.Network(SIZES, output="softmax", seed=seed)
    fastrna.train(net, *problem(seed), **OPTIONS | options)
    return net.parameters


def test_python_threads_train_different_networks_at_once():
    alone = [trained(seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for n_threads in (1, 2):
            together = pool.map(lambda s, n=n_threads: trained(s, n_threads=n), range(6))
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one, other)


def test_python_threads_share_a_network_for_prediction_and_gradients():
    net = fastrna.Network(SIZES, output="softmax", seed=0)
    X, y = problem()
    expected = net.predict(X), net.loss_and_gradient(X, y)[1], net.predict_one(X[0])

    def work(_):
        for _ in range(20):
            found = net.predict(X), net.loss_and_gradient(X, y)[1], net.predict_one(X[0])
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


FORK = """
    import multiprocessing
    import numpy as np
    {before}
    import fastrna

    def parameters(n_threads):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(600, 20)), rng.integers(3, size=600)
        net = fastrna.Network([20, 64, 3], output="softmax", seed=0)
        fastrna.train(net, X, y, epochs=3, batch_size=64, seed=0, n_threads=n_threads)
        return net.parameters.tolist()

    if __name__ == "__main__":
        here = parameters(2)  # the threads exist before the fork
        with multiprocessing.get_context("{method}").Pool(2) as pool:
            assert pool.map(parameters, [None, 1, 2, 3]) == [here] * 4
        {after}
        assert parameters(2) == here
        print("the same")
"""


CYCLE = """
    import gc
    import numpy as np
    import fastrna

    gc.disable()
    for _ in range(20):
        trainer = fastrna.Trainer(fastrna.Network([64, 100, 10]), n_threads=2)
        trainer.run(np.ones((600, 64)), np.ones((600, 10)), 1)
        assert trainer.n_threads_used == 2
        twin = fastrna.Trainer.__new__(fastrna.Trainer)  # younger than the engine that it holds
        vars(twin).update(vars(trainer))
        twin.callbacks = [lambda *_, twin=twin: None]
        del trainer, twin
        gc.collect()
    print("collected")
"""


def run(code, tmp_path, environment=None, **places):
    """Run a script by itself; it must neither fail nor hang."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code).format(**places))
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_team_that_the_garbage_collector_frees(tmp_path):
    """With glibc told to overwrite what is freed, so that nobody reads it unnoticed."""
    assert "collected" in run(CYCLE, tmp_path, {"MALLOC_PERTURB_": "165"})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_train(tmp_path, method):
    if method == "fork" and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    assert "the same" in run(FORK, tmp_path, method=method, before="", after="")


@pytest.mark.parametrize(
    ("library", "work"),
    [
        ("torch", "import torch; torch.ones(300, 300) @ torch.ones(300, 300)"),
        (
            "sklearn",
            "from sklearn.cluster import KMeans; KMeans(3, n_init=1).fit(np.eye(500)[:, :9])",
        ),
    ],
)
def test_beside_another_library_with_threads_of_its_own(tmp_path, library, work):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    method = "spawn" if sys.platform == "win32" else "fork"
    assert "the same" in run(FORK, tmp_path, method=method, before=work, after=work)


def test_threadpoolctl_limits_the_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        assert kernels.thread_limit() == 1
        limited = trained(0)
    np.testing.assert_array_equal(limited, trained(0))


def test_the_quicker_team_is_chosen_and_the_other_tried_again():
    choice, seconds, picked = kernels.TeamChoice(), {1: 3.0, 2: 2.0}, []

    def calls(number):
        for _ in range(number):
            team = choice.pick(2)
            choice.note(team, seconds[team])
            picked.append(team)

    calls(20)
    assert picked.count(1) == 4  # once to begin with; then the 4th, the 8th, the 16th call
    choice.note(2, 100.0)  # one hiccup changes nothing
    picked.clear()
    calls(10)
    assert picked.count(2) >= 9
    seconds[2] = 50.0
    calls(50)
    assert picked[-5:] == [1] * 5
    seconds[2] = 1.0
    calls(100)
    assert picked[-1] == 2


@pytest.mark.parametrize("kind", ["uint8", "float64", "float32"])
def test_a_file_larger_than_the_workspace_is_never_read_whole(tmp_path, kind):
    m, n_x = 20_000, 100
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=kind, shape=(m, n_x))
    rng = np.random.default_rng(0)
    for first in range(0, m, 1000):
        X[first : first + 1000] = rng.integers(256, size=(1000, n_x))
    X.flush()
    y = rng.integers(3, size=m)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    net = fastrna.Network([n_x, 16, 3], output="softmax", seed=0)
    net.scaler = fastrna.Scaler("max").fit(X)
    trainer = fastrna.Trainer(net, batch_size=128, seed=0)
    tracemalloc.start()
    try:
        trainer.run(X, y, epochs=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    in_memory = fastrna.Network([n_x, 16, 3], output="softmax", seed=0)
    in_memory.scaler = net.scaler
    fastrna.train(in_memory, np.array(X), y, batch_size=128, seed=0, epochs=2)
    np.testing.assert_array_equal(in_memory.parameters, net.parameters)
    order_and_slack = 8 * m + 200_000
    assert peak < trainer.workspace_bytes + order_and_slack < X.nbytes


@pytest.mark.parametrize("n_threads", [1, 2])
def test_subnormal_numbers_are_flushed_in_the_engine_alone(n_threads):
    if platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64"):
        net = fastrna.Network([1, 1], init="zeros")
        slow = fastrna.SGD(learning_rate=1e-39)  # so is the step, and it counts as none
        fastrna.train(
            net, np.ones((8, 1)), np.ones(8), optimizer=slow, epochs=1, n_threads=n_threads
        )
        np.testing.assert_array_equal(net.parameters, 0)
    trained(0, n_threads=n_threads)
    fastrna.Network(SIZES, output="softmax").loss_and_gradient(*problem())
    smallest = np.array([np.finfo(np.float32).smallest_subnormal] * 64)
    assert (smallest * np.float32(1) > 0).all()


def test_the_workspace_is_bounded_whatever_the_batch():
    """Rows beyond 512 pass in chunks."""
    sizes = [30, 40, 50, 2]
    X, y = np.zeros((20_000, 30), np.float32), np.zeros((20_000, 2), np.float32)
    sizes_of = {}
    for batch_size in (600, 20_000):
        trainer = fastrna.Trainer(fastrna.Network(sizes), batch_size=batch_size)
        trainer.run(X, y, epochs=1)
        sizes_of[batch_size] = trainer.workspace_bytes
    assert sizes_of[600] == sizes_of[20_000]


BUSY = "import time; end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


def test_a_team_on_busy_processors_gives_the_same_bits():
    """Threads wait for one another wherever one could be late, and disband if it is too often."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 64)), rng.integers(10, size=400)
    deep = rng.normal(size=(600, 8)), rng.normal(size=(600, 1))
    many = rng.normal(size=(1300, 8))  # in three pieces, whose costs the first thread adds up

    def parameters(n_threads):
        net = fastrna.Network([64, 100, 10], output="softmax", seed=0)
        options = {"optimizer": fastrna.SGD(1e-4, momentum=0.9), "seed": 0, "n_threads": n_threads}
        fastrna.train(net, X, y, epochs=40, batch_size=1, **options)
        sliced = fastrna.Network([8, 64, 64, 1], hidden="tanh", seed=0)
        fastrna.train(sliced, *deep, epochs=300, batch_size=128, **options)
        wide = fastrna.Network([64, 400, 300, 10], output="softmax", seed=0)
        fastrna.train(wide, X, y, epochs=40, batch_size=200, **options)
        chunked = fastrna.Network([2, 200, 1], dtype="float64", seed=0)
        weighted = {"sample_weight": np.linspace(0.5, 2, len(many))}
        history = fastrna.train(
            chunked, many[:, :2], many[:, 7:], epochs=100, batch_size=None, **weighted, **options
        )
        return np.concatenate(
            [net.parameters, sliced.parameters, wide.parameters, chunked.parameters, history.cost]
        )

    alone = parameters(1)
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        for n_threads in (2, 3):
            np.testing.assert_array_equal(parameters(n_threads), alone)
    finally:
        for process in busy:
            process.kill()
            process.wait()
