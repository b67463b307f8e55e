# Cost and gradient of a network a few units wide, called from Python: the shortest way there and
# back.
#
# Design: blocks that are turned (turned.pxi), with W read from the flat parameters as they stand.
# 24-8-2 on 200 examples takes less than half of the engine's time, 30-30-30 nine tenths; more
# examples of the latter than a block the engine's threads share. Penalties and CSR go the engine's
# way.

@cython.final
cdef class NarrowGradient:
    """The workspace of `gradient` for narrow networks; see the top of the file.

    Parameters
    ----------
    sizes, activations, loss : as for Engine.
    """

    cdef Turned turned
    cdef TurnedLayer *layers
    cdef object memory
    cdef Data block  # what `gradient_of` reads, during a call

    def __cinit__(self, sizes, *args):
        self.layers = <TurnedLayer *>PyMem_RawCalloc(len(sizes) - 1, sizeof(TurnedLayer))
        if self.layers == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.layers)

    def __init__(self, sizes, activations, loss):
        cdef Py_ssize_t l
        for l in range(len(activations)):
            self.layers[l].n_in, self.layers[l].n_out = sizes[l], sizes[l + 1]
            self.layers[l].activation = ACTIVATIONS[activations[l][0]]
            self.layers[l].parameter = activations[l][1]
        describe(&self.turned, self.layers, len(activations), TURNED_ROWS)
        self.turned.loss, self.turned.loss_parameter = LOSSES[loss[0]], loss[1]
        self.block = Data.__new__(Data)
        self.block.n_x, self.block.n_y = self.turned.n_x, self.turned.n_y
        self.memory = np.zeros(numbers_of(&self.turned) + CACHE_LINE // sizeof(real),
                               np.float32 if sizeof(real) == 4 else np.float64)
        lay_out(&self.turned, <real *>((<size_t>cnp.PyArray_DATA(self.memory) + CACHE_LINE - 1)
                                       // CACHE_LINE * CACHE_LINE))

    cdef double backpropagate(self, const real *flat, Data data, real *gradient) noexcept nogil:
        """The mean cost; its gradient goes into `gradient` (n_parameters,), unless that is NULL."""
        cdef Turned *turned = &self.turned
        cdef Py_ssize_t first = 0, rows, vectors, l
        cdef double cost = 0
        for l in range(turned.n_layers):
            turned.layers[l].weights = flat + turned.layers[l].offset
        while first < data.m:
            rows = min(turned.rows, data.m - first)
            vectors = vectors_of(rows)
            take_examples(turned, data, NULL, first, rows)
            forward_turned(turned, vectors)
            cost += compare_turned(turned, rows, data.weights != NULL,
                                   1 / data.total_weight)
            for l in range(turned.n_layers - 1 if gradient != NULL else -1, -1, -1):
                add_gradient(turned, l, rows, first > 0, gradient)
                if l > 0:
                    backward_turned(turned, l, vectors)
            first += rows
        return cost / data.total_weight

    def gradient(self, cnp.ndarray parameters not None, Data data not None):
        """(cost, gradient) as of `Engine.gradient`, for dense data and without penalties."""
        cdef cnp.ndarray gradient = like(parameters)
        cdef double cost
        with nogil:
            cost = self.backpropagate(<const real *>cnp.PyArray_DATA(parameters), data,
                                      <real *>cnp.PyArray_DATA(gradient))
        return cost, gradient

    def evaluate(self, cnp.ndarray parameters not None, Data data not None):
        """The mean cost, as of `Engine.evaluate`, for dense data."""
        cdef double cost
        with nogil:
            cost = self.backpropagate(<const real *>cnp.PyArray_DATA(parameters), data, NULL)
        return cost

    def gradient_of(self, cnp.ndarray parameters not None, X, y, sample_weight, l2, l1):
        """(cost, gradient) of one block of examples without weights and penalties, by the shortest
        way; None where an argument is not as that needs it, or a result not finite.

        The interpreter is not let go: a block takes a few microseconds. X is not looked through:
        each of its numbers is a factor of the gradient, which would not be finite either.
        """
        cdef Data data = self.block
        cdef cnp.ndarray gradient
        cdef double cost
        cdef Py_ssize_t size = cnp.PyArray_DIM(parameters, 0)
        cdef const real *flat = <const real *>cnp.PyArray_DATA(parameters)
        if sample_weight is not None or not (is_zero(l2) and is_zero(l1)):
            return None
        if not (reads_matrices(data, X, y) and data.m <= TURNED_ROWS and all_finite(size, flat)
                and all_finite(data.m * data.n_y, data.y)):
            return None
        gradient = like(parameters)
        cost = self.backpropagate(flat, data, <real *>cnp.PyArray_DATA(gradient))
        if not (isfinite(cost) and all_finite(size, <const real *>cnp.PyArray_DATA(gradient))):
            return None
        return cost, gradient


cdef inline bint is_zero(x):
    return type(x) is float and <double>x == 0


cdef inline cnp.ndarray like(cnp.ndarray flat):
    """A flat array of that size and of this module's type, with whatever memory held."""
    cdef cnp.npy_intp size = cnp.PyArray_DIM(flat, 0)
    return cnp.PyArray_EMPTY(1, &size, cnp.NPY_FLOAT32 if sizeof(real) == 4 else cnp.NPY_FLOAT64, 0)


def most_narrow_rows(sizes):
    """Examples up to which this way is the shortest for a network of these widths: 0 where it has
    many weights; one block; or any number, where rows of its units would leave most lanes empty."""
    cdef Py_ssize_t numbers = 0, padded = 0
    for n_in, n_out in zip(sizes, sizes[1:]):
        numbers += (n_in + 1) * n_out
        padded += (n_in + 1) * vectors_of(n_out) * LANES
    if numbers > NARROW_WEIGHTS:
        return 0
    return (1 << 62) if 2 * numbers <= padded else TURNED_ROWS
