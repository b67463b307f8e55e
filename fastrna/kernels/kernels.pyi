# The contract of every compiled variant: fastrna.kernels.{f32,f64}_{baseline,avx2,avx512}
# and f32_amx.
#
# The functions down to `dropout` are those of fastrna/reference.py, under the same names and with
# the same arguments; a test holds reference, stub and variants together. "Array" is an array of the
# variant's own type, `DTYPE`: what converts or checks are the callers in fastrna/*.py, but for
# three doors that are compiled, as they are a call's whole time: `plain_examples`, `predict_one`
# and `gradient_of` take what needs no conversion, and return None where something does not fit.

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
# A name, or a name and its parameter, as ("elu", 1.0).
Specification: TypeAlias = str | tuple[str, float | None]
Csr: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], Array]
Ending: TypeAlias = Literal["epochs", "target_cost", "interrupt", "divergence"]
Isa: TypeAlias = Literal["amx", "avx512", "avx2", "baseline"]

ACTIVATIONS: dict[str, int]
LOSSES: dict[str, int]
OPTIMIZERS: dict[str, int]
SOURCES: dict[str, int]
ENDINGS: dict[int, Ending]
DEFAULT_PARAMETERS: dict[str, float]
DTYPE: np.dtype[Any]
VECTOR_LANES: int
MOST_ROWS: int
FAR_LINE: float  # seconds to write a line another thread has read: far apart from here on

# -- the kernels on arrays: m examples, n_in and n_out units ------------------------------------

def activation(activation: Specification, Z: Array) -> Array: ...
def activation_derivative(activation: Specification, Z: Array) -> Array: ...
def layer_forward(
    A: Array,  # (m, n_in)
    W: Array,  # (n_in, n_out)
    b: Array,  # (n_out,)
    activation: Specification = "identity",
) -> Array: ...  # (m, n_out)
def weight_gradient(
    A: Array,  # (m, n_in)
    dZ: Array,  # (m, n_out)
) -> tuple[Array, Array]: ...  # (n_in, n_out), (n_out,)
def input_gradient(
    dZ: Array,  # (m, n_out)
    W: Array,  # (n_in, n_out)
    Z: Array | None = None,  # (m, n_in)
    activation: Specification = "identity",
) -> Array: ...  # (m, n_in)
def cost_and_gradient(
    loss: Specification,
    output: Specification,
    Z: Array,  # (m, n_y)
    Y: Array,  # (m, n_y)
    sample_weight: NDArray[Any] | None = None,  # (m,)
) -> tuple[float, Array]: ...  # J, (m, n_y)

# In place: w, and the v, m beside it, are contiguous and of one shape with g.
def sgd_update(w: Array, g: Array, learning_rate: float) -> None: ...
def momentum_update(
    w: Array, v: Array, g: Array, learning_rate: float, momentum: float
) -> None: ...
def nesterov_update(
    w: Array, v: Array, g: Array, learning_rate: float, momentum: float
) -> None: ...
def adam_update(
    w: Array,
    m: Array,
    v: Array,
    g: Array,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    t: int,
) -> None: ...
def dropout(
    A: Array, rate: float, seed: int, step: int, layer: int, first_row: int = 0
) -> Array: ...

# -- what the reference leaves to NumPy, and what it has no use for ----------------------------

def first_nonfinite(array: Array) -> int: ...  # -1: all are finite
def thread_limit() -> int: ...
def integer_in_environment(name: bytes) -> int | None: ...
def instruction_sets() -> list[Isa]: ...
def fma_peak(seconds: float = 0.05, n_threads: int = 1) -> float: ...  # flop/s
def fma_sustained(seconds: float = 0.5, n_threads: int = 1) -> float: ...  # flop/s
def meeting_seconds(n_threads: int = 2, meetings: int = 10000) -> float: ...
def rewriting_seconds(n_threads: int = 2) -> float: ...

# -- the engine ---------------------------------------------------------------------------------

