"""Batch, mini-batch and stochastic descent: the same epochs, very different numbers of steps.

An epoch sees every example once. Batch descent takes one step from the exact gradient,
stochastic descent m steps from the gradients of single examples, mini-batches lie between.
"""

import time

import fastrna
from fastrna.datasets import load_digits, split

EPOCHS = 20

if __name__ == "__main__":
    X_train, y_train, X_test, y_test = split(*load_digits(), seed=0)
    m = len(X_train)
    print("method        batch  steps/epoch   cost  held-out   ms/epoch")
    for method, batch_size, learning_rate in (
        ("batch", None, 0.5),
        ("mini-batch", 128, 0.3),
        ("mini-batch", 32, 0.1),
        ("stochastic", 1, 0.01),
    ):
        net = fastrna.Network([64, 100, 10], hidden="relu", output="softmax", seed=0)
        start = time.perf_counter()
        history = fastrna.train(
            net,
            X_train / 16,
            y_train,
            optimizer=fastrna.SGD(learning_rate=learning_rate),
            batch_size=batch_size,
            epochs=EPOCHS,
            seed=0,
        )
        seconds = time.perf_counter() - start
        accuracy = (net.predict(X_test / 16).argmax(axis=1) == y_test).mean()
        steps = -(-m // (batch_size or m))
        print(
            f"{method:<12}{batch_size or m:>7}{steps:>13}{history.cost[-1]:>7.3f}"
            f"{accuracy:>10.1%}{seconds / EPOCHS * 1e3:>11.2f}"
        )
