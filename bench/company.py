"""How training fares beside other work that wants the processors: what disbanding teams bring.

::

    python bench/company.py

Two situations, each printed with the time of an epoch alone, beside it and after it:

- a callback multiplies two matrices by NumPy after every epoch, so that a BLAS has threads of its
  own, which spin for a while;
- as many other processes as there are processors are busy for a second of a long call.

No other program should be running. Nothing here is compared with peers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np

import fastrna

BUSY = """
import time
print(flush=True)
time.sleep({wait})
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    pass
"""


def epochs_with(callbacks: list, epochs: int) -> tuple[float, float]:
    """Seconds of all epochs of 64-100-10 on the digits, and of the whole call."""
    X, y = fastrna.datasets.load_digits()
    net = fastrna.Network([64, 100, 10], output="softmax", seed=0)
    optimizer = fastrna.SGD(0.1, momentum=0.9)
    began = time.perf_counter()
    history = fastrna.train(
        net, X / 16, y, optimizer=optimizer, epochs=epochs, callbacks=callbacks, seed=0
    )
    return float(history.seconds.sum()), time.perf_counter() - began


def callback(epochs: int = 300) -> None:
    """Print what a callback with a matrix product costs the epochs between its calls."""
    A = np.random.default_rng(0).random((200, 200))
    product = np.empty_like(A)

    def multiply(*_) -> None:
        np.matmul(A, A, out=product)

    alone, _ = epochs_with([], epochs)
    beside, whole = epochs_with([multiply], epochs)
    print(f"64-100-10, {epochs} epochs: {alone:.2f} s alone; {beside:.2f} s with a callback that")
    print(f"multiplies by NumPy, {whole:.2f} s with the callback itself")


def busy_processes(seconds: float = 1.0, wait: float = 2.0) -> None:
    """Print the epochs of one long call, during which all processors are wanted for a while."""
    rng = np.random.default_rng(0)
    net = fastrna.Network([784, 128, 10], output="softmax", seed=0)
    X, y = rng.normal(size=(2000, 784)).astype(np.float32), rng.integers(10, size=2000)
    trainer = fastrna.Trainer(net, batch_size=128)
    per_second = 50 / trainer.run(X, y, 100).seconds[50:].sum()
    code = BUSY.format(wait=wait, seconds=seconds)
    others = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        for _ in range(os.cpu_count() or 1)
    ]
    for other in others:
        other.stdout.readline()
    history = trainer.run(X, y, int(per_second * (wait + 3 * seconds)))
    for other in others:
        other.communicate()
    times = 1e3 * history.seconds
    ends = np.cumsum(history.seconds)
    parts = {
        "before": times[ends < wait - 0.2],
        "beside": times[(ends > wait + 0.2) & (ends < wait + seconds - 0.2)],
        "after": times[ends > wait + seconds + 0.5],
    }
    words = ", ".join(f"{np.median(part):.2f} ms {name}" for name, part in parts.items())
    print(f"784-128-10, 2,000 examples, {len(others)} busy processes: an epoch takes {words}")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    callback()
    busy_processes()
