# Cost and gradient of networks a few units wide, with one example a lane.
#
# Design: where a layer is narrower than a vector, rows of units leave most lanes empty. Here blocks
# are turned: A^T (n, examples), a row a unit, and every lane works whatever the widths. The
# products are the same `product`, with W broadcast from the flat parameters as they stand (nothing
# is packed, and nothing transposed but X and y):
#     Z_l^T = [W_l; b_l]^T [A_{l-1}^T; 1],   dA_{l-1}^T = W_l dZ_l^T
# The weight gradient alone sums across lanes: dW_l = A_{l-1}^T dZ_l are dot products of rows, a
# tile of them at a time, a vector of sums for each weight in the order of the flat parameters;
# after the last block these are woven into numbers. Costs go by `loss_of`, as in costs.pxi. 24-8-2
# on 200 examples takes less than half of the engine's time, 30-30-30 nine tenths; more examples of
# the latter than a block the engine's threads share.
# Rejected: the same for training (one step of so small a net is bound by latencies either way).
# Penalties, weights, classes and CSR go the engine's way.

cdef enum:
    NARROW_ROWS = 256    # examples in a block; its A and dZ stay in L1 and L2
    NARROW_WEIGHTS = 2048  # of a network whose every dot product is worth its sum across lanes


cdef inline void dots(const int mr, const int nr, Py_ssize_t vectors,
                      const real *a,     # IN  (mr, vectors), rows `stride` apart
                      const real *d,     # IN  (nr, vectors), likewise
                      Py_ssize_t stride,
                      bint more,         # whether sums are added to
                      real *sums,        # OUT (mr, nr vectors) a_i d_j in LANES parts
                      Py_ssize_t sums_row) noexcept nogil:
    cdef vec total[MR][NV]
    cdef vec x
    cdef vec y[NV]
    cdef Py_ssize_t k, once
    cdef int i, j
    for once in range(1):  # a loop around the others keeps `total` in registers: see `tiles`
        for i in range(mr):
            for j in range(nr):
                total[i][j] = load(sums + i * sums_row + j * LANES) if more else splat(0)
        for k in range(vectors):
            for j in range(nr):
                y[j] = load(d + j * stride + k * LANES)
            for i in range(mr):
                x = load(a + i * stride + k * LANES)
                for j in range(nr):
                    total[i][j] = total[i][j] + x * y[j]
        for i in range(mr):
            for j in range(nr):
                store(sums + i * sums_row + j * LANES, total[i][j])


cdef inline void dots_of_columns(const int mr, Py_ssize_t nr, Py_ssize_t vectors, const real *a,
                                 const real *d, Py_ssize_t stride, bint more, real *sums,
                                 Py_ssize_t sums_row) noexcept nogil:
    if NV >= 4 and nr == 4:
        dots(mr, 4, vectors, a, d, stride, more, sums, sums_row)
    elif NV >= 3 and nr == 3:
        dots(mr, 3, vectors, a, d, stride, more, sums, sums_row)
    elif nr == 2:
        dots(mr, 2, vectors, a, d, stride, more, sums, sums_row)
    else:
        dots(mr, 1, vectors, a, d, stride, more, sums, sums_row)


cdef void dots_of(Py_ssize_t mr, Py_ssize_t nr, Py_ssize_t vectors, const real *a, const real *d,
                  Py_ssize_t stride, bint more, real *sums, Py_ssize_t sums_row) noexcept nogil:
    """`dots` with its sizes known at run time."""
    if MR >= 6 and mr == 6:
        dots_of_columns(6, nr, vectors, a, d, stride, more, sums, sums_row)
    elif MR >= 5 and mr == 5:
        dots_of_columns(5, nr, vectors, a, d, stride, more, sums, sums_row)
    elif mr == 4:
        dots_of_columns(4, nr, vectors, a, d, stride, more, sums, sums_row)
    elif mr == 3:
        dots_of_columns(3, nr, vectors, a, d, stride, more, sums, sums_row)
    elif mr == 2:
        dots_of_columns(2, nr, vectors, a, d, stride, more, sums, sums_row)
    else:
        dots_of_columns(1, nr, vectors, a, d, stride, more, sums, sums_row)


cdef struct Turned:
    # One layer's blocks, a row a unit and the examples along it.
    Py_ssize_t n_in, n_out, offset
    int activation
    real parameter
    real *z                # (n_out, stride); a itself where g' needs no z
    real *a                # (n_out + 1, stride), the last row ones
    real *d                # (n_out, stride) dJ/dZ


