# A network's layers as a thread of a team has them: its desk, and the units that it owns. What it
# does with them is in forward.pxi and backward.pxi.
#
# Design: the units of a hidden layer belong to threads. Who owns a unit owns its column of the
# layer's weights and its row of the next layer's, reads and writes them alone, and they never leave
# that core's caches. Each thread has them in a replica of its own, of which it uses its part: where
# they were neighbours, one core fetched ahead into what the other wrote. What crosses is small: a
# thread's units give a share of the next layer's sums,
#     Z_l = sum over threads of A_{l-1}[:, own] W_l[own, :] + b_l,
# which each thread adds up for the columns that it owns there (`add_shares`), and dZ_l, which all
# need whole, for the weight gradient of their own rows. The outputs are few: every thread adds up
# all of them and computes the cost for itself (`alone`), or, where they are many, each its rows.
# The result is the same bit for bit for any number of threads because the cut is not theirs: a
# layer's units lie in 1, 2, 4 or 8 parts, by its width alone; each part's share is one chain of
# multiply-adds, and the shares are added as a binary tree, of which a thread holds a whole branch.
# A desk can as well hold rows of its own and all columns: so do evaluation and the slices of
# steps.pxi.
# Rejected: rows of the batch for the products and rows of W for the update, in turn: half of W
# crossed between the cores in every step (784-512-512-10, two threads: see docs/performance.md).
# One set of weights for all (64-100-10 with batch 1, two threads: 1.25 times as long).

cdef enum:
    FEW_ROWS = 4       # batches up to this size multiply by W^T through dot products
    MOST_PARTS = 8     # of a layer's units
    FEW_UNITS = 16     # units in a part, at least; where there are more than two parts,
    PART_UNITS = 128
    JOIN_ROWS = 4 * MR  # rows of which the shares of several parts stay in L1
    SLIGHT_UNITS = 4   # units, at most, of a layer computed across: it fills few lanes of a vector


cdef struct Share:
    # What one thread has of a layer's units: whole parts, hence whole panels.
    Py_ssize_t first_part, last_part, first_panel, last_panel, first_vector, last_vector
    Py_ssize_t first_unit, last_unit
    bint last                  # whether the layer's last unit, and with it the ones column


cdef struct Layer:
    Py_ssize_t n_in, n_out
    Py_ssize_t rows            # n_in + 1: the bias is the last row
    Py_ssize_t vectors         # of n_out columns
    Py_ssize_t parts           # of its units
    Py_ssize_t stride          # of a row of the blocks below
    Py_ssize_t offset          # of the layer in the flat parameters
    Py_ssize_t size            # numbers in a packed matrix of this layer
    Py_ssize_t first_penalty   # of the layer among all sums of penalties
    int activation
    real parameter
    bint slight                # whether its units are so few that tiles would waste most lanes
    bint by_matrix_unit        # whether its products with many rows are the matrix unit's
    bint dotted                # whether its sums are dot products, in the call under way
    Share own                  # what the thread at this desk has
    real *weights              # (rows, vectors) in panels
    real *velocity             # likewise; Adam's first moment
    real *second               # likewise; Adam's second moment
    real *gradient             # likewise, where a whole one is needed; of slices, each desk's own
    real *transposed           # W^T (n_out, vectors of n_in) in panels
    real *sums                 # (turns, seats, capacity, stride) each thread's share of A W
    real *z                    # (capacity, stride) pre-activations; a itself where g' needs no z
    real *a                    # (capacity, stride) activations
    real *h                    # (capacity, stride) what the next layer sees: a, or a after dropout
    real *d                    # (capacity, stride) dJ/dZ
    real *d_panels             # (capacity, vectors) the same in panels, of wide layers only
    real *slivers              # (rows, capacity) A_{l-1}^T tile by tile, likewise
    real *cells                # of A_{l-1}^T, for the matrix unit: each desk's own
    Py_ssize_t cells_phase     # in which they were split
    real *shared               # (2, slices, size) in turn: the gradients that all desks read


cdef struct Net:
    # What is the same at all desks.
    Py_ssize_t n_layers, n_x, n_parameters, input_stride
    Py_ssize_t capacity        # rows that are processed at once
    int sharing                # how a team shares a mini-batch: sharing.pxi
    Py_ssize_t slices          # of a mini-batch, at most
    bint few_inputs            # in a chunk, so that every desk gathers all
    int loss, optimizer
    real loss_parameter
    double dropout
    unsigned int dropout_threshold
    unsigned long long dropout_seed
    bint sparse                # whether X is CSR
    bint turned                # whether slices have an example a lane: turned.pxi
    bint transposing           # whether W^T is kept for the input gradient
    bint alone                 # whether every desk computes all outputs and costs, in a shared step
    bint shared_input          # whether the desks gather one input block together, in this call
    bint long_rows             # whether the first layer gathers what it reads, where it can
    bint past_caches           # whether what others read is stored so at present: crossing.pxi


