# One step, one epoch, all layers: the training loop, without Python.
#
# Design: the engine owns everything a mini-batch touches: its packed copy of the weights,
# velocities, activations and gradients, all allocated once. A call trains any number of epochs and
# hands back the parameters at the end of each finite one. Inside,
#     gather -> forward -> cost -> backward | barrier | weight gradient + update | barrier
# Rows of the batch are shared among the threads before the first barrier (each row passes through
# all layers on one thread), rows of the weights after it (each element of dW is summed, and its
# weight updated, by one thread in one order): the result is the same bit for bit for any number of
# threads. One parallel region spans all epochs of a call; small work runs on the caller's thread,
# with none. A batch larger than `capacity` passes in chunks whose gradients add up in a buffer
# before the update, which bounds the workspace and keeps a chunk's activations in cache.
# Two sizes have a step of their own between the same barriers. Where a batch has many rows and the
# network few weights, activations would be what travels between the cores: its rows are cut in
# slices, a number that depends on the batch alone, and each slice's gradient is summed where its
# rows are (`sliced_step`). A batch of one needs no gradient at all: dW = a^T dz is formed as it is
# applied (`descend_one`).
# While the engine runs, subnormal numbers count as zero on its threads, and there alone.
# Rejected: a region a product (a microsecond each), sharing columns (dZ W^T would sum across
# threads), fetching the next mini-batch's rows while this one is computed (the memory bus is as
# busy: 2 % slower).

cimport cython
from cython.parallel cimport parallel, prange, threadid
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.string cimport memcpy, memset
cimport numpy as cnp

import numpy as np

include "functions.pxi"
include "activations.pxi"
include "costs.pxi"
include "updates.pxi"
include "products.pxi"
include "random.pxi"
include "data.pxi"

cnp.import_array()

cdef extern from "threads.h" nogil:
    int team_size()
    int team_limit()
    ctypedef struct meeting:
        pass
    void meet(meeting *place, int team)
    double seconds_now()

cdef extern from "math.h" nogil:
    bint isfinite(double x)

cdef enum:
    FEW_ROWS = 4      # batches up to this size multiply by W^T through dot products
    # A^T dZ is worth packing both from this many rows of the batch on, for layers of more panels
    # than this: 512 rows of 1024 by 1024 run a fifth faster, 128 rows of 512 by 512 a twentieth.
    DEEP_ROWS = 64
    WIDE_PANELS = 3
    SLICE_ROWS = 64   # rows of a mini-batch that have a gradient of their own, where sliced
    MOST_SLICES = 8


cdef enum Ending:
    EPOCHS, TARGET_COST, INTERRUPT, DIVERGENCE

ENDINGS = {EPOCHS: "epochs", TARGET_COST: "target_cost", INTERRUPT: "interrupt",
           DIVERGENCE: "divergence"}


cdef enum Phase:
    ORDER, GATHER, FORWARD, COST, BACKWARD, UPDATE, WAIT, N_PHASES

PHASES = {ORDER: "order", GATHER: "gather", FORWARD: "forward", COST: "cost",
          BACKWARD: "backward", UPDATE: "weight gradient and update", WAIT: "waiting"}


cdef struct Layer:
    Py_ssize_t n_in, n_out
    Py_ssize_t rows            # n_in + 1: the bias is the last row
    Py_ssize_t vectors         # of n_out columns
    Py_ssize_t stride          # of a row of the blocks below
    Py_ssize_t offset          # of the layer in the flat parameters
    Py_ssize_t first_row       # of the layer among all rows
    Py_ssize_t size            # numbers in a packed matrix of this layer
    int activation
    real parameter
    real *weights              # (rows, vectors) in panels
    real *velocity             # likewise; Adam's first moment
    real *second               # likewise; Adam's second moment
    real *gradient             # likewise, where a whole gradient is needed
    real *transposed           # W^T (n_out, vectors of n_in) in panels
    real *z                    # (capacity, stride) pre-activations; a itself where g' needs no z
    real *a                    # (capacity, stride) activations
    real *h                    # (capacity, stride) what the next layer sees: a, or a after dropout
    real *d                    # (capacity, stride) dJ/dZ
    real *d_panels             # (capacity, vectors) the same in panels, of wide layers only
    real *slivers              # (rows, capacity) A_{l-1}^T tile by tile, likewise


cdef Py_ssize_t block_stride(Py_ssize_t width) noexcept nogil:
    """Numbers between rows of a block: room for the ones column, in whole cache lines; an odd
    number of them, as rows a large power of two apart would share a few sets of L1."""
    cdef Py_ssize_t line = CACHE_LINE // sizeof(real), lines = (width + 1 + line - 1) // line
    if lines > 2 and lines % 2 == 0:
        lines += 1
    return lines * line


