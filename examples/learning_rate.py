"""The learning rate, on J(w) = w^2 from w = 0.7: w_k = (1 - 2 alpha)^k w_0.

Give the name of an image as an argument to draw it: python examples/learning_rate.py descent.png
"""

import sys

import numpy as np

import fastrna

RATES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.01)
STEPS = 20


def behaviour(alpha):
    """Say what the factor 1 - 2 alpha does when it is applied over and over."""
    factor = 1 - 2 * alpha
    if factor == 0:
        return "arrives in one step"
    if abs(factor) == 1:
        return "goes back and forth for ever"
    verb = "approaches 0" if abs(factor) < 1 else "runs away"
    return f"{verb}, {'from one side' if factor > 0 else 'jumping over it'}"


if __name__ == "__main__":
    print(" alpha      w_1      w_2      w_3     w_20   ")
    for alpha in RATES:
        w = fastrna.gradient_descent(
            lambda w: 2 * w, np.array([0.7]), fastrna.SGD(learning_rate=alpha), STEPS
        )[:, 0]
        assert np.allclose(w, 0.7 * (1 - 2 * alpha) ** np.arange(STEPS + 1))
        print(f"{alpha:>6}{w[1]:>9.4f}{w[2]:>9.4f}{w[3]:>9.4f}{w[20]:>9.4f}   {behaviour(alpha)}")
    if len(sys.argv) > 1:
        from fastrna.plotting import plot_descent

        plot_descent(RATES, steps=STEPS).savefig(sys.argv[1])
        print(f"drawn to {sys.argv[1]}")
