# Prediction: one row with the least latency, many rows with the most throughput.
#
# Design: a row is pushed through the flat parameters as they stand, with scratch on the stack, so
# that a change of the parameters needs no bookkeeping and threads share nothing. Whole vectors are
# loaded past the end of a row of W: the lanes beyond n_out carry the next row's numbers and are
# never looked at (the network allocates its parameters with a vector to spare). Many rows are worth
# packing the weights first; then blocks of rows pass through all layers: each thread begins with
# blocks of its own, one after the other, and takes over what others have left. The next layer's
# weights, if they are many, and the next block of X are fetched while products are computed. Rows
# of the network's type are read where they lie, and looked through for NaN and infinity just before
# the product wants them, when that costs no trip to memory. The scratch is kept for the next call.
# Either way each sum is one chain in the order of the inputs, in the tiles of `product` or, for one
# row alone, in the wider ones of `row_product`: so a row does not depend on its company.

cdef enum:
    STACK_NUMBERS = 4096    # three of these are scratch enough for one row of most nets
    BLOCK_ROWS = 96         # rows that pass through the layers together: L2 holds their blocks
    PACKING_ROWS = 24       # from here on packing the weights pays


@cython.final
cdef class Predictor:
    """The forward pass over a network's own flat parameters.

    Parameters
    ----------
    sizes, activations : as for Engine
    parameters : ndarray, flat, of the network's type, with a vector's worth of numbers to spare.
    """

    cdef object parameters
    cdef const real *flat
    cdef Layer *layers
    cdef Py_ssize_t n_layers, n_x, n_y, widest, input_stride
    cdef object spares  # scratch of calls that are over

    def __cinit__(self, sizes, *args):
        self.n_layers = len(sizes) - 1
        self.layers = <Layer *>PyMem_RawCalloc(self.n_layers, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.layers)

    def __init__(self, sizes, activations, parameters):
        cdef Py_ssize_t l, offset = 0
        cdef Layer *layer
        self.parameters = parameters
        self.spares = []
        self.flat = <const real *>cnp.PyArray_DATA(parameters)
        self.n_x, self.n_y = sizes[0], sizes[self.n_layers]
        self.widest = block_stride(max(sizes[1:]))
        self.input_stride = block_stride(self.n_x)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            layer.n_in, layer.n_out = sizes[l], sizes[l + 1]
            layer.rows = layer.n_in + 1
            layer.vectors = vectors_of(layer.n_out)
            layer.size = layer.rows * layer.vectors * LANES
            layer.offset = offset
            layer.activation, layer.parameter = ACTIVATIONS[activations[l][0]], activations[l][1]
            offset += layer.rows * layer.n_out

    cdef const real *through(self, Py_ssize_t rows, const real *a, Py_ssize_t stride,
                             const real *packed, Region wanted, real *one,
                             real *other) noexcept nogil:
        """All layers over rows of A; returns the block, rows `widest` apart, of the outputs.

        Where a is NULL, `one` already holds the first layer's pre-activations. What is wanted after
        this, of X, is fetched with the first layer; what a layer reads, with the one before.
        """
        cdef Py_ssize_t l
        cdef Layer *layer
        cdef Layer *following
        cdef real largest[BLOCK_ROWS]
        cdef real totals[BLOCK_ROWS]
        cdef real *z = one
        cdef const real *first = packed
        for l in range(self.n_layers):
            layer = &self.layers[l]
            if l > 0:
                wanted = nowhere()
                if packed != NULL:  # after the last layer, the first one's for the next block
                    following = layer + 1 if l + 1 < self.n_layers else self.layers
                    wanted = rows_of_panel(packed + layer.size if l + 1 < self.n_layers else first,
                                           following.vectors, following.rows, 0, 0, following.rows)
            if layer.n_out == 1 and l > 0:
                self.column(layer, rows, a, z)
            elif rows == 1 and packed == NULL and a != NULL:
                row_product(layer.vectors, layer.n_in, a, self.flat + layer.offset, layer.n_out, z)
            elif a != NULL:
                product(rows, layer.vectors, 0, panels_of(layer.vectors), layer.n_in, a,
                        stride, 1, self.flat + layer.offset if packed == NULL else packed,
                        layer.n_out if packed == NULL else 0, layer.rows, 0, True, False, z,
                        self.widest, wanted)
            if packed != NULL:
                packed += layer.size
            if layer.activation == SOFTMAX:
                softmax_rows(rows, layer.n_out, self.widest, z, z, largest, totals)
            else:
                activate(layer.activation, layer.parameter, rows, layer.vectors, self.widest, z, z)
            a = z
            stride = self.widest
            z = other if z == one else one
        return a

    cdef void column(self, const Layer *layer, Py_ssize_t rows, const real *a,
                     real *z) noexcept nogil:
        """A layer of one unit, whose tiles would use one lane of a vector: its weights, a column,
        lie side by side, and each row's product with them is a dot product."""
        cdef const real *w = self.flat + layer.offset
        cdef Py_ssize_t vectors = layer.n_in // LANES, s, j
        dot_columns(rows, 1, vectors, 0, panels_of(vectors), a, self.widest, w, w + layer.n_in,
                    False, z, self.widest)
        for s in range(rows):  # lanes past n_in may hold anything
            for j in range(vectors * LANES, layer.n_in):
                z[s * self.widest] += a[s * self.widest + j] * w[j]

    def predict_one(self, x, out=None, shift=None, scale=None):
        """One row (n_x,) -> (n_y,); None where x or out is not as the fast path needs it."""
        cdef real stack[3 * STACK_NUMBERS]
        cdef real *scratch = stack
        cdef const real *a
        cdef const real *row
        cdef Py_ssize_t j
        cdef int kind = cnp.NPY_FLOAT32 if sizeof(real) == 4 else cnp.NPY_FLOAT64
        cdef cnp.npy_intp shape
        if not (cnp.PyArray_Check(x) and cnp.PyArray_TYPE(x) == kind and cnp.PyArray_NDIM(x) == 1
                and cnp.PyArray_DIM(x, 0) == self.n_x and cnp.PyArray_ISCARRAY_RO(x)):
            return None
        if out is None:
            shape = self.n_y
            out = cnp.PyArray_EMPTY(1, &shape, kind, 0)
        elif not (cnp.PyArray_Check(out) and cnp.PyArray_TYPE(out) == kind
                  and cnp.PyArray_NDIM(out) == 1 and cnp.PyArray_DIM(out, 0) == self.n_y
                  and cnp.PyArray_ISCARRAY(out)):
            return None
        row = <const real *>cnp.PyArray_DATA(x)
        if not all_finite(self.n_x, row):
            return None
        if 2 * self.widest + self.n_x > 3 * STACK_NUMBERS:
            scratch = <real *>PyMem_RawCalloc(2 * self.widest + self.n_x, sizeof(real))
            if scratch == NULL:
                raise MemoryError
        if scale is not None:
            convert_row(row, 1, self.n_x, <const double *>cnp.PyArray_DATA(shift),
                        <const double *>cnp.PyArray_DATA(scale), scratch + 2 * self.widest)
            row = scratch + 2 * self.widest
        a = self.through(1, row, self.n_x, NULL, nowhere(), scratch, scratch + self.widest)
        memcpy(<real *>cnp.PyArray_DATA(out), a, self.n_y * sizeof(real))
        if scratch != stack:
            PyMem_RawFree(scratch)
        return out

    cdef bint block(self, Data data, Py_ssize_t first, Py_ssize_t rows, const real *packed,
                    real *scratch, real *out) noexcept nogil:
        """Predict some rows; False where one read in place is not finite."""
        cdef Py_ssize_t s, stride = self.input_stride
        cdef bint finite = True
        cdef real *input = scratch + 2 * BLOCK_ROWS * self.widest
        cdef const real *a = input
        cdef Region wanted = nowhere()
        if data.is_sparse:
            for s in range(rows):
                self.sparse_row(data, first + s, scratch + s * self.widest)
            a = NULL
        elif data.plain:
            a = <const real *>(data.x + first * data.row_bytes)
            stride = data.row_bytes // <Py_ssize_t>sizeof(real)
            wanted.at = <const char *>(a + rows * stride)
            wanted.bytes = min(rows, data.m - first - rows) * data.row_bytes
            if stride == self.n_x:  # one after the other, and looked through as one
                finite = all_finite(rows * stride, a)
            else:
                for s in range(rows):
                    finite = finite and all_finite(self.n_x, a + s * stride)
            if not finite:
                return False
        else:
            data.gather(NULL, first, rows, input, stride)
        a = self.through(rows, a, stride, packed, wanted, scratch,
                         scratch + BLOCK_ROWS * self.widest)
        for s in range(rows):
            memcpy(out + (first + s) * self.n_y, a + s * self.widest, self.n_y * sizeof(real))
        return True

    cdef void sparse_row(self, Data data, Py_ssize_t i, real *z) noexcept nogil:
        """z = x W_1 + b_1 of a CSR row."""
        cdef Layer *layer = &self.layers[0]
        cdef const real *w = self.flat + layer.n_in * layer.n_out
        cdef Py_ssize_t j, t
        for j from 0 <= j < layer.n_out by LANES:
            store(z + j, load(w + j))
        for t in range(data.indptr[i], data.indptr[i + 1]):
            w = self.flat + data.indices[t] * layer.n_out
            for j from 0 <= j < layer.n_out by LANES:
                store(z + j, load(z + j) + load(w + j) * data.values[t])

    cdef bint blocks(self, Data data, const real *packed, real *scratch, real *out, place *places,
                     Py_ssize_t n_threads, Py_ssize_t owner, Py_ssize_t rank) noexcept nogil:
        """Those of one owner's blocks that are left, on the thread `rank`; False as `block`."""
        cdef Py_ssize_t count = blocks_of(data.m, BLOCK_ROWS), b, first
        cdef long long task = claim(places, <int>owner, <int>rank)
        while task >= 0:
            b = part_of(count, owner, n_threads) + task
            first = part_of(data.m, b, count)
            if not self.block(data, first, part_of(data.m, b + 1, count) - first, packed, scratch,
                              out):
                return False
            task = claim(places, <int>owner, <int>rank)
        return True

    cdef bint team(self, Data data, const real *packed, real *scratch, real *out, place *places,
                   Py_ssize_t n_threads, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """One thread's part; of a team smaller than was asked for, several owners'."""
        cdef Py_ssize_t owner
        scratch += rank * self.scratch_numbers(data)
        for owner from rank <= owner < n_threads by team:
            if not self.blocks(data, packed, scratch, out, places, n_threads, owner, owner):
                return False
        for owner in range(n_threads):
            if owner % team != rank and not self.blocks(data, packed, scratch, out, places,
                                                        n_threads, owner, rank):
                return False
        return True

    cdef Py_ssize_t scratch_numbers(self, Data data) noexcept nogil:
        """Numbers of scratch a thread needs: two blocks to pass between, one of inputs."""
        cdef bint gathers = not (data.is_sparse or data.plain)
        return BLOCK_ROWS * (2 * self.widest + (self.input_stride if gathers else 0))

    def predict(self, Data data not None, cnp.ndarray out not None, int n_threads=1):
        """All rows of `data` into `out` (m, n_y), C-ordered and of the network's type.

        Returns whether all rows that are read in place (`data.plain`) are finite; otherwise `out`
        is of no use.
        """
        cdef Py_ssize_t l, numbers = n_threads * self.scratch_numbers(data) + LANES
        cdef Py_ssize_t weights = 0, size
        cdef real *scratch
        cdef real *packed = NULL
        cdef real *target = <real *>cnp.PyArray_DATA(out)
        cdef bint *finite
        cdef place *places
        cdef int i
        cdef Layer *layer
        if data.m >= PACKING_ROWS:
            for l in range(self.n_layers):
                weights += self.layers[l].size
        size = ((numbers + weights) * sizeof(real) + CACHE_LINE
                + n_threads * (sizeof(bint) + sizeof(place)))
        try:
            memory = self.spares.pop()  # while in use: two threads never share one
        except IndexError:
            memory = None
        if memory is None or len(memory) < size:
            memory = np.empty(size, np.uint8)
        cdef size_t address = <size_t>cnp.PyArray_DATA(memory)
        places = <place *>address
        address += n_threads * sizeof(place)
        finite = <bint *>address
        address += n_threads * sizeof(bint)
        scratch = <real *>((address + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE)
        with nogil:
            if data.m >= PACKING_ROWS:
                packed = scratch
                scratch += weights
                for l in range(self.n_layers):
                    layer = &self.layers[l]
                    pack(0, layer.rows, layer.n_out, 0, panels_of(layer.vectors),
                         self.flat + layer.offset, layer.n_out, packed, layer.rows)
                    packed += layer.size
                packed -= weights
            memset(places, 0, n_threads * sizeof(place))
            for i in range(n_threads):
                finite[i] = True
                offer(&places[i], part_of(blocks_of(data.m, BLOCK_ROWS), i + 1, n_threads)
                      - part_of(blocks_of(data.m, BLOCK_ROWS), i, n_threads))
            if n_threads == 1:
                finite[0] = self.team(data, packed, scratch, target, places, 1, 0, 1)
            else:
                with parallel(num_threads=n_threads):
                    finite[threadid()] = self.team(data, packed, scratch, target, places, n_threads,
                                                   threadid(), team_size())
        if not self.spares:
            self.spares.append(memory)
        for i in range(n_threads):
            if not finite[i]:
                return False
        return True
