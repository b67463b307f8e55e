"""The faces fastrna shows to scikit-learn: its two multilayer perceptrons, many times faster.

`MLPClassifier` and `MLPRegressor` take the constructor, the methods, the attributes and the
behaviour of their namesakes in ``sklearn.neural_network``; `from_sklearn` takes over a model
already fitted there. What is matched, what is not and what is added is in
``docs/scikit-learn.md``.

``_base`` holds the parameters, the validation and the prediction, ``_solvers`` the two ways of
training, ``_monitoring`` what looks on while it happens, ``_classifier`` and ``_regressor`` what
sets the two apart, ``_conversion`` the way in from scikit-learn.

``import fastrna`` does not come here: scikit-learn is an extra, and it is slow to import.
"""

from fastrna.extras import require

require("sklearn", "sklearn", "MLPClassifier, MLPRegressor and from_sklearn need scikit-learn")

from ._classifier import MLPClassifier  # noqa: E402
from ._conversion import from_sklearn  # noqa: E402
from ._regressor import MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
