# Prediction: one row with the least latency, many rows with the most throughput.
#
# Design: a row is pushed through the flat parameters as they stand, with scratch on the stack, so
# that a change of the parameters needs no bookkeeping and threads share nothing. Whole vectors are
# loaded past the end of a row of W: the lanes beyond n_out carry the next row's numbers and are
# never looked at (the network allocates its parameters with a vector to spare). Many rows are worth
# packing the weights first; then blocks of rows pass through all layers: each thread begins with
# blocks of its own, one after the other, and takes over what others have left. The next layer's
# weights, if they are many, and the next block of X are fetched while products are computed. Rows
# of the network's type are read where they lie. They are not looked through for NaN and infinity:
# one such number makes every pre-activation of the first layer NaN or infinite, so a vector of
# those tells, and X is looked at only then (64-100-10 1.04). The scratch is kept for the next call.
# Either way each sum is one chain in the order of the inputs, in the tiles of `product` or, for one
# row alone, in the wider ones of `row_product`: so a row does not depend on its company. Nor where
# blocks of many rows have an example a lane (turned.pxi), as those of networks do whose rows of
# units would leave lanes empty (2-4-1 3.5, 24-8-2 1.5; 64-100-10 by AVX-512 1.13, as 100 columns
# take 112 lanes and 10 take 16). With many more inputs than lanes a dot product is quicker, for
# one output, but its sum has another order: turned networks are without.
# Wide layers of many rows are the matrix unit's, where there is one (matrix_unit.pxi): there a row
# depends on whether there are many, though not on the others.

cdef enum:
    STACK_NUMBERS = 4096    # three of these are scratch enough for one row of most nets
    BLOCK_ROWS = 96         # rows that pass through the layers together: L2 holds their blocks
    TURNED_STRIDE = BLOCK_ROWS + 16  # numbers from a unit to the next, where they are turned
    PACKING_ROWS = 24       # from here on packing the weights pays,
    SPLITTING_ROWS = 256    # and from here on splitting them for the matrix unit


cdef void turn_back(Py_ssize_t vectors, Py_ssize_t width,
                    const real *across,    # IN  (width, vectors), rows `stride` apart
                    Py_ssize_t stride,
                    real *rows,            # OUT (vectors LANES, width), rows `row` apart
                    Py_ssize_t row) noexcept nogil:
    """Columns of a turned block into rows of whole vectors, zeros past the width."""
    cdef vec square[LANES]
    cdef Py_ssize_t j, v
    cdef int i
    for j from 0 <= j < width by LANES:
        for v in range(vectors):
            load_columns(width - j, across + j * stride + v * LANES, stride, square)
            for i in range(LANES):
                store(rows + (v * LANES + i) * row + j, square[i])


