"""Real handwritten digits: scale, train, stop in time, save, load, use."""

import os
import tempfile

import fastrna
from fastrna.datasets import load_digits, split
from fastrna.plotting import confusion_matrix

if __name__ == "__main__":
    X_train, y_train, X_test, y_test = split(*load_digits(), seed=0)

    net = fastrna.Network([64, 100, 10], hidden="relu", output="softmax", seed=0)
    net.scaler = fastrna.Scaler("minmax").fit(X_train)
    history = fastrna.train(
        net,
        X_train,
        y_train,
        optimizer=fastrna.SGD(learning_rate=0.1, momentum=0.9),
        batch_size=32,
        epochs=200,
        validation=0.2,
        patience=20,
        seed=0,
        progress=True,
    )
    print(f"stopped by {history.stopped_by} after {history.n_epochs} epochs")
    print(
        f"cost {history.cost[-1]:.4f}, lowest validation cost {history.validation_cost.min():.4f}"
    )

    outputs = net.predict(X_test)
    print(f"held-out accuracy {(outputs.argmax(axis=1) == y_test).mean():.2%}")
    print("rows: true digit, columns: predicted")
    print(confusion_matrix(y_test, outputs))

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "digits.npz")
        net.save(path)
        loaded = fastrna.Network.load(path)
        print(f"{os.path.getsize(path):,} bytes saved, scaler included")
    image = X_test[0]
    print(f"one image of a {y_test[0]}: {loaded.predict_one(image).round(3)}")
