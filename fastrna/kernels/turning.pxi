# The first layer of blocks with an example a lane (turned.pxi), from rows of X as they lie.
#
# Design: LANES rows are transposed a few columns at a time, in registers, among the multiply-adds
# of the columns before; nothing is stored and read again. On a Zen 4, where other units do it, the
# first layer of 24-8-2 takes 0.73 us for 208 rows so, of which the multiply-adds alone would take
# 0.68; X^T written first took 0.45 more. The weight gradient of whole vectors of inputs is a
# product too, along them, dW_1^T = dZ_1^T X, without sums across lanes. What else reads X^T has it
# kept by the first tile: weights of inputs that fill no vector, and in predictions units past the
# first tile (100-12-3 1.05; in training such a tile turns X again). Rows that are not one after the
# other, or of another type, are gathered before.
# Rejected: an example's units along the lanes, and two of its inputs side by side where the units
# fill half a vector (1.08 us: numbers spread over 64 bytes take a third longer to multiply), tiles
# of 12 or 16 units (64-100-10 as with 8).

cdef enum:
    TURNING_UNITS = 8  # of a tile, at most: with columns of X on the way they fill 16 registers


cdef struct Examples:
    # Rows of X, the first of them where they lie and the others gathered.
    const real *at
    Py_ssize_t row            # from one to the next
    Py_ssize_t in_place       # how many, in whole vectors
    const real *gathered
    Py_ssize_t gathered_row


cdef Examples examples_of(Data data,
                          const long long *order,  # IN  (first + count,), or NULL
                          Py_ssize_t first, Py_ssize_t count,
                          real *gathered,          # scratch (count and LANES more, gathered_row)
                          Py_ssize_t gathered_row) noexcept nogil:
    """`count` examples from place `first` of the order (or of the data where that is NULL), and the
    last of them again for the rest of a vector: what a layer makes of old numbers, or of zeros,
    might be infinite, and infinity times a slope of 0 is not 0."""
    cdef Examples examples
    cdef Py_ssize_t s, i, lanes = vectors_of(count) * LANES
    examples.at = <const real *>(data.x + first * data.row_bytes)
    examples.row = data.row_bytes // <Py_ssize_t>sizeof(real)
    examples.in_place = 0
    if order == NULL:
        examples.in_place = max(min(data.whole_x - first, lanes), 0) // LANES * LANES
    examples.gathered, examples.gathered_row = gathered, gathered_row
    for s in range(examples.in_place, lanes):
        i = first + min(s, count - 1)
        data.copy_input(order[i] if order != NULL else i, gathered)
        gathered += gathered_row
    return examples


cdef inline void load_columns_of(const real **rows,  # IN  (4,) every BLOCK_LANES-th row, from
                                 Py_ssize_t row, Py_ssize_t j,
                                 vec *columns        # OUT (BLOCK_LANES,) columns from j on
                                 ) noexcept nogil:
    cdef int i
    for i in range(BLOCK_LANES):
        columns[i] = load_blocks(rows[0] + i * row + j, rows[1] + i * row + j,
                                 rows[2] + i * row + j, rows[3] + i * row + j)
    weave_blocks(columns)


cdef inline void add_columns(const int units, Py_ssize_t left,
                             const vec *columns,  # IN  (BLOCK_LANES,) of X, `left` of them or all
                             const real *w,       # IN  (left, units) their weights, w_row apart
                             Py_ssize_t w_row,
                             vec *sums            # IN, OUT (units,)
                             ) noexcept nogil:
    cdef int i, k
    for k in range(BLOCK_LANES):
        if k < left:
            for i in range(units):
                sums[i] = sums[i] + columns[k] * splat(w[k * w_row + i])