@cython.final
cdef class NarrowGradient:
    """The workspace of `gradient` for narrow networks; see the top of the file.

    Parameters
    ----------
    sizes, activations, loss : as for Engine; the output is not softmax.
    """

    cdef Turned *layers
    cdef Py_ssize_t n_layers, n_x, n_parameters, stride, spare_row
    cdef int loss
    cdef real loss_parameter
    cdef real *input       # (n_x + 1, stride) X^T, the last row ones
    cdef real *target      # (n_y, stride) y^T
    cdef real *spare       # (LANES, spare_row) the rows of a square that is not read in place
    cdef real *sums        # (n_parameters, LANES) the gradient before its lanes are added up
    cdef object memory

    def __cinit__(self, sizes, *args):
        self.n_layers = len(sizes) - 1
        self.layers = <Turned *>PyMem_RawCalloc(self.n_layers, sizeof(Turned))
        if self.layers == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.layers)

    def __init__(self, sizes, activations, loss):
        cdef Py_ssize_t l, j, offset = 0, rows
        cdef Turned *layer
        cdef real *at
        self.loss, self.loss_parameter = LOSSES[loss[0]], loss[1]
        self.n_x = sizes[0]
        self.stride = NARROW_ROWS + CACHE_LINE // sizeof(real)  # not a power of two apart
        self.spare_row = vectors_of(max(sizes[0] + 1, sizes[self.n_layers])) * LANES
        self.n_parameters = sum((n_in + 1) * n_out for n_in, n_out in zip(sizes, sizes[1:]))
        rows = sizes[0] + 1 + sizes[self.n_layers] + sum(3 * n + 1 for n in sizes[1:])
        numbers = rows * self.stride + LANES * (
            self.spare_row + vectors_of(self.n_parameters) * LANES)
        self.memory = np.zeros(numbers + CACHE_LINE // sizeof(real),
                               np.float32 if sizeof(real) == 4 else np.float64)
        at = <real *>((<size_t>cnp.PyArray_DATA(self.memory) + CACHE_LINE - 1)
                      // CACHE_LINE * CACHE_LINE)
        self.input = at
        at += (self.n_x + 1) * self.stride
        for j in range(self.stride):
            self.input[self.n_x * self.stride + j] = 1
        for l in range(self.n_layers):
            layer = &self.layers[l]
            layer.n_in, layer.n_out, layer.offset = sizes[l], sizes[l + 1], offset
            layer.activation, layer.parameter = ACTIVATIONS[activations[l][0]], activations[l][1]
            offset += (layer.n_in + 1) * layer.n_out
            layer.a = layer.z = at
            at += (layer.n_out + 1) * self.stride
            for j in range(self.stride):
                layer.a[layer.n_out * self.stride + j] = 1
            if l == self.n_layers - 1 or needs_preactivation(layer.activation, layer.parameter):
                layer.z = at
                at += layer.n_out * self.stride
            layer.d = at
            at += layer.n_out * self.stride
        self.target = at
        self.spare = at + self.layers[self.n_layers - 1].n_out * self.stride
        self.sums = self.spare + LANES * self.spare_row

    cdef void turn_inputs(self, Data data, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        """X^T of a block: whole squares of vectors from where they lie, others through `spare`."""
        cdef Py_ssize_t s, n, row = data.row_bytes // <Py_ssize_t>sizeof(real)
        for s from 0 <= s < rows by LANES:
            n = min(LANES, rows - s)
            # A square reads on where a row ends: only where there is more of X behind it.
            if data.plain and n == LANES and (data.m - first - s - LANES) * row >= LANES:
                self.turn(<const real *>data.x + (first + s) * row, row, self.n_x, s, self.input)
            else:
                self.clear_spare(n)
                data.gather(NULL, first + s, n, self.spare, self.spare_row)
                self.turn(self.spare, self.spare_row, self.n_x, s, self.input)

    cdef void clear_spare(self, Py_ssize_t n) noexcept nogil:
        """Zeros in the rows of a square past n: what an output makes of old ones might be infinite,
        and infinity times a slope of 0 is not 0."""
        memset(self.spare + n * self.spare_row, 0, (LANES - n) * self.spare_row * sizeof(real))

    cdef void turn_targets(self, Data data, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        """y^T of a block."""
        cdef Py_ssize_t s, i, n
        cdef const real *y = data.y + first * data.n_y
        for s from 0 <= s < rows by LANES:
            n = min(LANES, rows - s)
            if n == LANES and (data.m - first - s - LANES) * data.n_y >= LANES:
                self.turn(y + s * data.n_y, data.n_y, data.n_y, s, self.target)
            else:
                self.clear_spare(n)
                for i in range(n):
                    memcpy(self.spare + i * self.spare_row, y + (s + i) * data.n_y,
                           data.n_y * sizeof(real))
                self.turn(self.spare, self.spare_row, data.n_y, s, self.target)

    cdef inline void turn(self, const real *square, Py_ssize_t row, Py_ssize_t width,
                          Py_ssize_t s, real *turned) noexcept nogil:
        """(LANES, width), rows `row` apart, into columns s to s + LANES of (width, stride)."""
        cdef Py_ssize_t j
        for j from 0 <= j < width by LANES:
            transpose_block(square + j, row, min(LANES, width - j), turned + j * self.stride + s,
                            self.stride)

    cdef double compare(self, Py_ssize_t rows, real factor) noexcept nogil:
        """The sum of the block's costs; dZ^T of the output, times factor, 0 past the last row."""
        cdef Turned *last = &self.layers[self.n_layers - 1]
        cdef Py_ssize_t s, o
        cdef vec c, slope, z, a, total = splat(0)
        cdef bint matched = is_matched(self.loss, last.activation)
        for s from 0 <= s < rows by LANES:
            for o in range(last.n_out):
                z = load(last.z + o * self.stride + s)
                a = load(last.a + o * self.stride + s)
                c = loss_of_kind(self.loss, self.loss_parameter, last.activation, z, a,
                                 load(self.target + o * self.stride + s), &slope)
                if not matched:
                    slope = slope * g_prime(last.activation, last.parameter, z, a)
                total = total + within(c, rows, s, 0)
                store(last.d + o * self.stride + s, within(slope * factor, rows, s, 0))
        return sum_of(total)

    cdef void add_gradient(self, const Turned *layer, const real *a, Py_ssize_t vectors,
                           bint more) noexcept nogil:
        """dW_l and db_l of a block, (n_in + 1, n_out): dot products of rows of A^T and dZ^T."""
        cdef Parts tiles = parts_of(layer.n_in + 1, MR), columns = parts_of(layer.n_out, NV)
        cdef Py_ssize_t t, c, mr, nr, j
        cdef real *sums = self.sums + layer.offset * LANES
        for t in range(tiles.number):
            mr = tiles.size + (t < tiles.larger)
            j = 0
            for c in range(columns.number):
                nr = columns.size + (c < columns.larger)
                dots_of(mr, nr, vectors, a, layer.d + j * self.stride, self.stride, more,
                        sums + j * LANES, layer.n_out * LANES)
                j += nr
            a += mr * self.stride
            sums += mr * layer.n_out * LANES

    cdef void weave(self, real *gradient) noexcept nogil:
        """The gradient from its sums in LANES parts."""
        cdef Py_ssize_t k
        for k from 0 <= k < self.n_parameters by LANES:
            store_first(gradient + k, sums_of(<vec *>self.sums + k), self.n_parameters - k)

    cdef double backpropagate(self, const real *flat, Data data, real *gradient) noexcept nogil:
        """The mean cost; its gradient goes into `gradient` (n_parameters,)."""
        cdef Py_ssize_t first = 0, rows, vectors, l
        cdef Turned *layer
        cdef const real *a
        cdef double cost = 0
        while first < data.m:
            rows = min(NARROW_ROWS, data.m - first)
            vectors = vectors_of(rows)
            self.turn_inputs(data, first, rows)
            self.turn_targets(data, first, rows)
            a = self.input
            for l in range(self.n_layers):
                layer = &self.layers[l]
                product(layer.n_out, vectors, 0, panels_of(vectors), layer.n_in + 1,
                        flat + layer.offset, 1, layer.n_out, a, self.stride, layer.n_in + 1, 0,
                        False, False, layer.z, self.stride, nowhere())
                activate(layer.activation, layer.parameter, layer.n_out, vectors, self.stride,
                         layer.z, layer.a)
                a = layer.a
            cost += self.compare(rows, <real>(1.0 / data.m))
            for l in range(self.n_layers - 1, -1, -1):
                layer = &self.layers[l]
                self.add_gradient(layer, self.layers[l - 1].a if l > 0 else self.input, vectors,
                                  first > 0)
                if l > 0:
                    product(layer.n_in, vectors, 0, panels_of(vectors), layer.n_out,
                            flat + layer.offset, layer.n_out, 1, layer.d, self.stride,
                            layer.n_out, 0, False, False, self.layers[l - 1].d, self.stride,
                            nowhere())
                    differentiate(self.layers[l - 1].activation, self.layers[l - 1].parameter,
                                  layer.n_in, vectors, self.stride, self.layers[l - 1].z,
                                  self.layers[l - 1].a, self.layers[l - 1].d)
            first += rows
        self.weave(gradient)
        return cost / data.m

    def gradient(self, cnp.ndarray parameters not None, Data data not None):
        """(cost, gradient) as of `Engine.gradient`, for data that are `simple`."""
        cdef cnp.ndarray gradient = like(parameters)
        cdef double cost
        with nogil:
            cost = self.backpropagate(<const real *>cnp.PyArray_DATA(parameters), data,
                                      <real *>cnp.PyArray_DATA(gradient))
        return cost, gradient

    def gradient_of(self, cnp.ndarray parameters not None, X, y, sample_weight, l2, l1):
        """(cost, gradient) of one block of examples without weights and penalties, by the shortest
        way; None where an argument is not as that needs it, or a result not finite.

        The interpreter is not let go: a block takes a few microseconds. X is not looked through:
        each of its numbers is a factor of the gradient, which would not be finite either.
        """
        cdef Data data
        cdef cnp.ndarray gradient
        cdef double cost
        cdef Py_ssize_t size = cnp.PyArray_DIM(parameters, 0)
        cdef const real *flat = <const real *>cnp.PyArray_DATA(parameters)
        if sample_weight is not None or not (is_zero(l2) and is_zero(l1)):
            return None
        data = matrices(X, y, self.n_x, self.layers[self.n_layers - 1].n_out)
        if data is None or data.m > NARROW_ROWS or not (all_finite(size, flat) and all_finite(
                data.m * data.n_y, data.y)):
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
    return (1 << 62) if 2 * numbers <= padded else NARROW_ROWS