cdef struct MatrixUnit:
    # What a thread works with at the matrix unit: matrix_unit.pxi.
    real *prepared             # cells of an operand that is split once
    real *fresh                # (2, 2, FRESH_CELLS) cells of weights, in turn
    real *sums                 # (squares of TASK_ROWS, SQUARE, SQUARE) of C
    Py_ssize_t phase           # how many there have been (tasks.pxi)
    Py_ssize_t ready, ready_phase  # what `prepared` holds, and since which phase


cdef struct Desk:
    # Where one thread of a team works. Layers differ from desk to desk in `own`, and in what a
    # thread has for itself: blocks that it alone writes, weights where they are replicas.
    Py_ssize_t rank, team      # of this thread among those that share columns; 0 and 1 for rows
    Layer *layers
    unsigned long long step    # mini-batches done
    Py_ssize_t turn            # which of what exists twice this mini-batch writes: 0 or 1
    Py_ssize_t to_come         # examples of the epoch from this chunk on
    bint ahead                 # whether z of the first layer is there already
    real *input                # (capacity, input_stride) rows of X, each followed by a 1:
    real *own_input            # in a block of its own, or of the first desk's
    real *following            # (input_stride,) the example after a mini-batch of one
    real *target               # (capacity, stride of the output)
    real *costs                # (capacity,) of the examples
    real *totals               # (capacity,) scratch of the costs
    real *masses               # (capacity,) likewise
    double *weights            # (capacity,) of the examples
    real *penalties            # (2, sums, LANES) sums of the panels' penalties, in turn
    Turned turned              # the blocks of a slice, where slices are turned
    MatrixUnit *matrix_unit    # or NULL
    real *scratch              # (MOST_PARTS, JOIN_ROWS, WIDEST vectors) shares of a tile's sums
    real *draft                # what is handed over when it is whole: crossing.pxi
    char apart[2 * CACHE_LINE]  # no line holds two desks


cdef Py_ssize_t block_stride(Py_ssize_t width) noexcept nogil:
    """Numbers between rows of a block: room for the ones column, in whole cache lines; an odd
    number of them, as rows a large power of two apart would share a few sets of L1."""
    cdef Py_ssize_t line = CACHE_LINE // sizeof(real), lines = blocks_of(width + 1, line)
    if lines > 2 and lines % 2 == 0:
        lines += 1
    return lines * line


cdef struct Rows:
    # A block of rows: what is in it, and how far apart they are.
    const real *at
    Py_ssize_t stride


cdef inline Rows rows_read_by(const Net *net, const Desk *desk, Py_ssize_t l) noexcept nogil:
    """What a layer reads: the inputs, or what the layer below lets it see."""
    cdef Rows rows
    if l == 0:
        rows.at, rows.stride = desk.input, net.input_stride
    else:
        rows.at, rows.stride = desk.layers[l - 1].h, desk.layers[l - 1].stride
    return rows


# -- whose units ----------------------------------------------------------------------------------

cdef Py_ssize_t parts_of_units(Py_ssize_t width) noexcept nogil:
    """Parts of a layer's units: a power of two, by its width alone, each of whole panels."""
    cdef Py_ssize_t panels = panels_of(vectors_of(width)), parts = 1
    while (2 * parts <= min(panels, MOST_PARTS)
           and width >= 2 * parts * (FEW_UNITS if parts == 1 else PART_UNITS)):
        parts *= 2
    return parts


cdef Share share_of_panels(const Layer *layer, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """The units of panels first to last."""
    cdef Share share
    share.first_part = share.last_part = 0
    share.first_panel, share.last_panel = first, last
    share.first_vector = vector_of_panel(layer.vectors, first)
    share.last_vector = vector_of_panel(layer.vectors, last)
    share.first_unit = min(share.first_vector * LANES, layer.n_out)
    share.last_unit = min(share.last_vector * LANES, layer.n_out)
    share.last = last == panels_of(layer.vectors) and first < last
    return share


cdef Share share_of_parts(const Layer *layer, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """The units of parts first to last."""
    cdef Py_ssize_t panels = panels_of(layer.vectors)
    cdef Share share = share_of_panels(layer, panels * first // layer.parts,
                                       panels * last // layer.parts)
    share.first_part, share.last_part = first, last
    return share


cdef Share share_of(const Layer *layer, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
    """The branch of the tree of parts that a thread holds: halves of a team take halves of the
    parts. Where a part would have to be cut, the first of them has it and the others nothing."""
    cdef Py_ssize_t first = 0, last = layer.parts, half
    while team > 1:
        if last - first == 1:
            if rank > 0:
                first = last
            break
        half = (team + 1) // 2
        if rank < half:
            last = (first + last) // 2
            team = half
        else:
            first = (first + last) // 2
            rank -= half
            team -= half
    return share_of_parts(layer, first, last)


cdef vec sum_of_shares(const real *share,  # IN  (team,) vectors
                       Py_ssize_t size, Py_ssize_t parts,
                       Py_ssize_t team
                       ) noexcept nogil:
    """The sum of a team's shares, `size` numbers apart, by the same halving."""
    cdef Py_ssize_t half = (team + 1) // 2
    if team == 1 or parts == 1:
        return load(share)
    return (sum_of_shares(share, size, parts // 2, half)
            + sum_of_shares(share + half * size, size, parts // 2, team - half))
