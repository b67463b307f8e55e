"""Why inputs are scaled: two features in very different units, with and without.

The first feature is a pressure around 100,000 Pa and the second a fraction around 0.5. Unscaled,
the pressure alone decides every weighted sum, saturates tanh, and leaves no gradient.
"""

import numpy as np

import fastrna


def make_data(m=400, seed=0):
    """Points inside or outside an ellipse, in units that differ by a factor of 100,000."""
    rng = np.random.default_rng(seed)
    pressure = rng.normal(101_325, 2_000, m)
    fraction = rng.uniform(0, 1, m)
    y = ((pressure - 101_325) / 2_500) ** 2 + ((fraction - 0.5) / 0.35) ** 2 < 1
    return np.column_stack([pressure, fraction]), y.astype(np.int64)


if __name__ == "__main__":
    X, y = make_data()
    X_new, y_new = make_data(seed=1)
    print("inputs     cost    accuracy on new points")
    for kind in (None, "minmax", "max", "mean", "zscore"):
        net = fastrna.Network([2, 16, 1], hidden="tanh", output="sigmoid", seed=0)
        if kind is not None:
            # The network carries the scaler, so that it takes raw units from here on.
            net.scaler = fastrna.Scaler(kind).fit(X)
        history = fastrna.train(
            net, X, y, optimizer=fastrna.SGD(0.1, momentum=0.9), epochs=300, seed=0
        )
        accuracy = ((net.predict(X_new)[:, 0] >= 0.5) == y_new).mean()
        print(f"{kind or 'as is':<8}{history.cost[-1]:>7.3f}{accuracy:>10.1%}")