cdef inline void turning_tile(const int units, Py_ssize_t vectors, Py_ssize_t depth,
                              const real *x,    # IN  (vectors LANES, depth) X, rows x_row apart
                              Py_ssize_t x_row,
                              const real *w,    # IN  (depth, units) W, rows w_row apart
                              Py_ssize_t w_row,
                              const real *bias,  # IN  (units,) what sums start from, or NULL: z
                              real *z,          # OUT (units, vectors) Z^T, rows `stride` apart
                              Py_ssize_t kept,  # from this one on, the inputs of which
                              real *across,     # OUT (depth - kept, vectors) X^T is kept likewise
                              Py_ssize_t stride) noexcept nogil:
    """Z^T = b + W^T X^T of some units. The next LANES rows are asked for meanwhile, to L2: long
    ones would not stay in L1 (predictions of 64-100-10 1.02, 10000-40-1 1.2; to L1 1.015, 0.9)."""
    cdef vec sums[TURNING_UNITS]
    cdef vec columns[BLOCK_LANES]
    cdef Py_ssize_t v, j, left
    cdef int i, k
    cdef const real *rows[4]
    for v in range(vectors):
        for i in range(units):
            sums[i] = load(z + i * stride) if bias == NULL else splat(bias[i])
        for i in range(4):
            rows[i] = x + i * BLOCK_LANES * x_row
        for j from 0 <= j <= depth - BLOCK_LANES by BLOCK_LANES:
            load_columns_of(rows, x_row, j, columns)
            for i in range(4):
                prefetch_far(rows[i] + (LANES + (j // BLOCK_LANES) % BLOCK_LANES) * x_row + j)
            add_columns(units, BLOCK_LANES, columns, w + j * w_row, w_row, sums)
            if j >= kept:
                for k in range(BLOCK_LANES):
                    store(across + (j - kept + k) * stride, columns[k])
        left = depth % BLOCK_LANES
        if left > 0:
            j = depth - left
            load_columns_of(rows, x_row, j, columns)
            add_columns(units, left, columns, w + j * w_row, w_row, sums)
            for k in range(left if j >= kept else 0):
                store(across + (j - kept + k) * stride, columns[k])
        for i in range(units):
            store(z + i * stride, sums[i])
        x += LANES * x_row
        z += LANES
        across += LANES


cdef void turning_tile_of(int units, Py_ssize_t vectors, Py_ssize_t depth, const real *x,
                          Py_ssize_t x_row, const real *w, Py_ssize_t w_row, const real *bias,
                          real *z, Py_ssize_t kept, real *across,
                          Py_ssize_t stride) noexcept nogil:
    """`turning_tile` with its units known at run time."""
    if units == 8:
        turning_tile(8, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 7:
        turning_tile(7, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 6:
        turning_tile(6, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 5:
        turning_tile(5, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 4:
        turning_tile(4, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 3:
        turning_tile(3, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    elif units == 2:
        turning_tile(2, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)
    else:
        turning_tile(1, vectors, depth, x, x_row, w, w_row, bias, z, kept, across, stride)


cdef void turning_product(Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t vectors,
                          const Examples *examples,  # IN  (vectors LANES, n_in) X
                          const real *w,             # IN  (n_in + 1, units) W and b, w_row apart,
                          Py_ssize_t w_row,          # of which n_out are taken
                          real *z,                   # OUT (n_out, vectors) Z^T, `stride` apart
                          Py_ssize_t kept,           # from this one on, whole vectors, the inputs
                          real *across,              # OUT (n_in - kept, vectors) of X^T likewise
                          Py_ssize_t stride) noexcept nogil:
    """Z_1^T = b_1 + W_1^T X^T, in one chain of the inputs; X stays in L2 from tile to tile."""
    cdef Parts tiles = parts_of(n_out, TURNING_UNITS)
    cdef Py_ssize_t k, t, o, lain = examples.in_place, rest = vectors - lain // LANES
    cdef Py_ssize_t deep, after
    cdef int units
    cdef const real *bias
    cdef real *left
    for k from 0 <= k < n_in by DEPTH_BLOCK:
        deep = min(n_in - k, DEPTH_BLOCK)
        after = max(kept - k, 0)
        left = across + max(k - kept, 0) * stride
        o = 0
        for t in range(tiles.number):
            units = <int>size_of(tiles, t)
            bias = w + n_in * w_row + o if k == 0 else NULL
            turning_tile_of(units, lain // LANES, deep, examples.at + k, examples.row,
                            w + k * w_row + o, w_row, bias, z + o * stride, after, left, stride)
            turning_tile_of(units, rest, deep, examples.gathered + k, examples.gathered_row,
                            w + k * w_row + o, w_row, bias, z + o * stride + lain, after,
                            left + lain, stride)
            o += units
            after = deep  # by the first tile


cdef void gradient_from_rows(Py_ssize_t along, Py_ssize_t n_out, Py_ssize_t count,
                             const Examples *examples,  # IN  (count, along) X, its first columns
                             const real *d,             # IN  (n_out, count) dZ^T, rows stride apart
                             Py_ssize_t stride, bint more,
                             real *across,              # OUT, IN if more (n_out, vectors)
                             real *gradient             # OUT (along, n_out)
                             ) noexcept nogil:
    """dW_1 = (dZ_1^T X)^T: without sums across lanes, for vectors along the inputs."""
    cdef Py_ssize_t vectors = vectors_of(along), width = vectors * LANES, k, j
    cdef Py_ssize_t lain = examples.in_place  # at most `count`: predictions alone read on
    if lain > 0:
        product(n_out, vectors, 0, panels_of(vectors), lain, d, stride, examples.at,
                examples.row, lain, 0, FROM_C if more else FROM_ZERO, False, across, width,
                nowhere())
    if lain < count:
        product(n_out, vectors, 0, panels_of(vectors), count - lain, d + lain, stride,
                examples.gathered, examples.gathered_row, count - lain, 0,
                FROM_C if more or lain > 0 else FROM_ZERO, False, across, width, nowhere())
    for k in range(along):
        for j in range(n_out):
            gradient[k * n_out + j] = across[j * width + k]
