"""XOR needs a hidden layer: no line separates (0, 1) and (1, 0) from (0, 0) and (1, 1)."""

import fastrna
from fastrna.datasets import load_gates


def accuracy(net, X, y):
    """Return the share of examples on the right side of one half."""
    return ((net.predict(X)[:, 0] >= 0.5) == y).mean()


if __name__ == "__main__":
    X, y = load_gates("xor")

    perceptron = fastrna.Network([2, 1], output="step", seed=0)
    history = fastrna.train(perceptron, X, y, batch_size=1, epochs=1000, target_cost=0.0, seed=0)
    print(f"perceptron:  {accuracy(perceptron, X, y):.0%} right after {history.n_epochs} epochs")

    net = fastrna.Network([2, 4, 1], hidden="tanh", output="sigmoid", seed=0)
    history = fastrna.train(
        net,
        X,
        y,
        optimizer=fastrna.SGD(learning_rate=0.5, momentum=0.9),
        batch_size=None,
        epochs=5000,
        target_cost=0.01,
    )
    print(f"2-4-1 net:   {accuracy(net, X, y):.0%} right after {history.n_epochs} epochs")
    for x, target in zip(X, y, strict=True):
        print(f"    {x} -> {net.predict_one(x)[0]:.3f}  (target {target})")
