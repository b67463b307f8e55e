"""Momentum in a narrow valley, J(w) = (w_1^2 + 50 w_2^2) / 2.

Plain descent must keep alpha below 2 / 50 or it leaves the valley along w_2, and then creeps
along w_1. The velocity v = beta v - alpha dJ/dw adds up along w_1, where the gradient keeps its
sign, and cancels along w_2, where it alternates.
"""

import numpy as np

import fastrna

CURVATURE = np.array([1.0, 50.0])
START = np.array([10.0, 1.0])


def steps_needed(optimizer, tolerance=1e-3, limit=2000):
    """Count the steps until every weight stays within the tolerance of 0."""
    path = fastrna.gradient_descent(lambda w: CURVATURE * w, START, optimizer, limit)
    outside = np.flatnonzero(np.abs(path).max(axis=1) > tolerance)
    return outside[-1] + 1


if __name__ == "__main__":
    print("optimizer                        steps to within 0.001 of the minimum")
    for name, optimizer in (
        ("SGD", fastrna.SGD(learning_rate=0.02)),
        ("SGD, momentum 0.5", fastrna.SGD(learning_rate=0.02, momentum=0.5)),
        ("SGD, momentum 0.8", fastrna.SGD(learning_rate=0.02, momentum=0.8)),
        ("SGD, momentum 0.95", fastrna.SGD(learning_rate=0.02, momentum=0.95)),
        ("SGD, Nesterov 0.8", fastrna.SGD(learning_rate=0.02, momentum=0.8, nesterov=True)),
    ):
        print(f"{name:<33}{steps_needed(optimizer)}")
