"""The perceptron learns AND and OR: yhat = g(w . x + b), g a step, by Rosenblatt's rule.

    w <- w - alpha (yhat - y) x        b <- b - alpha (yhat - y)

Nothing changes on an example that is right, so the cost reaches 0 when the line w . x + b = 0
separates the two classes, and stays there.
"""

import fastrna
from fastrna.datasets import load_gates


def learn(gate, output):
    """Train one perceptron on a gate, one example at a time, and show its line."""
    X, y = load_gates(gate, bipolar=output == "sign")
    net = fastrna.Network([2, 1], output=output, seed=0)
    history = fastrna.train(
        net,
        X,
        y,
        optimizer=fastrna.SGD(learning_rate=0.1),
        batch_size=1,
        epochs=100,
        target_cost=0.0,
        seed=0,
    )
    (w_1,), (w_2,) = net.weights[0]
    (b,) = net.biases[0]
    print(f"{gate} with {output}: {w_1:+.2f} x1 {w_2:+.2f} x2 {b:+.2f} >= 0", end="")
    print(f", after {history.n_epochs} epochs ({history.stopped_by})")
    for x, target in zip(X, y, strict=True):
        print(f"    {x} -> {net.predict_one(x)[0]:+.0f}  (target {target:+d})")


if __name__ == "__main__":
    for gate in ("and", "or"):
        for output in ("step", "sign"):
            learn(gate, output)