cdef void copy_rows(Py_ssize_t rows, Py_ssize_t width,
                    const real *block,     # IN  (rows, whole vectors), rows `row` apart
                    Py_ssize_t row,
                    real *out              # OUT (rows, width), one after the other
                    ) noexcept nogil:
    """By whole vectors, in order: what they write past a row, the next one overwrites."""
    cdef Py_ssize_t s, j, whole = max(0, rows - (vectors_of(width) * LANES + width - 1) // width)
    if row == width:
        memcpy(out, block, rows * width * sizeof(real))
        return
    for s in range(whole):
        for j from 0 <= j < width by LANES:
            store(out + s * width + j, load(block + s * row + j))
    for s in range(whole, rows):
        memcpy(out + s * width, block + s * row, width * sizeof(real))


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
    cdef bint softmax
    cdef bint turned    # whether many rows have an example a lane
    cdef Py_ssize_t deepest  # inputs of a layer that is the matrix unit's, at most
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
            layer.by_matrix_unit = suits_matrix_unit(layer.n_in, layer.n_out)
            if layer.by_matrix_unit:
                self.deepest = max(self.deepest, layer.n_in)
            offset += layer.rows * layer.n_out
        self.softmax = self.layers[self.n_layers - 1].activation == SOFTMAX
        # Softmax of one output, which is 1, is left to rows of units.
        self.turned = (self.is_worth_turning(offset) and self.deepest == 0
                       and not (self.softmax and self.n_y == 1))

    cdef bint is_worth_turning(self, Py_ssize_t n_parameters) noexcept nogil:
        """Whether many rows have an example a lane: where rows of units would take longer. A weight
        takes one across lanes and an input that is turned one and a half; along, what the lanes
        that layers fill take, and the row's way in and out. Of 24 networks, in float32 with 16 and
        with 8 lanes, on a Zen 4, by this choice 2,000 rows take on average 0.4 % longer than by the
        better one, at most 8 %; by rows of units alone, up to three times."""
        cdef Py_ssize_t l, along = 4 * LANES
        cdef const Layer *layer
        for l in range(self.n_layers):
            layer = &self.layers[l]
            along += layer.rows * (2 if layer.n_out == 1 and l > 0 else LANES * layer.vectors)
        return 1.5 * self.n_x + n_parameters < 0.95 * along

    cdef const real *through(self, Py_ssize_t rows,
                             const real *a,       # IN  (rows, n_x) X, stride apart, or NULL
                             Py_ssize_t stride,
                             const real *packed,  # IN  the weights, layer by layer, in panels; or
                             bint split,          # split for the matrix unit, in cells
                             Region wanted, bint doubted,
                             real *one,           # scratch (rows, widest): the layers' outputs
                             real *other,         # in turn
                             real *cells          # scratch for the matrix unit
                             ) noexcept nogil:
        """All layers over rows of A; returns the block, rows `widest` apart, of the outputs.

        Where a is NULL, `one` already holds the first layer's pre-activations. What is wanted after
        this, of X, is fetched with the first layer; what a layer reads, with the one before. Where
        A is doubted, and a row of it may hold NaN or infinity, the result is NULL.
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
                # After the last layer, the first one's for the next block.
                if packed != NULL and not split:
                    following = layer + 1 if l + 1 < self.n_layers else self.layers
                    wanted = rows_of_panel(packed + layer.size if l + 1 < self.n_layers else first,
                                           following.vectors, following.rows, 0, 0, following.rows)
            if layer.n_out == 1 and l > 0 and not self.turned:
                self.column(layer, rows, a, z)
            elif split and uses_matrix_unit(layer) and a != NULL:
                matrix_rows(rows, layer.n_in, layer.vectors, a, stride, packed,
                            self.flat + layer.offset + layer.n_in * layer.n_out,
                            cells + SQUARE * SQUARE, cells, z, self.widest, wanted)
            elif rows == 1 and packed == NULL and a != NULL:
                row_product(layer.vectors, layer.n_in, a, self.flat + layer.offset, layer.n_out, z)
            elif a != NULL:
                product(rows, layer.vectors, 0, panels_of(layer.vectors), layer.n_in, a,
                        stride, self.flat + layer.offset if packed == NULL else packed,
                        layer.n_out if packed == NULL else 0, layer.rows, 0, FROM_BIAS, False, z,
                        self.widest, wanted)
            if doubted and l == 0 and sum_of(times_zero(rows, z, self.widest)) != 0:
                return NULL
            if packed != NULL:
                packed += self.packed_size(layer, split)
            if layer.activation == SOFTMAX:
                softmax_rows(rows, layer.n_out, self.widest, z, z, largest, totals)
            else:
                activate(layer.activation, layer.parameter, rows, layer.vectors, self.widest, z, z)
            a = z
            stride = self.widest
            z = other if z == one else one
        return a

    cdef const real *through_turned(self, Data data, Py_ssize_t first, Py_ssize_t rows,
                                    bint doubted, real *one, real *other,
                                    real *gathered) noexcept nogil:
        """`through` with an example a lane (turned.pxi): to the same bits, and a single output of
        all rows side by side."""
        cdef Py_ssize_t l, n_out, turned, stride = TURNED_STRIDE, vectors = vectors_of(rows)
        cdef const Layer *layer
        cdef const real *w
        cdef real *a = other
        cdef real *z = one
        cdef Examples examples = examples_of(data, NULL, first, rows, gathered, self.input_stride)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            w = self.flat + layer.offset
            n_out = layer.n_out
            turned = 0
            if l == 0:  # its other units read X^T, which the first ones keep for them
                turned = min(n_out, TURNING_UNITS)
                turning_product(layer.n_in, turned, vectors, &examples, w, n_out, z,
                                layer.n_in if turned == n_out else 0, a, stride)
            product_of_units(n_out - turned, vectors, layer.n_in, w + turned, n_out,
                             w + layer.n_in * n_out + turned, 1, a, stride, z + turned * stride,
                             stride)
            if doubted and l == 0 and sum_of(times_zero(vectors, z, LANES)) != 0:
                return NULL
            if layer.activation != SOFTMAX:
                activate(layer.activation, layer.parameter, layer.n_out, vectors, stride, z, z)
            a, z = z, a
        if self.n_y == 1:
            return a
        if self.softmax:
            softmax_turned(self.n_y, vectors, stride, a)
        turn_back(vectors, self.n_y, a, stride, z, self.widest)
        return z

    cdef void column(self, const Layer *layer, Py_ssize_t rows,
                     const real *a,  # IN  (rows, n_in), `widest` apart
                     real *z         # OUT (rows,) in the first lane of rows `widest` apart
                     ) noexcept nogil:
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
        a = self.through(1, row, self.n_x, NULL, False, nowhere(), False, scratch,
                         scratch + self.widest, NULL)
        memcpy(<real *>cnp.PyArray_DATA(out), a, self.n_y * sizeof(real))
        if scratch != stack:
            PyMem_RawFree(scratch)
        return out

    cdef bint block(self, Data data, Py_ssize_t first, Py_ssize_t rows, const real *packed,
                    real *scratch, real *out) noexcept nogil:
        """Predict some rows; False where one read in place is not finite."""
        cdef Py_ssize_t s, stride = self.input_stride, numbers = self.block_numbers()
        cdef real *other = scratch + numbers
        cdef real *input = other + numbers
        cdef real *cells = scratch + self.scratch_numbers(data) - self.cell_scratch(data)
        cdef const real *x = input
        cdef const real *a
        cdef Region wanted = nowhere()
        cdef bint turned = self.turned and rows >= 2 * LANES and not data.is_sparse
        cdef bint doubted = data.plain
        if data.is_sparse:
            for s in range(rows):
                self.sparse_row(data, first + s, scratch + s * self.widest)
            x = NULL
        elif data.plain:
            x = <const real *>(data.x + first * data.row_bytes)
            stride = data.row_bytes // <Py_ssize_t>sizeof(real)
            wanted.at = <const char *>(x + rows * stride)
            wanted.bytes = min(rows, data.m - first - rows) * data.row_bytes
        elif not turned:
            data.gather(NULL, first, rows, input, stride)
        while True:
            if turned:
                a = self.through_turned(data, first, rows, doubted, scratch, other, input)
            else:
                a = self.through(rows, x, stride, packed, self.splits(data), wanted, doubted,
                                 scratch, other, cells)
            if a != NULL:
                break
            for s in range(rows):
                if not all_finite(self.n_x, x + s * stride):
                    return False
            doubted = False  # the sums overflow, of numbers that are finite
        copy_rows(rows, self.n_y, a, 1 if turned and self.n_y == 1 else self.widest,
                  out + first * self.n_y)
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

    cdef Py_ssize_t block_numbers(self) noexcept nogil:
        """Numbers of a block that a layer writes."""
        if self.turned:
            return max(BLOCK_ROWS * self.widest, max(self.widest, self.n_x) * TURNED_STRIDE)
        return BLOCK_ROWS * self.widest

    cdef bint splits(self, Data data) noexcept nogil:
        """Whether there are rows enough to split the weights for the matrix unit."""
        return HAS_MATRIX_UNIT and self.deepest > 0 and data.m >= SPLITTING_ROWS

    cdef Py_ssize_t cell_scratch(self, Data data) noexcept nogil:
        """Numbers of scratch for the matrix unit: sums, and a block of rows in cells."""
        if not self.splits(data):
            return 0
        return SQUARE * SQUARE + cell_numbers(BLOCK_ROWS, self.deepest)

    cdef Py_ssize_t packed_size(self, const Layer *layer, bint split) noexcept nogil:
        """Numbers in a layer's weights as many rows read them."""
        if split and uses_matrix_unit(layer):
            return cell_numbers(layer.n_out, layer.n_in)
        return layer.size

    cdef Py_ssize_t scratch_numbers(self, Data data) noexcept nogil:
        """Numbers of scratch a thread needs: two blocks to pass between, one of inputs."""
        cdef Py_ssize_t inputs = 0
        if self.turned or not (data.is_sparse or data.plain):
            inputs = BLOCK_ROWS * self.input_stride
        return 2 * self.block_numbers() + inputs + self.cell_scratch(data)

    def predict(self, Data data not None, cnp.ndarray out not None, int n_threads=1):
        """All rows of `data` into `out` (m, n_y), C-ordered and of the network's type.

        Returns whether all rows that are read in place (`data.plain`) are finite; otherwise `out`
        is of no use.
        """
        cdef Py_ssize_t l, numbers, weights = 0, size
        cdef real *scratch
        cdef real *packed = NULL
        cdef real *target = <real *>cnp.PyArray_DATA(out)
        cdef bint *finite
        cdef place *places
        cdef int i
        cdef Layer *layer
        cdef bint split = self.splits(data)
        n_threads = min(n_threads, <int>blocks_of(data.m, BLOCK_ROWS))
        numbers = n_threads * self.scratch_numbers(data) + LANES
        if data.m >= PACKING_ROWS:
            for l in range(self.n_layers):
                weights += self.packed_size(&self.layers[l], split)
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
                    if split and uses_matrix_unit(layer):
                        split_down(False, layer.n_in, layer.vectors, self.flat + layer.offset,
                                   layer.n_out, packed)
                    else:
                        pack(0, layer.rows, layer.n_out, 0, panels_of(layer.vectors),
                             self.flat + layer.offset, layer.n_out, packed, layer.rows)
                    packed += self.packed_size(layer, split)
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
