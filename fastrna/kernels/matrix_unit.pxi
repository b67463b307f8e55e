# Products of wide layers on the processor's matrix unit, where it has one (AMX), in float32.
#
# Design: the unit multiplies tiles of bfloat16, numbers of 8 significant bits, and sums in float32,
# sixteen times as many a cycle as the vector units. A float32, of 24 bits, is the sum of three such
# numbers, its thirds, and of the nine products of two numbers' thirds six matter (Henry, Tang and
# Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
# computations", 2019). That leaves 2.7 times the speed of the vector units, or 1.6 where the
# processor lowers its clock for it, and sums nearer to the exact ones than those of multiply-adds.
# A matrix is split into cells: a tile for each third, of 16 rows by 32 steps of the depth. Two
# steps share a lane. As those of A do so along its rows and those of B across, the two are 16
# apart, which suits both: rows of cells are made of rows of numbers as they lie (`split_along`) or
# of pairs of rows (`split_down`), and tiles are turned over whole where the depth lies across:
#     Z     = A W        cells of A along, of W down
#     dA^T  = W dZ^T     cells of W along, of dZ along and turned over: W^T is not needed
#     dW    = A^T dZ     cells of A down and turned over, of dZ down
# W, which each mini-batch changes, is split a few cells ahead of their use while the unit
# multiplies; of the rest each thread splits what it needs, once. An element of C is one chain in
# the order of the depth, whoever computes it.
# Rejected: two thirds, which are three products (an error of 2^-16); weights that are kept split
# (three times as much to write and read as W^T); cells of A^T split by all threads for all (two
# threads: 784-512-512-10 0.96, as they have to cross).

cdef extern from "matrix_unit.h" nogil:
    enum: HAS_MATRIX_UNIT
    enum: TILE
    enum: CELL
    void begin_matrix_unit()
    void end_matrix_unit()
    void split_pair(vec x, vec y, real *cell)
    void clear_sums()
    void load_sums(const real *c, Py_ssize_t row)
    void store_sums(real *c, Py_ssize_t row, int columns)
    void load_above(const real *a, Py_ssize_t apart, int third)
    void load_beside(const real *b, Py_ssize_t apart, int third)
    void multiply_thirds()

cdef enum:
    CELL_ROWS = 16
    CELL_DEPTH = 32
    SQUARE = 32            # rows and columns of C that are computed at once: two cells by two
    FRESH_CELLS = 4        # of the depth, for which weights are split ahead: they stay in L1
    GROUPS = 6             # of instructions of the unit in `multiply_cells`
    BEYOND = 2 * SQUARE * NV * LANES  # numbers past the weights that may be read
    # Inputs and outputs of a layer that is worth the splitting, at least: in predictions; and in
    # training, in mini-batches of at least so many rows (784-512-512-10 with 64 rows 1.03 to 1.09,
    # with 32 0.74 to 0.86; 784-100-10 with 512 rows 0.93 to 0.97).
    PREDICTED_WIDTH = 96
    TRAINED_WIDTH = 128
    TRAINED_ROWS = 64