class Data:
    """Examples, targets and weights where they lie; nothing is copied."""

    def __init__(
        self,
        m: int,
        n_x: int,
        n_y: int,
        X: NDArray[Any] | None,  # (m, n_x) of a type in SOURCES; None with csr
        y: NDArray[Any] | None = None,  # (m, n_y) of DTYPE, or (m,) int64 classes
        sample_weight: NDArray[np.float64] | None = None,  # (m,)
        shift: NDArray[np.float64] | None = None,  # (n_x,)
        scale: NDArray[np.float64] | None = None,  # (n_x,)
        csr: Csr | None = None,
    ) -> None: ...
    @property
    def m(self) -> int: ...
    @property
    def n_x(self) -> int: ...
    @property
    def n_y(self) -> int: ...
    @property
    def total_weight(self) -> float: ...
    @property
    def is_sparse(self) -> bool: ...
    @property
    def plain(self) -> bool: ...  # whether X is read as it stands, unconverted

def plain_examples(X: Any, y: Any, n_x: int, n_y: int) -> Data | None: ...
def most_narrow_rows(sizes: Sequence[int]) -> int: ...

@final
class NarrowGradient:
    """The workspace of cost and gradient of networks a few units wide."""

    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[tuple[str, float]],
        loss: tuple[str, float],
    ) -> None: ...
    def gradient(
        self,
        parameters: Array,  # (n_parameters,)
        data: Data,  # dense
    ) -> tuple[float, Array]: ...  # cost, (n_parameters,)
    def evaluate(
        self,
        parameters: Array,  # (n_parameters,)
        data: Data,  # dense
    ) -> float: ...  # cost
    def gradient_of(
        self,
        parameters: Array,  # (n_parameters,)
        X: Any,  # (m, n_x); what is not as the shortest way needs it gives None, as below
        y: Any,  # (m, n_y)
        sample_weight: None,
        l2: float,  # 0.0
        l1: float,  # 0.0
    ) -> tuple[float, Array] | None: ...

@final
class Engine:
    """The workspace in which a network is trained."""

    n_steps: int
    timed: bool  # whether the first thread books its time by phase, some 25 ns a booking
    past_caches: bool  # how what other threads read is stored: as measured, unless it is set

    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[tuple[str, float]],
        loss: tuple[str, float],
        optimizer: str,
        rows: int,  # of the largest mini-batch that will come
        dropout: float = 0.0,
        sparse: bool = False,
        input_gradient: bool = False,
    ) -> None: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def team(self) -> int: ...  # threads that the last training began with
    def phase_seconds(self) -> dict[str, float]: ...  # since the last call
    def get_moment(self, which: int) -> Array | None: ...  # (n_parameters,)
    def set_moment(self, which: int, flat: Array) -> None: ...
    def train(
        self,
        parameters: Array,  # (n_parameters,), IN and OUT
        data: Data,
        batch_size: int,
        rates: NDArray[np.float64],  # (epochs,)
        *,
        order: NDArray[np.int64] | None = None,
        generator: np.random.BitGenerator | None = None,
        target_cost: float = -1,
        momentum: float = 0,
        beta_2: float = 0,
        epsilon: float = 0,
        l1: float = 0,
        l2: float = 0,
        over_batch: bool = False,
        dropout_seed: int = 0,
        n_threads: int = 1,
        fewer: bool = False,  # whether fewer threads may be taken, where they are as quick
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Ending, float, BaseException | None]: ...
    def gradient(
        self,
        parameters: Array,  # (n_parameters,)
        data: Data,
        gradient: Array,  # (n_parameters,), OUT
        *,
        l1: float = 0,
        l2: float = 0,
        n_threads: int = 1,
    ) -> float: ...
    def evaluate(self, parameters: Array, data: Data, n_threads: int = 1) -> float: ...
    def jacobian(
        self,
        parameters: Array,  # (n_parameters,)
        data: Data,
        out: Array,  # (m, n_y, n_x), OUT
    ) -> None: ...

@final
class Predictor:
    """The forward pass over a network's own flat parameters."""

    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[tuple[str, float]],
        parameters: Array,  # (n_parameters,) and a vector's worth of spare numbers
    ) -> None: ...
    def predict_one(
        self,
        x: Any,  # (n_x,); anything else than the fast path takes gives None
        out: Any = None,  # (n_y,)
        shift: NDArray[np.float64] | None = None,  # (n_x,)
        scale: NDArray[np.float64] | None = None,  # (n_x,)
    ) -> Array | None: ...
    def predict(
        self,
        data: Data,
        out: Array,  # (m, n_y), OUT
        n_threads: int = 1,
    ) -> bool: ...  # False where a number of a `plain` X is not finite