cdef inline Py_ssize_t slices_of(Py_ssize_t count) noexcept nogil:
    """Slices of a mini-batch of `count` rows: by the count alone, so for any number of threads."""
    return min(max(count // SLICE_ROWS, 1), MOST_SLICES)


cdef bint all_finite(Py_ssize_t count, const real *x) noexcept nogil:
    """Whether no number is NaN or infinite: only those times 0 are not 0."""
    cdef Py_ssize_t i = 0
    cdef vec total = splat(0), zero = splat(0)
    while i + LANES <= count:
        total = total + load(x + i) * zero
        i += LANES
    total = total + load_first(x + i, count - i) * zero
    return sum_of(total) == 0


@cython.final
cdef class Engine:
    """A network's training workspace; see the top of the file.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers, input first.
    activations : sequence of (str, float)
        Name and parameter of each layer's activation.
    loss : (str, float)
        Name and parameter of the cost.
    optimizer : str
        A key of OPTIMIZERS; "none" computes gradients only.
    capacity : int
        Rows of a mini-batch that are processed at once.
    chunked : bool
        Whether batches larger than `capacity` will come, whose gradient needs a buffer.
    dropout : float
        Rate at which hidden activations are dropped in training.
    sparse : bool
        Whether X comes as CSR.
    input_gradient : bool
        Whether the derivative with respect to X is wanted: `jacobian`.
    """

    cdef readonly Py_ssize_t n_parameters, workspace_bytes
    cdef public unsigned long long n_steps
    cdef public bint timed
    cdef double phase_times[N_PHASES]
    cdef double lap
    cdef Layer *layers
    cdef meeting meeting
    cdef Py_ssize_t n_layers, capacity, n_x, input_stride
    cdef int loss, optimizer
    cdef real loss_parameter
    cdef double dropout
    cdef unsigned int dropout_threshold
    cdef bint sparse, transposing, input_gradient, sliced
    cdef double slice_costs[MOST_SLICES]
    cdef list buffers
    cdef real *input
    cdef real *target
    cdef real *costs
    cdef real *totals
    cdef real *masses
    cdef double *weights
    cdef real *penalties
    cdef Py_ssize_t n_rows
    cdef real one
    # The call under way.
    cdef Data data
    cdef object own_order
    cdef bint shuffled
    cdef const long long *order
    cdef bitgen_t *generator
    cdef real *flat
    cdef double *epoch_costs
    cdef double *epoch_seconds
    cdef const double *rates
    cdef Py_ssize_t count, epochs, epochs_done, batch_size, signal_period
    cdef double target_cost, momentum, beta_2, epsilon, l1, l2
    cdef double cost_sum, weight_sum, pending_weight, last_cost, clock
    cdef bint over_batch, stopping, ahead
    cdef unsigned long long dropout_seed
    cdef int ending
    cdef object error

    def __cinit__(self, sizes, *args, **kwargs):
        self.n_layers = len(sizes) - 1
        self.layers = <Layer *>PyMem_RawCalloc(self.n_layers, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.layers)

    def __init__(self, sizes, activations, loss, optimizer, Py_ssize_t capacity, bint chunked=False,
                 double dropout=0.0, bint sparse=False, bint input_gradient=False):
        cdef Layer *layer
        cdef Py_ssize_t l
        cdef bint hidden, whole_gradient
        cdef Py_ssize_t row_numbers = 0, slices = 1, offset = 0
        self.buffers = []
        self.capacity = capacity
        self.loss, self.loss_parameter = LOSSES[loss[0]], loss[1]
        self.optimizer = OPTIMIZERS[optimizer]
        self.dropout = dropout
        self.dropout_threshold = <unsigned int>(dropout * 4294967296.0)
        self.sparse = sparse
        self.input_gradient = input_gradient
        self.one = 1
        self.n_x = sizes[0]
        self.input_stride = block_stride(self.n_x)
        for l in range(self.n_layers):
            row_numbers += block_stride(sizes[l]) + block_stride(sizes[l + 1])
            self.n_parameters += (sizes[l] + 1) * sizes[l + 1]
        self.sliced = not sparse and SLICE_ROWS * row_numbers > 2 * self.n_parameters
        if self.sliced:
            slices = MOST_SLICES if chunked else slices_of(capacity)
            capacity += slices  # slices may differ by a row
            self.capacity = capacity
        if not sparse:  # and a row for the example that follows a mini-batch of one
            self.input = self.block((capacity + 1) * self.input_stride)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            hidden = l < self.n_layers - 1
            layer.n_in, layer.n_out = sizes[l], sizes[l + 1]
            layer.rows = layer.n_in + 1
            layer.vectors = vectors_of(layer.n_out)
            layer.stride = block_stride(layer.n_out)
            layer.offset = offset
            layer.size = layer.rows * layer.vectors * LANES
            layer.activation, layer.parameter = ACTIVATIONS[activations[l][0]], activations[l][1]
            offset += layer.rows * layer.n_out
            layer.first_row = self.n_rows
            self.n_rows += layer.rows
            layer.weights = self.block(layer.size)
            if self.optimizer in (MOMENTUM, NESTEROV, ADAM):
                layer.velocity = self.block(layer.size)
            if self.optimizer == ADAM:
                layer.second = self.block(layer.size)
            whole_gradient = self.optimizer == NO_UPDATE or chunked or (sparse and l == 0)
            if whole_gradient or slices > 1:
                layer.gradient = self.block(layer.size * slices)
            if l > 0 or input_gradient:
                layer.transposed = self.block(layer.n_out * vectors_of(layer.n_in) * LANES)
            layer.a = self.block(capacity * layer.stride)
            layer.z = layer.h = layer.a
            if not hidden or needs_preactivation(layer.activation, layer.parameter):
                layer.z = self.block(capacity * layer.stride)
            if hidden and dropout > 0:
                layer.h = self.block(capacity * layer.stride)
            layer.d = self.block(capacity * layer.stride)
            if not self.sliced and capacity >= DEEP_ROWS and layer.vectors > WIDE_PANELS * NV:
                layer.d_panels = self.block(capacity * layer.vectors * LANES)
                layer.slivers = self.block(capacity * layer.rows)
        layer = &self.layers[self.n_layers - 1]
        self.target = self.block(capacity * layer.stride)
        self.costs = self.block(capacity)
        self.totals = self.block(capacity)
        self.masses = self.block(capacity)
        self.weights = <double *>self.block(capacity * 8 // sizeof(real))
        self.penalties = self.block(self.n_rows * LANES)

    cdef real *block(self, Py_ssize_t count) except NULL:
        """Zeros for `count` numbers, at a cache line's start."""
        cdef Py_ssize_t size = (count + LANES) * sizeof(real) + CACHE_LINE
        memory = np.zeros(size, np.uint8)
        self.buffers.append(memory)
        self.workspace_bytes += size
        cdef size_t address = <size_t>cnp.PyArray_DATA(memory)
        return <real *>((address + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE)

    # -- parameters in and out ------------------------------------------------------------------

    cdef void load(self, const real *flat) noexcept nogil:
        """The flat parameters into the packed weights, and their transposes where wanted."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.n_layers):
            layer = &self.layers[l]
            pack(0, layer.rows, layer.n_out, flat + layer.offset, layer.n_out, layer.weights,
                 layer.rows)
            if self.transposing and layer.transposed != NULL:
                transpose_rows(0, layer.n_in, layer.n_in, layer.n_out, layer.rows, layer.weights,
                               layer.transposed)

    cdef bint save(self, real *flat) noexcept nogil:
        """The packed weights into the flat parameters, unless one is not finite."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.n_layers):
            if not all_finite(self.layers[l].size, self.layers[l].weights):
                return False
        for l in range(self.n_layers):
            layer = &self.layers[l]
            unpack(layer.rows, layer.n_out, layer.weights, flat + layer.offset)
        return True

    def phase_seconds(self):
        """Seconds of each phase on the first thread while `timed` was set; begins again at 0."""
        found = {name: self.phase_times[phase] for phase, name in PHASES.items()}
        memset(self.phase_times, 0, sizeof(self.phase_times))
        return found

    def get_moment(self, int which):
        """The velocity (1) or the second moment (2) as a flat array; None where there is none."""
        cdef Py_ssize_t l
        cdef Layer *layer
        if self.optimizer == NO_UPDATE or self.optimizer == SGD or (
                which == 2 and self.optimizer != ADAM):
            return None
        flat = np.empty(self.n_parameters, np.float32 if sizeof(real) == 4 else np.float64)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            unpack(layer.rows, layer.n_out, layer.velocity if which == 1 else layer.second,
                   <real *>cnp.PyArray_DATA(flat) + layer.offset)
        return flat

    def set_moment(self, int which, cnp.ndarray flat not None):
        """The inverse of `get_moment`; `flat` is (n_parameters,), of the network's type."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.n_layers):
            layer = &self.layers[l]
            pack(0, layer.rows, layer.n_out, <real *>cnp.PyArray_DATA(flat) + layer.offset,
                 layer.n_out, layer.velocity if which == 1 else layer.second, layer.rows)

    # -- one mini-batch, the rows of one thread -------------------------------------------------

    cdef void forward(self, Py_ssize_t lo, Py_ssize_t hi, bint training,
                      Py_ssize_t first_row) noexcept nogil:
        """Z_l = A_{l-1} W_l + b_l, A_l = g_l(Z_l) for rows lo to hi of the chunk, all layers.

        first_row is the place of the chunk's row 0 in the mini-batch, which seeds dropout.
        """
        cdef Py_ssize_t l, s, rows = hi - lo, at, previous_stride = self.input_stride
        cdef Layer *layer
        cdef const real *previous = self.input
        for l in range(self.n_layers):
            layer = &self.layers[l]
            at = lo * layer.stride
            if l > 0 or not (self.sparse or self.ahead):
                product(rows, layer.vectors, layer.n_in, previous + lo * previous_stride,
                        previous_stride, 1, layer.weights, 0,
                        True, layer.z + at, layer.stride)
            if layer.activation != SOFTMAX:
                activate(layer.activation, layer.parameter, rows, layer.vectors, layer.stride,
                         layer.z + at, layer.a + at)
            if l < self.n_layers - 1:
                for s in range(lo, hi):
                    if training and layer.h != layer.a:
                        drop_row(layer.n_out,
                                 dropout_base(self.dropout_seed, self.n_steps, l, first_row + s),
                                 self.dropout_threshold, <real>(1 / (1 - self.dropout)),
                                 layer.a + s * layer.stride, layer.h + s * layer.stride)
                    elif layer.h != layer.a:
                        memcpy(layer.h + s * layer.stride, layer.a + s * layer.stride,
                               layer.n_out * sizeof(real))
                    layer.h[s * layer.stride + layer.n_out] = 1
            previous = layer.h
            previous_stride = layer.stride

    cdef void sparse_forward(self, Py_ssize_t lo, Py_ssize_t hi,
                             const long long *chunk) noexcept nogil:
        """Z_1 = X W_1 + b_1 from the CSR rows of the chunk: a row of W_1 for each stored number."""
        cdef Layer *layer = &self.layers[0]
        cdef Parts panels = parts_of(layer.vectors, NV)
        cdef Py_ssize_t s, p, v, nv, j, t, width
        cdef const real *panel
        cdef const real *w
        cdef real *z
        cdef real x
        for s in range(lo, hi):
            v = 0
            for p in range(panels.number):
                nv = panels.size + (p < panels.larger)
                width = nv * LANES
                panel = layer.weights + v * LANES * layer.rows
                z = layer.z + s * layer.stride + v * LANES
                memcpy(z, panel + layer.n_in * width, width * sizeof(real))
                for t in range(self.data.indptr[chunk[s]], self.data.indptr[chunk[s] + 1]):
                    x = self.data.values[t]
                    w = panel + self.data.indices[t] * width
                    for j from 0 <= j < width by LANES:
                        store(z + j, load(z + j) + load(w + j) * x)
                v += nv

    cdef void gather(self, Py_ssize_t lo, Py_ssize_t hi, const long long *chunk) noexcept nogil:
        """Rows lo to hi of the chunk, whose places in the data `chunk` lists, into the blocks."""
        cdef Layer *last = &self.layers[self.n_layers - 1]
        cdef Py_ssize_t s
        if self.sparse:
            self.sparse_forward(lo, hi, chunk)
        elif not self.ahead:
            self.data.gather(chunk, lo, hi - lo, self.input + lo * self.input_stride,
                             self.input_stride)
        self.data.gather_targets(chunk + lo, hi - lo, self.target + lo * last.stride, last.stride)
        if self.data.weights != NULL:
            for s in range(lo, hi):
                self.weights[s] = self.data.weights[chunk[s]]

    cdef void compare(self, Py_ssize_t lo, Py_ssize_t hi, double factor) noexcept nogil:
        """The costs of rows lo to hi, and dZ of the last layer times weight * factor."""
        cdef Layer *last = &self.layers[self.n_layers - 1]
        cdef Py_ssize_t at = lo * last.stride
        cost_and_slope(self.loss, self.loss_parameter, last.activation, last.parameter, hi - lo,
                       last.n_out, last.stride, last.z + at, last.a + at, self.target + at,
                       last.d + at, self.costs + lo, self.totals + lo, self.masses + lo)
        scale_rows(hi - lo, last.n_out, last.stride, last.d + at,
                   self.weights + lo if self.data.weights != NULL else NULL, factor)

    cdef void backward(self, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t first_row) noexcept nogil:
        """dZ_{l-1} = (dZ_l W_l^T) g'(Z_{l-1}) for rows lo to hi, from the last layer down."""
        cdef Py_ssize_t l, s
        cdef Layer *layer
        cdef Layer *below
        for l in range(self.n_layers - 1, 0, -1):
            layer = &self.layers[l]
            below = &self.layers[l - 1]
            self.times_transposed(layer, lo, hi, below.d, below.stride)
            if below.h != below.a:
                for s in range(lo, hi):
                    drop_row(below.n_out,
                             dropout_base(self.dropout_seed, self.n_steps, l - 1, first_row + s),
                             self.dropout_threshold, <real>(1 / (1 - self.dropout)),
                             below.d + s * below.stride, below.d + s * below.stride)
            differentiate(below.activation, below.parameter, hi - lo, below.vectors, below.stride,
                          below.z + lo * below.stride, below.a + lo * below.stride,
                          below.d + lo * below.stride)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            if layer.d_panels != NULL:
                pack(lo, hi, layer.n_out, layer.d, layer.stride, layer.d_panels, self.capacity)

    cdef void times_transposed(self, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, real *c,
                               Py_ssize_t c_row) noexcept nogil:
        """dZ W^T of one layer, rows lo to hi, into c."""
        if self.transposing:
            product(hi - lo, vectors_of(layer.n_in), layer.n_out, layer.d + lo * layer.stride,
                    layer.stride, 1, layer.transposed, 0, False, c + lo * c_row, c_row)
        else:
            dot_rows(hi - lo, layer.n_in, layer.vectors, layer.rows, layer.d + lo * layer.stride,
                     layer.stride, layer.weights, c + lo * c_row, c_row)

    # -- the weights, the rows of one thread ----------------------------------------------------

    cdef void descend(self, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t count,
                      const long long *chunk, bint first, bint last,
                      const Update *u) noexcept nogil:
        """dW_l = A_{l-1}^T dZ_l over the chunk's rows, and after the last chunk the update."""
        cdef Py_ssize_t l, lo, hi
        cdef Layer *layer
        for l in range(self.n_layers):
            layer = &self.layers[l]
            lo = layer.rows * rank // team
            hi = layer.rows * (rank + 1) // team
            if l == 0 and self.sparse:
                self.sparse_gradient(lo, hi, count, chunk, last, u)
            else:
                self.gradient_tiles(l, lo, hi, 0, count, layer.gradient, first, last, u)
            if last:
                self.renew_transposed(l, lo, hi)

    cdef void update_rows(self, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t at,
                          Py_ssize_t width, const real *scales, Py_ssize_t scale_step,
                          const real *slope, Py_ssize_t slope_row, const Update *u,
                          const real *ahead, real *z) noexcept nogil:
        """Rows lo to hi of one panel, which begins at `at`; the bias row bears no penalty.

        Where the next example's inputs are given, z becomes its product with the new weights.
        """
        cdef Py_ssize_t last = min(hi, layer.n_in) if u.penalised or ahead != NULL else hi
        cdef Py_ssize_t weights = max(last - lo, 0), i = at + lo * width
        cdef Py_ssize_t bias = at + layer.n_in * width
        cdef real *penalties = self.penalties + (layer.first_row + lo) * LANES
        if hi > last:
            update(u, False, 1, width, scales + weights * scale_step, scale_step,
                   slope + weights * slope_row, slope_row, layer.weights + bias,
                   layer.velocity + bias, layer.second + bias, layer.gradient + bias, NULL, False,
                   NULL, NULL)
        if ahead != NULL:
            memcpy(z, layer.weights + bias, width * sizeof(real))
        update(u, True, weights, width, scales, scale_step, slope, slope_row, layer.weights + i,
               layer.velocity + i, layer.second + i, layer.gradient + i, penalties, at > 0, ahead,
               z)

    cdef void renew_transposed(self, Py_ssize_t l, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
        """W^T of one layer after the update of rows lo to hi of W."""
        cdef Layer *layer = &self.layers[l]
        if l > 0 and self.transposing and self.optimizer != NO_UPDATE:
            transpose_rows(lo, min(hi, layer.n_in), layer.n_in, layer.n_out, layer.rows,
                           layer.weights, layer.transposed)

    cdef void outer_update(self, Py_ssize_t l, Py_ssize_t lo, Py_ssize_t hi, const real *ahead,
                           const Update *u) noexcept nogil:
        """One example: dW = a^T dz, never stored."""
        cdef Layer *layer = &self.layers[l]
        cdef const real *a = self.input if l == 0 else self.layers[l - 1].h
        cdef Parts panels = parts_of(layer.vectors, NV)
        cdef Py_ssize_t p, nv, v = 0
        for p in range(panels.number):
            nv = panels.size + (p < panels.larger)
            self.update_rows(layer, lo, hi, v * LANES * layer.rows, nv * LANES, a + lo, 1,
                             layer.d + v * LANES, 0, u, ahead, layer.z + v * LANES)
            v += nv

    cdef void descend_one(self, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t at,
                          const Update *u) noexcept nogil:
        """The update of a mini-batch of one, last layer first.

        On one thread the first layer's pass over its weights, which lie beyond L1, computes the
        next example's product as well: in the order of `tile`, so to the same bits.
        """
        cdef Py_ssize_t l, lo, hi
        cdef Layer *layer
        cdef real *ahead = NULL
        self.ahead = team == 1 and self.batch_size == 1 and at + 1 < self.count
        if self.ahead:
            ahead = self.input + self.input_stride
            self.data.gather(self.order, at + 1, 1, ahead, self.input_stride)
        for l in range(self.n_layers - 1, -1, -1):
            layer = &self.layers[l]
            lo = layer.rows * rank // team
            hi = layer.rows * (rank + 1) // team
            self.outer_update(l, lo, hi, ahead if l == 0 else NULL, u)
            self.renew_transposed(l, lo, hi)
        if self.ahead:
            memcpy(self.input, ahead, (self.n_x + 1) * sizeof(real))

    cdef void gradient_tiles(self, Py_ssize_t l, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t row,
                             Py_ssize_t count, real *gradient, bint first, bint last,
                             const Update *u) noexcept nogil:
        """dW = A^T dZ over `count` rows from `row`: tile by tile added up in `gradient`, or updated
        while the sums are in L1.

        The lines of W to be written next are asked for ahead: where another core has read them,
        taking them back while the tile is computed is a quarter of the phase saved.
        """
        cdef Layer *layer = &self.layers[l]
        cdef Py_ssize_t a_depth = self.input_stride if l == 0 else self.layers[l - 1].stride
        cdef const real *a = (self.input if l == 0 else self.layers[l - 1].h) + row * a_depth
        cdef Parts panels = parts_of(layer.vectors, NV), tiles = parts_of(hi - lo, MR)
        cdef Py_ssize_t p, nv, v = 0, t, mr, i, k, at, width, d_row = layer.stride
        cdef vec sums[MR][NV]
        cdef real *slope = <real *>sums
        cdef real *so_far
        cdef const real *columns
        cdef const real *d
        cdef bint packed = layer.slivers != NULL and count >= DEEP_ROWS
        if packed:
            i = lo
            for t in range(tiles.number):
                mr = tiles.size + (t < tiles.larger)
                pack_sliver(<int>mr, count, a + i, a_depth, layer.slivers + i * self.capacity)
                i += mr
        for p in range(panels.number):
            nv = panels.size + (p < panels.larger)
            width = nv * LANES
            at = v * LANES * layer.rows
            d = layer.d + row * layer.stride + v * LANES
            if packed:
                d = layer.d_panels + v * LANES * self.capacity
                d_row = width
            i = lo
            for t in range(tiles.number):
                mr = tiles.size + (t < tiles.larger)
                so_far = gradient + at + i * width
                columns = a + i
                if packed:
                    columns = layer.slivers + i * self.capacity
                    a_depth = mr
                if last:
                    for k in range(mr * nv):
                        prefetch_to_write(layer.weights + at + (i + mr) * width + k * LANES)
                tiles_of(<int>mr, <int>nv, 1, count, columns, 1, a_depth, d, d_row,
                         &ZEROS[0] if first else so_far, 0 if first else width,
                         slope if last else so_far, width)
                if last:
                    self.update_rows(layer, i, i + mr, at, width, &self.one, 0, slope, width, u,
                                     NULL, NULL)
                i += mr
            v += nv

    cdef void sparse_gradient(self, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t count,
                              const long long *chunk, bint last, const Update *u) noexcept nogil:
        """dW_1 of CSR rows: each stored number adds x dz to its row of the gradient buffer.

        The buffer is zero when a mini-batch begins; rows written are zeroed after the update.
        """
        cdef Layer *layer = &self.layers[0]
        cdef Parts panels = parts_of(layer.vectors, NV)
        cdef Py_ssize_t p, nv, v = 0, s, t, k, j, width
        cdef real *panel
        cdef const real *d
        for p in range(panels.number):
            nv = panels.size + (p < panels.larger)
            width = nv * LANES
            panel = layer.gradient + v * LANES * layer.rows
            for s in range(count):
                d = layer.d + s * layer.stride + v * LANES
                for t in range(self.data.indptr[chunk[s]], self.data.indptr[chunk[s] + 1]):
                    k = self.data.indices[t]
                    if lo <= k < hi:
                        for j from 0 <= j < width by LANES:
                            store(panel + k * width + j,
                                  load(panel + k * width + j) + load(d + j) * self.data.values[t])
                if lo <= layer.n_in < hi:
                    for j from 0 <= j < width by LANES:
                        store(panel + layer.n_in * width + j,
                              load(panel + layer.n_in * width + j) + load(d + j))
            if last:
                self.update_rows(layer, lo, hi, v * LANES * layer.rows, width, &self.one, 0,
                                 panel + lo * width, width, u, NULL, NULL)
                if self.optimizer != NO_UPDATE:
                    memset(panel + lo * width, 0, (hi - lo) * width * sizeof(real))
            v += nv

    # -- one step, one epoch, all threads -------------------------------------------------------

    cdef inline void book(self, Py_ssize_t rank, int phase) noexcept nogil:
        """The time since the last call goes to `phase`, where the first thread is timed."""
        cdef double now
        if self.timed and rank == 0:
            now = seconds_now()
            self.phase_times[phase] += now - self.lap
            self.lap = now

    cdef inline void wait(self, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """Until the whole team is here."""
        if team > 1:
            meet(&self.meeting, <int>team)
            self.book(rank, WAIT)

    cdef void step(self, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t first,
                   Py_ssize_t count, double rate) noexcept nogil:
        """One mini-batch: `count` examples from place `first` of the order."""
        cdef Parts chunks = parts_of(count, self.capacity)
        cdef Py_ssize_t c, n, lo, hi, at = first, s
        cdef double weight = 0, factor
        cdef double weights[1]
        cdef const long long *chunk
        cdef Update u
        if self.data.weights == NULL:
            weight = count
        else:
            for s in range(first, first + count):
                weight += self.data.weights[self.order[s]]
        factor = 1 / weight if weight > 0 else 0
        u.optimizer = self.optimizer
        u.learning_rate = <real>rate
        if self.optimizer == ADAM:
            u.learning_rate = adam_rate(rate, self.momentum, self.beta_2, self.n_steps + 1)
        u.momentum, u.beta_2 = <real>self.momentum, <real>self.beta_2
        u.epsilon = <real>self.epsilon
        u.l1 = <real>(self.l1 * factor if self.over_batch else self.l1)
        u.l2 = <real>(self.l2 * factor if self.over_batch else self.l2)
        u.penalised = u.l1 != 0 or u.l2 != 0
        if rank == 0:
            self.add_penalties()
        if self.sliced and slices_of(count) > 1:
            self.sliced_step(rank, team, first, count, weight, factor, &u)
            return
        for c in range(chunks.number):
            n = chunks.size + (c < chunks.larger)
            chunk = self.order + at
            lo = n * rank // team
            hi = n * (rank + 1) // team
            self.gather(lo, hi, chunk)
            self.book(rank, GATHER)
            self.forward(lo, hi, True, at - first)
            self.book(rank, FORWARD)
            self.compare(lo, hi, factor)
            self.book(rank, COST)
            self.backward(lo, hi, at - first)
            self.book(rank, BACKWARD)
            self.wait(rank, team)
            if rank == 0:
                self.cost_sum += self.cost_of_rows(0, n)
                if c == chunks.number - 1:
                    self.finish_step(weight, u.penalised)
                self.book(rank, COST)
            if count == 1 and not self.sparse:
                self.descend_one(rank, team, at, &u)
            else:
                self.descend(rank, team, n, chunk, c == 0, c == chunks.number - 1, &u)
            self.book(rank, UPDATE)
            self.wait(rank, team)
            at += n

    cdef void sliced_step(self, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t first,
                          Py_ssize_t count, double weight, double factor,
                          const Update *u) noexcept nogil:
        """One mini-batch of many rows and few weights: each slice of its rows has a gradient of its
        own, summed by the thread that computed the rows, from its own caches. The slices depend on
        the mini-batch alone, and their gradients are added in their order.
        """
        cdef Py_ssize_t slices = slices_of(count), q, c, n, l, lo, hi, at
        cdef Py_ssize_t room = self.capacity // slices
        cdef Parts chunks
        cdef Layer *layer
        for q in range(slices * rank // team, slices * (rank + 1) // team):
            at = first + count * q // slices
            chunks = parts_of(first + count * (q + 1) // slices - at, room)
            self.slice_costs[q] = 0
            lo = q * room
            for c in range(chunks.number):
                n = chunks.size + (c < chunks.larger)
                self.gather(lo, lo + n, self.order + at - lo)
                self.book(rank, GATHER)
                self.forward(lo, lo + n, True, at - first - lo)
                self.book(rank, FORWARD)
                self.compare(lo, lo + n, factor)
                self.slice_costs[q] += self.cost_of_rows(lo, lo + n)
                self.book(rank, COST)
                self.backward(lo, lo + n, at - first - lo)
                self.book(rank, BACKWARD)
                for l in range(self.n_layers):
                    layer = &self.layers[l]
                    self.gradient_tiles(l, 0, layer.rows, lo, n, layer.gradient + q * layer.size,
                                        c == 0, False, u)
                self.book(rank, UPDATE)
                at += n
        self.wait(rank, team)
        if rank == 0:
            for q in range(slices):
                self.cost_sum += self.slice_costs[q]
            self.finish_step(weight, u.penalised)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            lo = layer.rows * rank // team
            hi = layer.rows * (rank + 1) // team
            self.add_slices(layer, lo, hi, slices, u)
            self.renew_transposed(l, lo, hi)
        self.book(rank, UPDATE)
        self.wait(rank, team)

    cdef void add_slices(self, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi,
                         Py_ssize_t slices, const Update *u) noexcept nogil:
        """The update of rows lo to hi by the sum of the slices' gradients."""
        cdef Parts panels = parts_of(layer.vectors, NV)
        cdef Py_ssize_t p, nv, v = 0, q, j, at, width
        cdef real *total
        cdef const real *more
        for p in range(panels.number):
            nv = panels.size + (p < panels.larger)
            width = nv * LANES
            at = v * LANES * layer.rows
            total = layer.gradient + at + lo * width
            for j from 0 <= j < (hi - lo) * width by LANES:
                prefetch_to_write(layer.weights + at + lo * width + j)
                for q in range(1, slices):
                    prefetch(total + q * layer.size + j)
            for q in range(1, slices):
                more = total + q * layer.size
                for j from 0 <= j < (hi - lo) * width by LANES:
                    store(total + j, load(total + j) + load(more + j))
            self.update_rows(layer, lo, hi, at, width, &self.one, 0, total, width, u, NULL,
                             NULL)
            v += nv

    cdef double cost_of_rows(self, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
        """The weighted costs of rows lo to hi of a chunk, in the order of the rows."""
        cdef Py_ssize_t s
        cdef double total = 0
        for s in range(lo, hi):
            total += self.costs[s] * (self.weights[s] if self.data.weights != NULL else 1.0)
        return total

    cdef void add_penalties(self) noexcept nogil:
        """The penalty of the step before, whose rows are now all written."""
        cdef Py_ssize_t i
        cdef vec total = splat(0)
        if self.pending_weight > 0:
            for i in range(self.n_rows):
                total = total + load(self.penalties + i * LANES)
            self.cost_sum += sum_of(total) * self.pending_weight
            self.pending_weight = 0

    cdef void finish_step(self, double weight, bint penalised) noexcept nogil:
        """Book-keeping of one thread while the others update: the flag is read past a barrier."""
        self.weight_sum += weight
        self.pending_weight = weight if penalised else 0
        self.n_steps += 1
        if not isfinite(self.cost_sum):
            self.stopping = True
            self.ending = DIVERGENCE
        elif self.n_steps % self.signal_period == 0 and self.signalled():
            self.stopping = True
            self.ending = INTERRUPT

    cdef bint signalled(self) noexcept with gil:
        """Whether a signal's Python handler raised: Ctrl-C between two mini-batches."""
        try:
            PyErr_CheckSignals()
        except KeyboardInterrupt:
            return True
        except BaseException as error:
            self.error = error
            return True
        return False

    cdef void begin_epoch(self) noexcept nogil:
        self.clock = seconds_now()
        self.cost_sum = self.weight_sum = self.pending_weight = 0
        if self.generator != NULL:
            shuffle(self.generator, self.count, <long long *>self.order)
        self.lap = self.clock
        self.book(0, ORDER)

    cdef void end_epoch(self) noexcept nogil:
        self.add_penalties()
        if self.ending == INTERRUPT:
            self.save(self.flat)
            return
        self.last_cost = self.cost_sum / self.weight_sum if self.weight_sum > 0 else 0
        if self.optimizer != NO_UPDATE and self.ending != DIVERGENCE and not (
                isfinite(self.last_cost) and self.save(self.flat)):
            self.ending = DIVERGENCE
        if self.ending == DIVERGENCE:
            self.stopping = True
            return
        self.epoch_costs[self.epochs_done] = self.last_cost
        self.epoch_seconds[self.epochs_done] = seconds_now() - self.clock
        self.epochs_done += 1
        if self.last_cost <= self.target_cost:
            self.ending = TARGET_COST
            self.stopping = True
        elif self.epochs_done == self.epochs:
            self.stopping = True

    cdef void train_team(self, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """All epochs of a call, on one thread of a team."""
        cdef Py_ssize_t at
        if rank == 0:
            self.begin_epoch()
        self.wait(rank, team)
        while True:
            at = 0
            while at < self.count and not self.stopping:
                self.step(rank, team, at, min(self.batch_size, self.count - at),
                          self.rates[self.epochs_done])
                at += self.batch_size
            if rank == 0:
                self.end_epoch()
                if not self.stopping:
                    self.begin_epoch()
            self.wait(rank, team)
            if self.stopping:
                return

    cdef void evaluate_team(self, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """The costs of all examples, without dropout, penalty or update."""
        cdef Py_ssize_t at = 0, n, lo, hi
        while at < self.count:
            n = min(self.capacity, self.count - at)
            lo = n * rank // team
            hi = n * (rank + 1) // team
            self.gather(lo, hi, self.order + at)
            self.forward(lo, hi, False, 0)
            self.compare(lo, hi, 0)
            self.wait(rank, team)
            if rank == 0:
                self.cost_sum += self.cost_of_rows(0, n)
            self.wait(rank, team)
            at += n

    cdef void work(self, bint training, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        cdef unsigned long long mode = flush_subnormals()
        if training:
            self.train_team(rank, team)
        else:
            self.evaluate_team(rank, team)
        restore_subnormals(mode)

    cdef void run(self, bint training, int n_threads) noexcept nogil:
        if n_threads == 1:
            self.work(training, 0, 1)
        else:
            with parallel(num_threads=n_threads):
                self.work(training, threadid(), team_size())

    # -- what Python calls ----------------------------------------------------------------------

    cdef int begin(self, Data data, order, generator) except -1:
        """The examples to visit: `order`, or all of them, shuffled afresh each epoch by `generator`
        where it is given."""
        self.data = data
        self.generator = NULL
        self.stopping = self.ahead = False
        self.ending = EPOCHS
        self.error = None
        self.cost_sum = self.weight_sum = self.pending_weight = 0
        self.epochs_done = 0
        if order is None:
            if (self.own_order is None or len(self.own_order) != data.m or generator is not None
                    or self.shuffled):
                self.own_order = np.arange(data.m, dtype=np.int64)
            self.shuffled = generator is not None
            if generator is not None:
                self.generator = <bitgen_t *>PyCapsule_GetPointer(generator.capsule,
                                                                  "BitGenerator")
            order = self.own_order
        else:
            self.own_order = None
        self.count = len(order)
        self.order = <const long long *>cnp.PyArray_DATA(order)
        return 0

    def train(self, cnp.ndarray parameters not None, Data data not None, Py_ssize_t batch_size,
              cnp.ndarray rates not None, *, order=None, generator=None, double target_cost=-1,
              double momentum=0, double beta_2=0, double epsilon=0, double l1=0, double l2=0,
              bint over_batch=False, unsigned long long dropout_seed=0, Py_ssize_t signal_period=1,
              int n_threads=1):
        """Train len(rates) epochs at those learning rates; `parameters` holds those after each.

        Returns (costs, seconds, ending, last cost): arrays of the finished epochs, one of ENDINGS.
        """
        epochs = len(rates)
        costs, seconds = np.empty(epochs), np.empty(epochs)
        self.begin(data, order, generator)
        self.transposing = self.input_gradient or batch_size > FEW_ROWS
        self.flat = <real *>cnp.PyArray_DATA(parameters)
        self.epoch_costs = <double *>cnp.PyArray_DATA(costs)
        self.epoch_seconds = <double *>cnp.PyArray_DATA(seconds)
        self.rates = <const double *>cnp.PyArray_DATA(rates)
        self.epochs, self.batch_size = epochs, batch_size
        self.target_cost, self.momentum, self.beta_2 = target_cost, momentum, beta_2
        self.epsilon, self.l1, self.l2, self.over_batch = epsilon, l1, l2, over_batch
        self.dropout_seed, self.signal_period = dropout_seed, signal_period
        with nogil:
            self.load(self.flat)
            self.run(True, n_threads)
        self.data = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        n = self.epochs_done
        return costs[:n], seconds[:n], ENDINGS[self.ending], self.last_cost

    def gradient(self, cnp.ndarray parameters not None, Data data not None,
                 cnp.ndarray gradient not None, *, double l1=0, double l2=0, int n_threads=1):
        """The mean cost plus penalty of all examples; its gradient goes into `gradient`."""
        cdef double rate = 0, cost, seconds
        cdef Py_ssize_t l
        cdef Layer *layer
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        cdef real *out = <real *>cnp.PyArray_DATA(gradient)
        self.begin(data, None, None)
        self.transposing = self.input_gradient or data.m > FEW_ROWS
        self.epoch_costs, self.epoch_seconds, self.rates = &cost, &seconds, &rate
        self.epochs, self.batch_size, self.target_cost = 1, data.m, -1
        self.l1, self.l2, self.over_batch, self.signal_period = l1, l2, False, 1 << 62
        with nogil:
            if self.sparse:
                memset(self.layers[0].gradient, 0, self.layers[0].size * sizeof(real))
            self.load(flat)
            self.run(True, n_threads)
            for l in range(self.n_layers):
                layer = &self.layers[l]
                unpack(layer.rows, layer.n_out, layer.gradient, out + layer.offset)
        self.data = None
        return self.last_cost

    def evaluate(self, cnp.ndarray parameters not None, Data data not None, int n_threads=1):
        """The mean cost of all examples, without penalty."""
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        self.begin(data, None, None)
        self.transposing = False
        with nogil:
            self.load(flat)
            self.run(False, n_threads)
        self.data = None
        return self.cost_sum / data.total_weight if data.total_weight > 0 else 0.0

    def jacobian(self, cnp.ndarray parameters not None, Data data not None,
                 cnp.ndarray out not None):
        """dA_L/dX of every example into `out` (m, n_y, n_x): one backward pass an output."""
        cdef Layer *last = &self.layers[self.n_layers - 1]
        cdef Py_ssize_t at = 0, n, s, k, j
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        cdef real *jacobian = <real *>cnp.PyArray_DATA(out)
        cdef real *d
        cdef const real *a
        self.begin(data, None, None)
        self.transposing = True
        with nogil:
            self.load(flat)
            while at < self.count:
                n = min(self.capacity, self.count - at)
                self.data.gather(NULL, at, n, self.input, self.input_stride)
                self.forward(0, n, False, 0)
                if last.activation == SOFTMAX:
                    softmax_rows(n, last.n_out, last.stride, last.z, last.a, self.costs,
                                 self.totals)
                for k in range(last.n_out):
                    for s in range(n):
                        d = last.d + s * last.stride
                        a = last.a + s * last.stride
                        for j in range(last.n_out):
                            if last.activation == SOFTMAX:
                                d[j] = a[k] * ((j == k) - a[j])
                            else:
                                d[j] = j == k
                    if last.activation != SOFTMAX:
                        differentiate(last.activation, last.parameter, n, last.vectors,
                                      last.stride, last.z, last.a, last.d)
                    self.backward(0, n, 0)
                    self.times_transposed(&self.layers[0], 0, n, self.input, self.input_stride)
                    for s in range(n):
                        memcpy(jacobian + ((at + s) * last.n_out + k) * self.n_x,
                               self.input + s * self.input_stride, self.n_x * sizeof(real))
                at += n
        self.data = None


include "inference.pxi"
include "functions_of_arrays.pxi"