cdef inline bint suits_matrix_unit(Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Whether a layer's predictions of many rows are the matrix unit's."""
    return HAS_MATRIX_UNIT and min(n_in, n_out) >= PREDICTED_WIDTH


cdef inline bint trains_by_matrix_unit(Py_ssize_t n_in, Py_ssize_t n_out,
                                       Py_ssize_t rows) noexcept nogil:
    """Whether its products in training are, where tasks are shared."""
    return HAS_MATRIX_UNIT and min(n_in, n_out) >= TRAINED_WIDTH and rows >= TRAINED_ROWS


cdef inline bint uses_matrix_unit(const Layer *layer) noexcept nogil:
    """Whether they are, of this layer in this engine."""
    return HAS_MATRIX_UNIT and layer.by_matrix_unit


cdef inline Py_ssize_t cells_across(Py_ssize_t count) noexcept nogil:
    """Cells for so many rows or columns: an even number."""
    return 2 * blocks_of(count, SQUARE)


cdef inline Py_ssize_t cell_numbers(Py_ssize_t count, Py_ssize_t depth) noexcept nogil:
    """Numbers in the cells of a matrix of so many rows or columns and such a depth."""
    return cells_across(count) * blocks_of(depth, CELL_DEPTH) * CELL


# -- splitting ------------------------------------------------------------------------------------

cdef inline vec some(const real *x, Py_ssize_t n) noexcept nogil:
    """The first n lanes; none where n is not positive."""
    return load_first(x, n) if n > 0 else splat(0)


cdef inline void turn_cell(const real *cell, real *turned) noexcept nogil:
    """Each tile with its rows for its columns; the two numbers of a lane stay together."""
    cdef int third
    for third in range(3):
        transpose_block(False, cell + third * TILE, CELL_ROWS, CELL_ROWS, turned + third * TILE,
                        CELL_ROWS)


cdef inline void split_along(const bint turned, Py_ssize_t rows, Py_ssize_t depth,
                             const real *a,    # IN  (rows, depth), a_row apart
                             Py_ssize_t a_row,
                             real *cells       # OUT (cells_across(rows), blocks of the depth)
                             ) noexcept nogil:
    """Rows of cells from rows of numbers, zeros past the last; or, turned, columns of cells."""
    cdef real cell[CELL]
    cdef real *target
    cdef const real *x
    cdef Py_ssize_t t, k, i, left
    for t from 0 <= t < cells_across(rows) * CELL_ROWS by CELL_ROWS:
        for k from 0 <= k < depth by CELL_DEPTH:
            target = &cell[0] if turned else cells
            for i in range(CELL_ROWS):
                x = a + (t + i) * a_row + k
                left = depth - k if t + i < rows else 0
                split_pair(some(x, left), some(x + LANES, left - LANES), target + i * CELL_ROWS)
            if turned:
                turn_cell(cell, cells)
            cells += CELL


cdef inline void split_down(const bint turned, Py_ssize_t depth, Py_ssize_t vectors,
                            const real *b,    # IN  (depth, vectors), b_row apart
                            Py_ssize_t b_row,
                            real *cells       # OUT (vectors, blocks of the depth)
                            ) noexcept nogil:
    """Rows of cells from pairs of rows of numbers, zeros past the last; or, turned, columns."""
    cdef real cell[CELL]
    cdef real *target
    cdef const real *x
    cdef Py_ssize_t v, k, i
    for v in range(vectors):
        for k from 0 <= k < depth by CELL_DEPTH:
            target = &cell[0] if turned else cells
            for i from k <= i < k + CELL_ROWS:
                x = b + i * b_row + v * LANES
                split_pair(load(x) if i < depth else splat(0),
                           load(x + CELL_ROWS * b_row) if i + CELL_ROWS < depth else splat(0),
                           target + (i - k) * CELL_ROWS)
            if turned:
                turn_cell(cell, cells)
            cells += CELL


cdef struct Splitting:
    # Weights on their way to cells, a few rows of these at a time.
    const real *weights        # (rows, vectors) in panels
    Py_ssize_t rows, vectors
    Py_ssize_t first           # of 32 columns the vector, or of 32 rows the first
    Py_ssize_t block           # the first of the depth
    real *cells                # OUT (2, FRESH_CELLS)
    Py_ssize_t done, cells_todo  # block after block, of each both
    # Of the cell under way:
    const real *x
    const real *y
    Py_ssize_t x_row, y_row
    real *target
    Py_ssize_t row
    Py_ssize_t at_once         # rows


cdef inline void find_cell(const bint along, Splitting *s) noexcept nogil:
    """Where the rows of the next cell come from. Past the last column, row or step of the depth any
    weights will do: there the other operand has zeros, or nobody looks at the sum."""
    cdef Py_ssize_t which = s.done % 2, k = s.block + s.done // 2, last = s.vectors - 1, i
    cdef Panels one, other
    if along:
        i = s.first + which * CELL_ROWS
        one = panel_at(s.vectors, s.rows, 2 * k)
        other = panel_at(s.vectors, s.rows, min(2 * k + 1, last))
        s.x, s.x_row = s.weights + one.offset + i * one.row, one.row
        s.y, s.y_row = s.weights + other.offset + i * other.row, other.row
    else:
        one = panel_at(s.vectors, s.rows, min(s.first + which, last))
        s.x, s.x_row = s.weights + one.offset + k * CELL_DEPTH * one.row, one.row
        s.y, s.y_row = s.x + CELL_ROWS * one.row, one.row
    s.target = s.cells + (which * FRESH_CELLS + s.done // 2) * CELL
    s.row = 0


cdef inline void split_some(const bint along, Splitting *s) noexcept nogil:
    """As many rows as at once, of one cell."""
    cdef Py_ssize_t i
    if s.done == s.cells_todo:
        return
    for i in range(min(s.at_once, CELL_ROWS - s.row)):
        split_pair(load(s.x), load(s.y), s.target)
        s.x += s.x_row
        s.y += s.y_row
        s.target += CELL_ROWS
        s.row += 1
    if s.row == CELL_ROWS:
        s.done += 1
        if s.done < s.cells_todo:
            find_cell(along, s)


cdef inline void split_rest(const bint along, Splitting *s) noexcept nogil:
    s.at_once = CELL_ROWS
    while s.done < s.cells_todo:
        split_some(along, s)


# -- products -------------------------------------------------------------------------------------

cdef enum Meanwhile:
    SPLITTING_ALONG, SPLITTING_DOWN, FETCHING, FETCHING_TO_WRITE


cdef struct Stream:
    # Memory that is wanted soon, `step` bytes at a time.
    const char *at
    Py_ssize_t step


cdef inline Stream stream_of(const void *at, Py_ssize_t bytes, Py_ssize_t cells) noexcept nogil:
    """So many bytes, asked for while so many cells are multiplied."""
    cdef Stream stream
    stream.at, stream.step = <const char *>at, blocks_of(bytes, GROUPS * cells)
    return stream


cdef inline void fetch_some(const bint to_write, Stream *stream) noexcept nogil:
    cdef Py_ssize_t i
    for i from 0 <= i < stream.step by CACHE_LINE:
        if to_write:
            prefetch_to_write(stream.at + i)
        else:
            prefetch_far(stream.at + i)
    stream.at += stream.step


cdef inline void weave_in(const int meanwhile, Splitting *splitting,
                          Stream *streams) noexcept nogil:
    """A little of what is done while the unit multiplies."""
    if meanwhile == SPLITTING_ALONG or meanwhile == SPLITTING_DOWN:
        split_some(meanwhile == SPLITTING_ALONG, splitting)
    else:
        fetch_some(meanwhile == FETCHING_TO_WRITE, &streams[0])
        fetch_some(meanwhile == FETCHING_TO_WRITE, &streams[1])


cdef inline void multiply_cells(const int meanwhile, Splitting *splitting,
                                Stream *streams,  # two
                                const real *a,  # IN  two cells, one below the other, a_apart
                                Py_ssize_t a_apart,
                                const real *b,  # IN  two cells, side by side, b_apart
                                Py_ssize_t b_apart) noexcept nogil:
    """The sums + A B: of the nine products of thirds those that matter.

    Only a few tiles can be under way, and other instructions do not get past those that wait: what
    is done meanwhile is woven in between. It is free then, up to 18 rows of cells; as much of it
    after the last group takes as long as alone.
    """
    load_above(a, a_apart, 2)
    load_beside(b, b_apart, 0)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)
    load_above(a, a_apart, 1)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)
    load_beside(b, b_apart, 1)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)
    load_above(a, a_apart, 0)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)
    load_beside(b, b_apart, 2)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)
    load_beside(b, b_apart, 0)
    multiply_thirds()
    weave_in(meanwhile, splitting, streams)


cdef inline void add_bias(Py_ssize_t rows, Py_ssize_t columns,
                          const real *sums,  # IN  (SQUARE, SQUARE)
                          const real *bias,  # IN  (columns,) vectors
                          real *z,           # OUT (rows, columns) vectors, z_row apart
                          Py_ssize_t z_row
                          ) noexcept nogil:
    cdef Py_ssize_t s, v
    for s in range(min(rows, SQUARE)):
        for v in range(columns):
            store(z + s * z_row + v * LANES,
                  load(sums + s * SQUARE + v * LANES) + load(bias + v * LANES))


cdef inline void turn_sums(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t width,
                           const real *sums,  # IN  (SQUARE, SQUARE), units by rows
                           real *d,           # OUT (rows, columns) vectors, d_row apart
                           Py_ssize_t d_row
                           ) noexcept nogil:
    """The square the other way round, zeros past the width."""
    cdef Py_ssize_t s, v
    rows = min(rows, SQUARE)
    for v in range(columns):
        for s from 0 <= s < rows by LANES:
            transpose_block(False, sums + v * LANES * SQUARE + s, SQUARE, min(rows - s, LANES),
                            d + s * d_row + v * LANES, d_row)
    if width < columns * LANES:
        v = width // LANES * LANES
        for s in range(rows):
            store(d + s * d_row + v, within(load(d + s * d_row + v), width, v, 0))


cdef inline void matrix_product(const bint backward, MatrixUnit *unit,
                                const Layer *layer,  # whose weights are split on the way
                                Py_ssize_t rows,     # of the other operand, in unit.prepared
                                Py_ssize_t panel,    # of the layer's columns or, backward, inputs
                                real *out,           # OUT (rows, all columns), out_row apart
                                Py_ssize_t out_row
                                ) noexcept nogil:
    """A W + b for one panel of columns, or dZ W^T for one of inputs."""
    cdef Py_ssize_t width = vectors_of(layer.n_in) if backward else layer.vectors
    cdef Py_ssize_t first = vector_of_panel(width, panel)
    cdef Py_ssize_t vectors = vector_of_panel(width, panel + 1) - first
    cdef Py_ssize_t blocks = blocks_of(layer.n_out if backward else layer.n_in, CELL_DEPTH)
    cdef Py_ssize_t chunks = blocks_of(blocks, FRESH_CELLS), pairs = blocks_of(rows, SQUARE)
    cdef Py_ssize_t steps = blocks_of(vectors, 2) * chunks, step, r, k, v, block, count
    cdef const real *fresh
    cdef const real *cell
    cdef real *sums
    cdef real *target
    cdef Panels bias
    cdef Splitting splitting
    splitting.weights, splitting.rows, splitting.vectors = layer.weights, layer.rows, layer.vectors
    for step in range(-1, steps):  # each splits what the next one multiplies
        splitting.first = (first + (step + 1) // chunks * 2) * (LANES if backward else 1)
        splitting.block = (step + 1) % chunks * FRESH_CELLS
        splitting.cells = unit.fresh + (step + 1) % 2 * 2 * FRESH_CELLS * CELL
        splitting.done = splitting.cells_todo = 0
        if step + 1 < steps:
            splitting.cells_todo = 2 * min(FRESH_CELLS, blocks - splitting.block)
            find_cell(backward, &splitting)
        if step < 0:
            split_rest(backward, &splitting)
            continue
        fresh = unit.fresh + step % 2 * 2 * FRESH_CELLS * CELL
        v = step // chunks * 2
        block = step % chunks * FRESH_CELLS
        count = min(FRESH_CELLS, blocks - block)
        splitting.at_once = blocks_of(
            CELL_ROWS, max(GROUPS * pairs * count // max(splitting.cells_todo, 1), 1))
        for r in range(pairs):
            sums = unit.sums + r * SQUARE * SQUARE
            if block == 0:
                clear_sums()
            else:
                load_sums(sums, SQUARE)
            cell = unit.prepared + (2 * r * blocks + block) * CELL
            for k in range(count):
                if backward:
                    multiply_cells(SPLITTING_ALONG, &splitting, NULL, fresh + k * CELL,
                                   FRESH_CELLS * CELL, cell + k * CELL, blocks * CELL)
                else:
                    multiply_cells(SPLITTING_DOWN, &splitting, NULL, cell + k * CELL,
                                   blocks * CELL, fresh + k * CELL, FRESH_CELLS * CELL)
            store_sums(sums, SQUARE, 2)
            if block + count < blocks:
                continue
            target = out + r * SQUARE * out_row + (first + v) * LANES
            if backward:
                turn_sums(rows - r * SQUARE, min(2, vectors - v),
                          layer.n_in - (first + v) * LANES, sums, target, out_row)
            else:
                bias = panel_at(layer.vectors, layer.rows, first + v)
                add_bias(rows - r * SQUARE, min(2, vectors - v), sums,
                         layer.weights + bias.offset + layer.n_in * bias.row, target, out_row)
        split_rest(backward, &splitting)


cdef inline bint is_missing(MatrixUnit *unit, Py_ssize_t number) noexcept nogil:
    """Whether what has this number in the phase is still to be split into unit.prepared, as the
    caller then does."""
    if unit.ready_phase == unit.phase and unit.ready == number:
        return False
    unit.ready_phase, unit.ready = unit.phase, number
    return True


cdef void matrix_forward(MatrixUnit *unit, const Layer *layer, Py_ssize_t panel,
                         Py_ssize_t block, Py_ssize_t rows,
                         const real *a,  # IN  (rows, n_in) that block of A_{l-1}, a_row apart
                         Py_ssize_t a_row,
                         real *z         # OUT (rows, columns of the panel) Z_l
                         ) noexcept nogil:
    """Z_l = A_{l-1} W_l + b_l, one panel of columns."""
    begin_matrix_unit()
    if is_missing(unit, block):
        split_along(False, rows, layer.n_in, a, a_row, unit.prepared)
    matrix_product(False, unit, layer, rows, panel, z, layer.stride)
    end_matrix_unit()


cdef void matrix_backward(MatrixUnit *unit, const Layer *layer, Py_ssize_t panel,
                          Py_ssize_t block, Py_ssize_t rows,
                          const real *d,  # IN  (rows, n_out) that block of dZ_l
                          real *c,        # OUT (rows, inputs of the panel) dZ_l W_l^T, c_row apart
                          Py_ssize_t c_row
                          ) noexcept nogil:
    """dZ_l W_l^T, one panel of inputs."""
    begin_matrix_unit()
    if is_missing(unit, block):
        split_along(True, rows, layer.n_out, d, layer.stride, unit.prepared)
    matrix_product(True, unit, layer, rows, panel, c, c_row)
    end_matrix_unit()


cdef void matrix_rows(Py_ssize_t rows, Py_ssize_t depth, Py_ssize_t vectors,
                      const real *a,        # IN  (rows, depth), a_row apart
                      Py_ssize_t a_row,
                      const real *weights,  # IN  (vectors, blocks of the depth) cells of W
                      const real *bias,     # IN  (vectors,)
                      real *cells,          # scratch for those of A
                      real *sums,           # scratch (SQUARE, SQUARE)
                      real *z,              # OUT (rows, vectors), z_row apart
                      Py_ssize_t z_row,
                      Region wanted         # after this, and fetched with it
                      ) noexcept nogil:
    """A W + b, of weights that are split already; those that are next are fetched meanwhile."""
    cdef Py_ssize_t blocks = blocks_of(depth, CELL_DEPTH), pairs = blocks_of(rows, SQUARE)
    cdef Py_ssize_t v, r, k, panel = 2 * blocks * CELL
    cdef Stream streams[2]
    begin_matrix_unit()
    split_along(False, rows, depth, a, a_row, cells)
    streams[1] = stream_of(wanted.at, wanted.bytes, blocks_of(vectors, 2) * pairs * blocks)
    for v from 0 <= v < vectors by 2:
        streams[0] = stream_of(weights + panel, panel * sizeof(real) if v + 2 < vectors else 0,
                               pairs * blocks)
        for r in range(pairs):
            clear_sums()
            for k in range(blocks):
                multiply_cells(FETCHING, NULL, streams, cells + (2 * r * blocks + k) * CELL,
                               blocks * CELL, weights + k * CELL, blocks * CELL)
            store_sums(sums, SQUARE, 2)
            add_bias(rows - r * SQUARE, min(2, vectors - v), sums, bias + v * LANES,
                     z + r * SQUARE * z_row + v * LANES, z_row)
        weights += panel
    end_matrix_unit()


# -- weight gradient ------------------------------------------------------------------------------

cdef void matrix_gradient(MatrixUnit *unit, Layer *layer, Py_ssize_t l, Py_ssize_t lo,
                          Py_ssize_t hi, Py_ssize_t panel, Py_ssize_t count,
                          Rows read,        # IN  (count, rows) A_{l-1} with its ones
                          bint first, bint last,
                          const Update *u,  # as for `gradient_tiles`
                          real *penalties   # OUT (panels, LANES), likewise
                          ) noexcept nogil:
    """Rows lo to hi of one panel of dW = A^T dZ, added up or updated while they are in L1."""
    cdef Py_ssize_t v = vector_of_panel(layer.vectors, panel)
    cdef Py_ssize_t nv = vector_of_panel(layer.vectors, panel + 1) - v, width = nv * LANES
    cdef Py_ssize_t blocks = blocks_of(count, CELL_DEPTH), at = v * LANES * layer.rows
    cdef Py_ssize_t i, j, k, rows, following, bytes
    cdef real *slope = unit.sums
    cdef real *so_far
    cdef const real *a
    cdef Stream streams[2]
    begin_matrix_unit()
    if layer.cells_phase != unit.phase:
        layer.cells_phase = unit.phase
        split_down(True, count, vectors_of(layer.rows), read.at, read.stride, layer.cells)
    if is_missing(unit, (l << 16) + panel):
        split_down(False, count, nv, layer.d + v * LANES, layer.stride, unit.prepared)
    for i from lo <= i < hi by SQUARE:
        rows = min(SQUARE, hi - i)
        a = layer.cells + i // CELL_ROWS * blocks * CELL
        following = at + (i + rows) * width
        bytes = min(SQUARE, hi - i - rows) * width * sizeof(real) if last else 0
        for k in range(2):
            streams[k] = stream_of(written_by(u, layer, layer.gradient, k) + following, bytes,
                                   blocks_of(nv, 2) * blocks)
        for j from 0 <= j < nv by 2:
            clear_sums()
            for k in range(blocks):
                multiply_cells(FETCHING_TO_WRITE, NULL, streams, a + k * CELL, blocks * CELL,
                               unit.prepared + (j * blocks + k) * CELL, blocks * CELL)
            store_sums(slope + j * LANES, width, <int>min(2, nv - j))
        so_far = layer.gradient + at + i * width
        for j from 0 <= j < (0 if first else rows * width) by LANES:
            store(slope + j, load(slope + j) + load(so_far + j))
        if last:
            update_rows(layer, i, i + rows, at, width, &UNIT[0], 0, slope, width, u, layer.gradient,
                        penalties + panel * LANES, i > lo, NULL, NULL)
        else:
            memcpy(so_far, slope, rows * width * sizeof(real))
    end_matrix_unit()
