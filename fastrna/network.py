"""Network: layer sizes, activations, and the parameters as one flat array and its views."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrna import kernels
from fastrna import validation as check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from fastrna.scaling import Scaler

#: What NumPy takes for an array, or a SciPy sparse matrix, for which there is no type.
Inputs: TypeAlias = Any
#: A name, or a name and its parameter, as ("elu", 1.0).
Specification: TypeAlias = "str | tuple[str, float | None]"
Path: TypeAlias = "str | os.PathLike[str]"

_MANY_ROWS = 8192  # of which how many more there are changes nothing about the workspace
_SPARE = 16  # numbers past the parameters: kernels load whole vectors

_INITIALISATIONS = ("auto", "glorot", "he", "zeros")
_RECTIFIERS = ("relu", "leaky_relu", "elu", "softplus", "gelu", "silu")


class Network:
    """A multilayer perceptron.

    Layer l computes ``Z_l = A_{l-1} W_l + b_l`` and ``A_l = g_l(Z_l)``, from ``A_0 = X``.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers, input first: at least two.
    hidden : activation or list of activations, default "relu"
        Activation of the hidden layers, one for all or one for each. An activation is a name or a
        pair (name, parameter), as ("leaky_relu", 0.01) or ("elu", 1.0). Names: "step", "sign",
        "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "gelu", "silu",
        "exp".
    output : activation, default "identity"
        Activation of the output layer: one of those, or "softmax".
    dtype : {"float32", "float64"}, default "float32"
        Type of the parameters and of all arithmetic.
    seed : int or None, default None
        Seed of the initial weights; None draws fresh ones.
    init : {"auto", "glorot", "he", "zeros"}, default "auto"
        Initial weights, uniform in [-r, r] with r = sqrt(6 / (n_in + n_out)) for "glorot" (Glorot
        and Bengio, 2010) and r = sqrt(6 / n_in) for "he" (He et al., 2015); "auto" takes "he" for
        layers with a rectifier, "glorot" for the others. Biases start at 0.

    Attributes
    ----------
    sizes : list of int
    activations : list of (str, float or None)
        Name and parameter of each layer's activation.
    dtype : numpy.dtype
    parameters : ndarray (n_parameters,)
        All parameters, one contiguous array: W_1, b_1, W_2, b_2, ... Write into it to change them.
    weights, biases : list of ndarray
        Views of `parameters`: W_l (n_in, n_out) and b_l (n_out,).
    n_parameters : int
    scaler : Scaler or None
        If set, it scales the inputs of every method: the network takes raw units.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> import fastrna
    >>> net = fastrna.Network([64, 100, 10], hidden="relu", output="softmax", seed=0)
    >>> net.n_parameters
    7510
    """

    def __init__(
        self,
        sizes: Sequence[int],
        hidden: Specification | Sequence[Specification] = "relu",
        output: Specification = "identity",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        init: str = "auto",
    ):
        self._sizes = check.layer_sizes(sizes)
        self._activations = check.layer_activations(hidden, output, len(self._sizes) - 2)
        self._dtype = check.float_type(dtype)
        check.known(init, "init", _INITIALISATIONS)
        if seed is not None:
            seed = check.integer(seed, "seed", 0)
        self._allocate()
        if init != "zeros":
            self._initialise(np.random.default_rng(seed), init)
        self._scaler = None

    def _allocate(self):
        """Lay out the flat parameters, their views, and the predictor over them."""
        pairs = list(zip(self._sizes[:-1], self._sizes[1:], strict=True))
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairs)
        self._buffer = np.zeros(n_parameters + _SPARE, self.dtype)
        self._parameters = self._buffer[:n_parameters]
        self._weights, self._biases = [], []
        at = 0
        for n_in, n_out in pairs:
            end = at + n_in * n_out
            self._weights.append(self._parameters[at:end].reshape(n_in, n_out))
            self._biases.append(self._parameters[end : end + n_out])
            at = end + n_out
        self._kernel = kernels.load(self.dtype)
        self._specifications = [(name, parameter or 0.0) for name, parameter in self._activations]
        self._predictor = self._kernel.Predictor(self._sizes, self._specifications, self._buffer)
        self._engines = {}
        output = self._activations[-1][0]
        self._narrow_rows = self._kernel.most_narrow_rows(self._sizes)
        # What "auto" means, if targets need not be looked through for it.
        matched = check.cost("auto", output)
        self._quick_loss = None if matched[0] in check.LOSSES_OF_SOME else matched
        self._team_choice = kernels.TeamChoice()
        self._checked = (None, None), None  # of the scaler, and what was made of it
        self._row = self._predictor.predict_one

    def _initialise(self, rng, init):
        for weights, (name, _) in zip(self._weights, self._activations, strict=True):
            n_in, n_out = weights.shape
            he = init == "he" or (init == "auto" and name in _RECTIFIERS)
            limit = np.sqrt(6.0 / (n_in if he else n_in + n_out))
            weights[:] = rng.uniform(-limit, limit, size=weights.shape)

    @property
    def sizes(self) -> list[int]:
        """Widths of the layers, input first."""
        return list(self._sizes)

    @property
    def activations(self) -> list[tuple[str, float | None]]:
        """Name and parameter of each layer's activation."""
        return list(self._activations)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the parameters and of all arithmetic; `copy` makes a network of the other."""
        return self._dtype

    @property
    def n_parameters(self) -> int:
        """How many parameters there are."""
        return self._parameters.size

    @property
    def scaler(self) -> Scaler | None:
        """What scales the inputs of every method, or None."""
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: Scaler | None) -> None:
        """Carry a fitted scaler of as many columns as there are inputs, or None."""
        check.scaler(scaler, self._sizes[0])
        self._scaler = scaler

    @property
    def parameters(self) -> NDArray[Any]:
        """All parameters, flat (n_parameters,): W_1, b_1, W_2, b_2, ...; the network's own storage.

        Assigning copies the values in.
        """
        return self._parameters

    @parameters.setter
    def parameters(self, values: ArrayLike) -> None:
        """Copy the values into the network's own storage."""
        self._parameters[:] = check.parameters(values, self.n_parameters, self.dtype)

    @property
    def weights(self) -> list[NDArray[Any]]:
        """W_l (n_in, n_out) of each layer: writable views of `parameters`."""
        return list(self._weights)

    @property
    def biases(self) -> list[NDArray[Any]]:
        """b_l (n_out,) of each layer: writable views of `parameters`."""
        return list(self._biases)

    def __repr__(self):
        names = [name if p is None else (name, p) for name, p in self._activations]
        return (
            f"Network({self._sizes}, hidden={names[:-1]}, output={names[-1]!r}, "
            f"dtype='{self.dtype}')"
        )

    def __getstate__(self):
        return {
            "sizes": self._sizes,
            "activations": self._activations,
            "dtype": self.dtype.name,
            "parameters": self._parameters.copy(),
            "scaler": copy.deepcopy(self._scaler),
        }

    def __setstate__(self, state):
        self._sizes, self._activations = state["sizes"], state["activations"]
        self._dtype = np.dtype(state["dtype"])
        self._allocate()
        self.parameters = state["parameters"]
        self._scaler = state["scaler"]

    def __deepcopy__(self, memo):
        return self.copy()

    def copy(self, dtype: DTypeLike | None = None) -> Network:
        """Return an independent network with the same parameters and scaler.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Its type; by default that of this one.

        Returns
        -------
        Network

        Raises
        ------
        ValueError
            If the type is another, or a parameter beyond its range.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([2, 1], seed=0)
        >>> twin = net.copy()
        >>> twin.parameters[:] = 0
        >>> bool(net.parameters.any())
        True
        """
        twin = Network.__new__(type(self))
        state = self.__getstate__()
        if dtype is not None:
            state["dtype"] = check.float_type(dtype).name
        twin.__setstate__(state)
        return twin

    def _operations(self):
        """Floating-point operations of one example's forward pass."""
        return 2.0 * self._parameters.size

    def _scaling(self):
        """Shift and scale of the inputs, as float64 arrays, or (None, None)."""
        scaler = self._scaler
        if scaler is None:
            return None, None
        # It may have been fitted anew, or its arrays assigned.
        given, scaling = self._checked
        if given[0] is not scaler.shift_ or given[1] is not scaler.scale_:
            check.scaler(scaler, self._sizes[0])
            given = scaler.shift_, scaler.scale_
            scaling = tuple(np.ascontiguousarray(part, np.float64) for part in given)
            self._checked = given, scaling
        return scaling

    def _check_parameters(self):
        if self._kernel.first_nonfinite(self._parameters) >= 0:
            for layer, (w, b) in enumerate(zip(self._weights, self._biases, strict=True)):
                check.finite(w, f"the network's weights[{layer}]")
                check.finite(b, f"the network's biases[{layer}]")

    def _data(self, X, y=None, sample_weight=None, name="X", to_predict=False):
        """Return checked examples as the kernels read them; y is checked already.

        To predict, rows that are read in place are left for the kernel to look through.
        """
        shift, scale = self._scaling()
        n_x, n_y = self._sizes[0], self._sizes[-1]
        if check.is_sparse(X):
            # Scaled before it is converted, as dense inputs are.
            dtype = self.dtype if scale is None else np.dtype(np.float64)
            (m, _), (indptr, indices, values) = check.sparse_inputs(X, n_x, dtype, name)
            if scale is not None:
                if shift.any():
                    raise ValueError(
                        f"{name} is sparse and the network's scaler shifts its columns, which "
                        "would fill it; expected a scaler of kind 'max', or a dense array."
                    )
                values = (values * scale[indices]).astype(self.dtype)
            return self._kernel.Data(
                m, n_x, n_y, None, y, sample_weight, None, None, (indptr, indices, values)
            )
        X = check.inputs(X, n_x, name, finite_too=False)
        data = self._kernel.Data(len(X), n_x, n_y, X, y, sample_weight, shift, scale)
        if not (to_predict and data.plain):
            check.finite(X, name)
        return data

    def _blame(self, X, name="X"):
        """Raise if numbers of X are beyond the range of the network's type.

        Asked after a result was not finite: to look through X before each would take too long.
        """
        if self._scaler is None and not check.is_sparse(X):
            check.within_range(X, self.dtype, name)

    def _doubt(self, X, result, cost=0.0, name="X"):
        """Likewise, if a result is not finite."""
        if not math.isfinite(cost) or self._kernel.first_nonfinite(result) >= 0:
            self._blame(X, name)

    def predict(
        self, X: Inputs, out: NDArray[Any] | None = None, n_threads: int | None = None
    ) -> NDArray[Any]:
        """Return the outputs of all examples.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix (m, n_x)
            Inputs, in raw units if the network has a `scaler`.
        out : ndarray (m, n_y) of the network's type, C-ordered, optional
            Where to write the outputs.
        n_threads : int or None, default None
            Threads; None takes as many as pay. The result is the same bit for bit.

        Returns
        -------
        ndarray (m, n_y)

        Raises
        ------
        ValueError, TypeError
            If X has another width, no rows, or numbers that are not finite (`out` may have been
            written in part then), or `out` does not fit.

        Notes
        -----
        A row's outputs are those of `predict_one`, bit for bit, and do not depend on other rows.
        But where the processor has a matrix unit (``fastrna.isa() == "amx"``), float32 networks
        with layers of 96 and more inputs and units have other last digits for 256 rows and more.

        Examples
        --------
        >>> import fastrna
        >>> fastrna.Network([2, 3, 1], seed=0).predict([[0.0, 0.0]])
        array([[0.]], dtype=float32)
        """
        n_threads = check.threads(n_threads)
        if out is not None and not check.is_sparse(X):
            X = check.numeric(X, "X")
            if np.may_share_memory(X, out):
                X = X.copy()  # a row that is written must not be one that is still to be read
        data = self._data(X, to_predict=True)
        shape = (data.m, self._sizes[-1])
        if out is None:
            out = np.empty(shape, self.dtype)
        else:
            self._check_out(out, shape)
        operations = self._operations() * data.m
        team = kernels.threads_for(n_threads, operations)
        judged = n_threads is None and team > 1 and operations < kernels.TeamChoice.LONG
        if judged:
            team = self._team_choice.pick(team)
        start = time.perf_counter()
        finite = self._predictor.predict(data, out, team)
        if judged:
            self._team_choice.note(team, (time.perf_counter() - start) / operations)
        if not finite:
            check.finite(check.numeric(X, "X"), "X")
        if not data.plain:
            self._doubt(X, out)
        return out

    def _check_out(self, out, shape):
        fits = isinstance(out, np.ndarray) and out.dtype == self.dtype and out.shape == shape
        if not fits or not out.flags.c_contiguous or not out.flags.writeable:
            what = (
                f"an array of {out.dtype} with shape {out.shape}"
                if isinstance(out, np.ndarray)
                else repr(out)
            )
            raise ValueError(
                f"out is {what}; expected a writable C-ordered array of {self.dtype} with shape "
                f"{shape}."
            )

    def predict_one(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the output of one example, with the least latency.

        Parameters
        ----------
        x : ndarray (n_x,)
            The input; fastest as a contiguous array of the network's type.
        out : ndarray (n_y,) of the network's type, optional
            Where to write the output; saves an allocation.

        Returns
        -------
        ndarray (n_y,)

        Raises
        ------
        ValueError, TypeError
            As for `predict`.

        Examples
        --------
        >>> import numpy as np, fastrna
        >>> net = fastrna.Network([2, 3, 1], seed=0)
        >>> net.predict_one(np.zeros(2, np.float32))
        array([0.], dtype=float32)
        """
        if self._scaler is None:
            fast = self._row(x, out)
            if fast is not None:
                return fast
        n_x, n_y = self._sizes[0], self._sizes[-1]
        x = check.numeric(x, "x")
        if x.shape != (n_x,):
            raise ValueError(f"x has shape {x.shape}; expected ({n_x},), one example.")
        check.finite(x, "x")
        if out is None:
            out = np.empty(n_y, self.dtype)
        else:
            self._check_out(out, (n_y,))
        shift, scale = self._scaling()
        data = self._kernel.Data(1, n_x, n_y, x[None, :], None, None, shift, scale)
        self._predictor.predict(data, out, 1)
        self._doubt(x, out, name="x")
        return out

    def loss_and_gradient(
        self,
        X: Inputs,
        y: ArrayLike,
        loss: Specification = "auto",
        sample_weight: ArrayLike | None = None,
        l2: float = 0.0,
        l1: float = 0.0,
    ) -> tuple[float, NDArray[Any]]:
        """Return the cost J and dJ/dparameters, for those who bring their own optimizer.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix (m, n_x)
            Inputs.
        y : array_like (m, n_y), (m,) where n_y = 1, or (m,) classes where the output is softmax
            Targets.
        loss : str or (str, float), default "auto"
            The cost: "squared_error", "log_loss", "perceptron", "absolute_error", "huber",
            "poisson" or "quantile"; "auto" takes the one that goes with the output.
        sample_weight : array_like (m,), optional
            Weights of the examples.
        l2, l1 : float, default 0.0
            Penalties ``l2/2 sum W^2`` and ``l1 sum |W|``, biases excluded.

        Returns
        -------
        cost : float
            Weighted mean over examples of the cost summed over outputs, plus the penalties.
        gradient : ndarray (n_parameters,)
            In the order of `parameters`.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([1, 1], init="zeros", dtype="float64")
        >>> net.loss_and_gradient([[1.0], [2.0]], [1.0, 3.0])
        (2.5, array([-3.5, -2. ]))
        """
        if self._scaler is None and isinstance(loss, str) and loss == "auto":
            # Taken out while in use, so that two threads never share one; there from the second
            # call on, if at all.
            narrow = self._engines.pop(self._quick_loss, None)
            if narrow is not None:
                found = narrow.gradient_of(self._parameters, X, y, sample_weight, l2, l1)
                self._engines[self._quick_loss] = narrow
                if found is not None:
                    return found
        loss = check.cost(loss, self._activations[-1][0])
        l1, l2 = check.real(l1, "l1", 0), check.real(l2, "l2", 0)
        data = self._examples(X, y, loss[0], sample_weight)
        self._check_parameters()
        cost, gradient = self._gradient(data, loss, l1, l2)
        if not data.plain:
            self._doubt(X, gradient, cost)
        return cost, gradient

    def _examples(self, X, y, loss, sample_weight=None, names=("X", "y")):
        """Return checked inputs, targets and weights as the kernels read them."""
        if sample_weight is None and self._scaler is None and loss not in check.LOSSES_OF_SOME:
            data = self._kernel.plain_examples(X, y, self._sizes[0], self._sizes[-1])
            if data is not None:
                return data
        sparse = check.is_sparse(X)
        inputs = X if sparse else check.inputs(X, self._sizes[0], names[0])
        m = inputs.shape[0]
        y = check.targets(
            y, m, self._sizes[-1], self._activations[-1][0], self.dtype, names[1], names[0]
        )
        check.targets_of_loss(y, loss, names[1])
        weight = check.weights_of_examples(sample_weight, m)
        if sparse:
            return self._data(X, y, weight, names[0])
        return self._kernel.Data(
            m, self._sizes[0], self._sizes[-1], inputs, y, weight, *self._scaling()
        )

    def _gradient(self, data, loss, l1=0.0, l2=0.0, n_threads=None):
        """Cost and gradient of checked examples, in a workspace kept for the next call."""
        narrow = None if l1 or l2 else self._take_narrow(data, loss)
        if narrow is not None:
            found = narrow.gradient(self._parameters, data)
            self._engines[loss] = narrow
            return found
        rows = min(1 << (data.m - 1).bit_length(), _MANY_ROWS)
        key = (loss, rows, data.is_sparse)
        engine = self._engines.pop(key, None)  # while in use, so that two threads never share one
        if engine is None:
            engine = self._engine("none", loss, rows, sparse=data.is_sparse)
        gradient = np.empty(self.n_parameters, self.dtype)
        team = kernels.threads_for(
            n_threads, 3 * self._operations() * min(data.m, self._kernel.MOST_ROWS)
        )
        cost = engine.gradient(self._parameters, data, gradient, l1=l1, l2=l2, n_threads=team)
        self._engines[key] = engine
        return cost, gradient

    def _evaluate(self, data, loss, n_threads):
        """Cost of checked examples, likewise."""
        narrow = self._take_narrow(data, loss)
        if narrow is not None:
            cost = narrow.evaluate(self._parameters, data)
            self._engines[loss] = narrow
            return cost
        rows = min(data.m, self._kernel.MOST_ROWS)
        key = (loss, rows, data.is_sparse)
        kept_key, engine = self._engines.pop("evaluate", (None, None))
        if kept_key != key:
            engine = self._engine("sgd", loss, rows, sparse=data.is_sparse)
        team = kernels.threads_for(n_threads, self._operations() * rows)
        cost = engine.evaluate(self._parameters, data, team)
        self._engines["evaluate"] = key, engine
        return cost

    def _take_narrow(self, data, loss):
        """Take out the workspace for narrow networks; None where another way is quicker."""
        if data.m > self._narrow_rows or data.is_sparse:
            return None
        # Out of the dictionary while in use, so that two threads never share one.
        return self._engines.pop(loss, None) or self._kernel.NarrowGradient(
            self._sizes, self._specifications, (loss[0], loss[1] or 0.0)
        )

    def _engine(self, optimizer, loss, rows, **options):
        return self._kernel.Engine(
            self._sizes, self._specifications, (loss[0], loss[1] or 0.0), optimizer, rows, **options
        )

    def jacobian(self, X: Inputs) -> NDArray[Any]:
        """Return the derivatives of the outputs with respect to the inputs.

        Parameters
        ----------
        X : array_like (m, n_x)
            Inputs.

        Returns
        -------
        ndarray (m, n_y, n_x)
            ``d yhat_k / d x_j`` of each example, in raw units if the network has a `scaler`.

        Raises
        ------
        ValueError, TypeError
            As for `predict`.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([2, 1], dtype="float64", init="zeros")
        >>> net.weights[0][:] = [[3.0], [4.0]]
        >>> net.jacobian([[0.0, 0.0]])
        array([[[3., 4.]]])
        """
        data = self._data(X)
        if data.is_sparse:
            raise TypeError("X is sparse; expected a dense array.")
        out = np.empty((data.m, self._sizes[-1], self._sizes[0]), self.dtype)
        rows = min(data.m, self._kernel.MOST_ROWS)
        engine = self._engine("none", ("squared_error", None), rows, input_gradient=True)
        engine.jacobian(self._parameters, data, out)
        if not data.plain:
            self._doubt(X, out)
        _, scale = self._scaling()
        return out if scale is None else (out * scale).astype(self.dtype)

    def save(self, path: Path) -> None:
        """Save sizes, activations, parameters and scaler.

        Parameters
        ----------
        path : str or path
            Where to; exactly this name, no suffix is added. A name that ends in ".safetensors"
            chooses that format (extra ``safetensors``), every other is a .npz archive. A file that
            is there is replaced only when the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written.
        ImportError
            If the extra is not installed.

        Examples
        --------
        >>> import tempfile, os, fastrna
        >>> net = fastrna.Network([2, 1], seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(os.path.join(folder, "net.npz"))
        ...     twin = fastrna.Network.load(os.path.join(folder, "net.npz"))
        >>> bool((twin.parameters == net.parameters).all())
        True
        """
        from fastrna.persistence import save_network

        self._scaling()  # what does not fit would be found when it is loaded
        save_network(self, path)

    @staticmethod
    def load(path: Path) -> Network:
        """Return the network saved at `path`, a trainer's too, with its scaler, bit for bit.

        Parameters
        ----------
        path : str or path
            The file; its format is recognised from its first bytes, not from its name.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, not a file of fastrna, or of a newer version.
        ImportError
            If it is a safetensors file and that extra is not installed.

        Examples
        --------
        See `save`.
        """
        from fastrna.persistence import load_network

        return load_network(path)

    def to_onnx(self, path: Path) -> None:
        """Write the network, its scaler included, as an ONNX model (extra ``onnx``).

        It maps "x" (m, n_x) to "y" (m, n_y), for any m, in the network's type, and takes raw units
        where the network has a scaler. ONNX Runtime has no float64 error function, so "gelu" in a
        float64 network computes that one function in float32.

        Parameters
        ----------
        path : str or path
            The ``.onnx`` file.

        Raises
        ------
        OSError
            If the file cannot be written.
        ImportError
            If the extra is not installed.

        Examples
        --------
        >>> net.to_onnx("net.onnx")  # doctest: +SKIP
        """
        from fastrna.persistence import network_to_onnx

        self._scaling()
        network_to_onnx(self, path)
