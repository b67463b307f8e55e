# A mini-batch on one thread of a team: its rows or its columns of every layer, forward, backward
# and update.
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
# engine.pxi.
# Rejected: rows of the batch for the products and rows of W for the update, in turn: half of W
# crossed between the cores in every step (784-512-512-10, two threads: see docs/performance.md).
# One set of weights for all (64-100-10 with batch 1, two threads: 1.25 times as long).

cdef enum:
    FEW_ROWS = 4       # batches up to this size multiply by W^T through dot products
    # A^T dZ is worth packing both, where tasks are shared (tasks.pxi), from this many rows of the
    # batch on, for layers of more panels than this: 512 rows of 1024 by 1024 run a fifth faster,
    # 128 rows of 512 by 512 a twentieth.
    DEEP_ROWS = 64
    WIDE_PANELS = 3
    MOST_PARTS = 8     # of a layer's units
    FEW_UNITS = 16     # units in a part, at least; where there are more than two parts,
    PART_UNITS = 128
    JOIN_ROWS = 4 * MR  # rows of which the shares of several parts stay in L1
    SLIGHT_UNITS = 4   # units, at most, of a layer computed across: it fills few lanes of a vector
    GROUP_TILES = 4    # tiles of dW that are updated in one go, while they are in L1
    FAR_NUMBERS = 1 << 16  # of A^T whose lines are asked for before their tile, unless it is packed


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
    bint dotted                # whether its sums are dot products, in the call under way
    Share own                  # what the thread at this desk has
    real *weights              # (rows, vectors) in panels
    real *velocity             # likewise; Adam's first moment
    real *second               # likewise; Adam's second moment
    real *gradient             # likewise, where a whole gradient is needed
    real *transposed           # W^T (n_out, vectors of n_in) in panels
    real *sums                 # (team, capacity, stride) each thread's share of A W, where shared
    real *z                    # (capacity, stride) pre-activations; a itself where g' needs no z
    real *a                    # (capacity, stride) activations
    real *h                    # (capacity, stride) what the next layer sees: a, or a after dropout
    real *d                    # (capacity, stride) dJ/dZ
    real *d_panels             # (capacity, vectors) the same in panels, of wide layers only
    real *slivers              # (rows, capacity) A_{l-1}^T tile by tile, likewise


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


cdef struct Desk:
    # Where one thread of a team works. Layers differ from desk to desk in `own`, and in what a
    # thread has for itself: the output's blocks where `alone`, weights where they are replicas.
    Py_ssize_t rank, team      # of this thread among those that share columns; 0 and 1 for rows
    Layer *layers
    unsigned long long step    # mini-batches done
    Py_ssize_t turn            # which of what exists twice this mini-batch writes: 0 or 1
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
    real *scratch              # (MOST_PARTS, JOIN_ROWS, WIDEST vectors) shares of a tile's sums
    char apart[2 * CACHE_LINE]  # no line holds two desks


cdef Py_ssize_t block_stride(Py_ssize_t width) noexcept nogil:
    """Numbers between rows of a block: room for the ones column, in whole cache lines; an odd
    number of them, as rows a large power of two apart would share a few sets of L1."""
    cdef Py_ssize_t line = CACHE_LINE // sizeof(real), lines = (width + 1 + line - 1) // line
    if lines > 2 and lines % 2 == 0:
        lines += 1
    return lines * line


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


cdef vec sum_of_shares(const real *share, Py_ssize_t size, Py_ssize_t parts,
                       Py_ssize_t team) noexcept nogil:
    """The sum of a team's shares, `size` numbers apart, by the same halving."""
    cdef Py_ssize_t half = (team + 1) // 2
    if team == 1 or parts == 1:
        return load(share)
    return (sum_of_shares(share, size, parts // 2, half)
            + sum_of_shares(share + half * size, size, parts // 2, team - half))


# -- targets --------------------------------------------------------------------------------------

cdef void gather_targets(Data data, const Desk *desk, const Layer *last, Py_ssize_t lo,
                         Py_ssize_t hi, const long long *chunk) noexcept nogil:
    """The targets and weights of rows lo to hi of the chunk."""
    cdef Py_ssize_t s
    data.gather_targets(chunk + lo, hi - lo, desk.target + lo * last.stride, last.stride)
    if data.weights != NULL:
        for s in range(lo, hi):
            desk.weights[s] = data.weights[chunk[s]]


# -- forward --------------------------------------------------------------------------------------

cdef void sum_of_parts(const Layer *below, const Layer *layer, Py_ssize_t first, Py_ssize_t last,
                       Py_ssize_t rows, Py_ssize_t first_panel, Py_ssize_t last_panel,
                       const real *a, bint more,
                       real *c,         # OUT (rows, vectors of the panels), rows c_row apart
                       Py_ssize_t c_row,
                       real *spare      # (as deep as the tree, JOIN_ROWS, WIDEST vectors)
                       ) noexcept nogil:
    """A_{l-1}[:, units] W_l[units, :], the bias with the last, of parts first to last: a branch of
    the tree. What is right of its root is summed in `spare`, unless it is one part."""
    cdef Py_ssize_t middle = (first + last) // 2, s, j, width
    cdef Share part
    if last - first == 1:
        part = share_of_parts(below, first, last)
        if layer.dotted:
            dot_columns(rows, layer.n_out, below.vectors, part.first_panel, part.last_panel, a,
                        below.stride, layer.transposed,
                        layer.weights + layer.n_in * LANES if part.last else NULL, more, c, c_row)
            return
        product(rows, layer.vectors, first_panel, last_panel, part.last_unit - part.first_unit,
                a + part.first_unit, below.stride, 1, layer.weights, 0, layer.rows,
                part.first_unit, FROM_BIAS if part.last else FROM_ZERO, more,
                c - vector_of_panel(layer.vectors, first_panel) * LANES, c_row, nowhere())
        return
    sum_of_parts(below, layer, first, middle, rows, first_panel, last_panel, a, False, c, c_row,
                 spare)
    if last - middle == 1:
        sum_of_parts(below, layer, middle, last, rows, first_panel, last_panel, a, True, c, c_row,
                     spare)
        return
    width = LANES * (vector_of_panel(layer.vectors, last_panel)
                     - vector_of_panel(layer.vectors, first_panel))
    sum_of_parts(below, layer, middle, last, rows, first_panel, last_panel, a, False, spare, width,
                 spare + JOIN_ROWS * width)
    for s in range(rows):
        for j from 0 <= j < width by LANES:
            store(c + s * c_row + j, load(c + s * c_row + j) + load(spare + s * width + j))


cdef void product_of_parts(Desk *desk, const Layer *below, const Layer *layer, Py_ssize_t rows,
                           const real *a,     # IN  (rows, stride of below) A_{l-1}
                           real *c            # OUT (rows, stride) sums of this desk's parts
                           ) noexcept nogil:
    """A_{l-1}[:, own] W_l[own, :], the bias with the last part: part by part, added as a tree."""
    cdef Py_ssize_t first = below.own.first_part, last = below.own.last_part
    cdef Py_ssize_t k, i, n, panel
    cdef Parts panels = panels_in(layer.vectors), blocks = parts_of(rows, JOIN_ROWS)
    if first == last:  # nobody reads the share of a thread that has no part
        return
    if last - first <= 2:
        sum_of_parts(below, layer, first, last, rows, 0, panels.number, a, False, c, layer.stride,
                     NULL)
        return
    for panel in range(panels.number):  # what `spare` holds stays in L1
        i = 0
        for k in range(blocks.number):
            n = blocks.size + (k < blocks.larger)
            sum_of_parts(below, layer, first, last, n, panel, panel + 1, a + i * below.stride,
                         False, c + i * layer.stride
                         + vector_of_panel(layer.vectors, panel) * LANES, layer.stride,
                         desk.scratch)
            i += n


cdef void add_shares(const Desk *desk, const Layer *below, const Layer *layer, const real *sums,
                     Py_ssize_t capacity, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t first,
                     Py_ssize_t last) noexcept nogil:
    """Z_l = the sum of all desks' shares, rows lo to hi, vectors first to last."""
    cdef Py_ssize_t s, j, size = capacity * layer.stride
    cdef const real *share
    cdef bint pair = desk.team == 2 and below.parts > 1
    for s in range(lo, hi):
        for j from first * LANES <= j < last * LANES by LANES:
            share = sums + s * layer.stride + j
            store(layer.z + s * layer.stride + j,
                  load(share) + load(share + size) if pair
                  else sum_of_shares(share, size, below.parts, desk.team))


cdef void activate_units(const Net *net, const Desk *desk, Py_ssize_t l, Share own,
                         Py_ssize_t lo, Py_ssize_t hi, bint training,
                         Py_ssize_t first_row) noexcept nogil:
    """A_l = g_l(Z_l) of a hidden layer, own columns of rows lo to hi, and dropout.

    first_row is the place of the chunk's row 0 in the mini-batch, which seeds dropout.
    """
    cdef const Layer *layer = &desk.layers[l]
    cdef Py_ssize_t at = lo * layer.stride + own.first_unit, s
    cdef Py_ssize_t width = own.last_unit - own.first_unit
    activate(layer.activation, layer.parameter, hi - lo,
             own.last_vector - own.first_vector, layer.stride, layer.z + at,
             layer.a + at)
    for s in range(lo, hi):
        if training and layer.h != layer.a:
            drop_row(own.first_unit, width,
                     dropout_base(net.dropout_seed, desk.step, l, first_row + s),
                     net.dropout_threshold, <real>(1 / (1 - net.dropout)),
                     layer.a + at, layer.h + at)
        elif layer.h != layer.a:
            memcpy(layer.h + at, layer.a + at, width * sizeof(real))
        if own.last:
            layer.h[s * layer.stride + layer.n_out] = 1
        at += layer.stride


cdef void sparse_forward(const Desk *desk, Data data, Py_ssize_t lo, Py_ssize_t hi,
                         const long long *chunk) noexcept nogil:
    """Z_1 = X W_1 + b_1 from the CSR rows of the chunk: a row of W_1 for each stored number."""
    cdef const Layer *layer = &desk.layers[0]
    cdef Parts panels = panels_in(layer.vectors)
    cdef Py_ssize_t s, p, v, nv, j, t, width
    cdef const real *panel
    cdef const real *w
    cdef real *z
    cdef real x
    for s in range(lo, hi):
        v = layer.own.first_vector
        for p in range(layer.own.first_panel, layer.own.last_panel):
            nv = panels.size + (p < panels.larger)
            width = nv * LANES
            panel = layer.weights + v * LANES * layer.rows
            z = layer.z + s * layer.stride + v * LANES
            memcpy(z, panel + layer.n_in * width, width * sizeof(real))
            for t in range(data.indptr[chunk[s]], data.indptr[chunk[s] + 1]):
                x = data.values[t]
                w = panel + data.indices[t] * width
                for j from 0 <= j < width by LANES:
                    store(z + j, load(z + j) + load(w + j) * x)
            v += nv


cdef void whole_product(const Net *net, const Desk *desk, Py_ssize_t l, Share own, Py_ssize_t lo,
                        Py_ssize_t hi, Region wanted) noexcept nogil:
    """Z_l = A_{l-1} W_l + b_l, own columns of rows lo to hi, each sum in one chain."""
    cdef const Layer *layer = &desk.layers[l]
    cdef const real *a = desk.input if l == 0 else (layer - 1).h
    cdef Py_ssize_t a_row = net.input_stride if l == 0 else (layer - 1).stride
    if layer.dotted:
        dot_columns(hi - lo, layer.n_out, (layer - 1).vectors, 0, panels_of((layer - 1).vectors),
                    a + lo * a_row, a_row, layer.transposed, layer.weights + layer.n_in * LANES,
                    False, layer.z + lo * layer.stride, layer.stride)
        return
    product(hi - lo, layer.vectors, own.first_panel, own.last_panel, layer.n_in, a + lo * a_row,
            a_row, 1, layer.weights, 0, layer.rows, 0, FROM_BIAS, False,
            layer.z + lo * layer.stride, layer.stride, wanted)


cdef void first_layer(const Net *net, const Desk *desk, Data data, Py_ssize_t lo, Py_ssize_t hi,
                      const long long *chunk) noexcept nogil:
    """Z_1 = X W_1 + b_1, own columns of rows lo to hi of the chunk."""
    if net.sparse:
        sparse_forward(desk, data, lo, hi, chunk)
    elif not desk.ahead:
        whole_product(net, desk, 0, desk.layers[0].own, lo, hi, nowhere())


cdef void compare(const Net *net, const Desk *desk, bint weighted, Py_ssize_t lo, Py_ssize_t hi,
                  double factor) noexcept nogil:
    """The outputs and weighted costs of rows lo to hi; dZ of the last layer times weight * factor.

    Weighted here: when the first thread adds the costs up, others may have gathered new weights.
    """
    cdef const Layer *last = &desk.layers[net.n_layers - 1]
    cdef Py_ssize_t at = lo * last.stride, s
    if last.activation != SOFTMAX:
        activate(last.activation, last.parameter, hi - lo, last.vectors, last.stride, last.z + at,
                 last.a + at)
    cost_and_slope(net.loss, net.loss_parameter, last.activation, last.parameter, hi - lo,
                   last.n_out, last.stride, last.z + at, last.a + at, desk.target + at,
                   last.d + at, desk.costs + lo, desk.totals + lo, desk.masses + lo)
    scale_rows(hi - lo, last.n_out, last.stride, last.d + at,
               desk.weights + lo if weighted else NULL, factor)
    if weighted:
        for s in range(lo, hi):
            desk.costs[s] = <real>(desk.costs[s] * desk.weights[s])


cdef double add_costs(double total, const Desk *desk, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    """`total` plus the weighted costs of rows lo to hi of a chunk, in the order of the rows."""
    cdef Py_ssize_t s
    for s in range(lo, hi):
        total += desk.costs[s]
    return total


# -- backward -------------------------------------------------------------------------------------

cdef void times_transposed(const Net *net, const Layer *layer, Share own, Py_ssize_t rows,
                           const real *d, real *c, Py_ssize_t c_row,
                           Region wanted) noexcept nogil:
    """dZ W^T of one layer into the own columns of c (rows, n_in)."""
    if net.transposing:
        product(rows, vectors_of(layer.n_in), own.first_panel, own.last_panel, layer.n_out, d,
                layer.stride, 1, layer.transposed, 0, layer.n_out, 0, FROM_ZERO, False, c, c_row,
                wanted)
    else:
        dot_rows(rows, own.first_unit, own.last_unit, layer.vectors, layer.rows, d, layer.stride,
                 layer.weights, c, c_row)


cdef void backward(const Net *net, const Desk *desk, Py_ssize_t l, Share own, Py_ssize_t lo,
                   Py_ssize_t hi, Py_ssize_t first_row, Region wanted) noexcept nogil:
    """dZ_{l-1} = (dZ_l W_l^T) g'(Z_{l-1}), own columns of rows lo to hi."""
    cdef const Layer *layer = &desk.layers[l]
    cdef const Layer *below = &desk.layers[l - 1]
    cdef Py_ssize_t at = lo * below.stride + own.first_unit, s
    times_transposed(net, layer, own, hi - lo, layer.d + lo * layer.stride,
                     below.d + lo * below.stride, below.stride, wanted)
    if below.h != below.a:
        for s in range(lo, hi):
            drop_row(own.first_unit, own.last_unit - own.first_unit,
                     dropout_base(net.dropout_seed, desk.step, l - 1, first_row + s),
                     net.dropout_threshold, <real>(1 / (1 - net.dropout)),
                     below.d + at + (s - lo) * below.stride,
                     below.d + at + (s - lo) * below.stride)
    differentiate(below.activation, below.parameter, hi - lo,
                  own.last_vector - own.first_vector, below.stride, below.z + at,
                  below.a + at, below.d + at)
    if below.d_panels != NULL:
        pack(lo, hi, below.n_out, own.first_panel, own.last_panel, below.d,
             below.stride, below.d_panels, net.capacity)


# -- weight gradient and update -------------------------------------------------------------------

cdef void update_rows(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t at,
                      Py_ssize_t width, const real *scales, Py_ssize_t scale_step,
                      const real *slope, Py_ssize_t slope_row, const Update *u,
                      real *gradient, real *penalty, bint more, const real *ahead,
                      real *z) noexcept nogil:
    """Rows lo to hi of one panel, which begins at `at`; the bias row bears no penalty.

    Where the next example's inputs are given, z becomes its product with the new weights.
    """
    cdef Py_ssize_t last = min(hi, layer.n_in) if u.penalised or ahead != NULL else hi
    cdef Py_ssize_t weights = max(last - lo, 0), i = at + lo * width
    cdef Py_ssize_t bias = at + layer.n_in * width
    if hi > last:
        update(u, False, 1, width, scales + weights * scale_step, scale_step,
               slope + weights * slope_row, slope_row, layer.weights + bias,
               layer.velocity + bias, layer.second + bias, gradient + bias, NULL, False,
               NULL, NULL)
    if ahead != NULL:
        memcpy(z, layer.weights + bias, width * sizeof(real))
    update(u, True, weights, width, scales, scale_step, slope, slope_row, layer.weights + i,
           layer.velocity + i, layer.second + i, gradient + i, penalty, more, ahead, z)


cdef void renew_transposed(const Net *net, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi,
                           Py_ssize_t first_panel, Py_ssize_t last_panel) noexcept nogil:
    """W^T of one layer after the update of rows lo to hi of some panels of W."""
    if layer.transposed != NULL and net.transposing and net.optimizer != NO_UPDATE:
        transpose_rows(lo, min(hi, layer.n_in), vector_of_panel(layer.vectors, first_panel),
                       vector_of_panel(layer.vectors, last_panel), layer.n_in, layer.n_out,
                       layer.rows, layer.weights, layer.transposed)


cdef void copy_block(const Layer *source, const Layer *target, Py_ssize_t lo, Py_ssize_t hi,
                     Py_ssize_t first_panel, Py_ssize_t last_panel) noexcept nogil:
    """The weights and moments of rows lo to hi of some panels, from one desk's to another's."""
    cdef Py_ssize_t p, v = vector_of_panel(source.vectors, first_panel), following, at
    cdef size_t size
    for p in range(first_panel, last_panel):
        following = vector_of_panel(source.vectors, p + 1)
        at = (v * source.rows + lo * (following - v)) * LANES
        size = (hi - lo) * (following - v) * LANES * sizeof(real)
        memcpy(target.weights + at, source.weights + at, size)
        if source.velocity != NULL:
            memcpy(target.velocity + at, source.velocity + at, size)
        if source.second != NULL:
            memcpy(target.second + at, source.second + at, size)
        v = following


cdef void outer_update(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t first_panel,
                       Py_ssize_t last_panel, const real *a, const real *ahead, const Update *u,
                       real *penalties) noexcept nogil:
    """One example: dW = a^T dz, never stored."""
    cdef Parts panels = panels_in(layer.vectors)
    cdef Py_ssize_t p, nv, v = vector_of_panel(layer.vectors, first_panel)
    for p in range(first_panel, last_panel):
        nv = panels.size + (p < panels.larger)
        update_rows(layer, lo, hi, v * LANES * layer.rows, nv * LANES, a + lo, 1,
                    layer.d + v * LANES, 0, u, layer.gradient, penalties + p * LANES, False, ahead,
                    layer.z + v * LANES)
        v += nv


cdef void pack_slivers(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t count,
                       const real *a, Py_ssize_t a_depth, Py_ssize_t capacity) noexcept nogil:
    """The columns lo to hi of A as the tiles of A^T dZ read them."""
    cdef Parts tiles = parts_of(hi - lo, MR)
    cdef Py_ssize_t t, mr, i = lo
    for t in range(tiles.number):
        mr = tiles.size + (t < tiles.larger)
        pack_sliver(<int>mr, count, a + i, a_depth, layer.slivers + i * capacity)
        i += mr


cdef inline bint packs(const Layer *layer, Py_ssize_t count) noexcept nogil:
    """Whether the weight gradient over so many rows reads packed operands."""
    return layer.slivers != NULL and count >= DEEP_ROWS


cdef inline void turn_over(Py_ssize_t rows, Py_ssize_t n_out,
                           const real *across,   # IN  (n_out, rows), rows across_row apart
                           Py_ssize_t across_row,
                           real *slope           # OUT (rows, LANES), zeros past n_out stay
                           ) noexcept nogil:
    cdef Py_ssize_t r, o
    for o in range(n_out):
        for r in range(rows):
            slope[r * LANES + o] = across[o * across_row + r]


cdef void slight_gradient(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t row,
                          Py_ssize_t count, const real *a, Py_ssize_t a_depth, real *gradient,
                          bint first, bint last, const Update *u, real *penalties) noexcept nogil:
    """`gradient_tiles` of a layer of a few units: dW^T = dZ^T A, whose vectors are full.

    What is not the last yet is kept so: block by block (n_out, rows), a few lines to cross.
    """
    cdef vec across[SLIGHT_UNITS][NV]
    cdef vec sums[NV * LANES]
    cdef real *slope = <real *>sums
    cdef real *so_far
    cdef Py_ssize_t i, n, nv, r, o
    for r in range(NV * LANES):
        sums[r] = splat(0)
    for i from lo <= i < hi by NV * LANES:
        n = min(NV * LANES, hi - i)
        nv = vectors_of(n)
        tiles_across(<int>layer.n_out, <int>nv, nothing_ahead(), 1, count,
                     layer.d + row * layer.stride, 0, layer.stride, a + row * a_depth + i, a_depth,
                     &ZEROS[0], 0, <real *>across, nv * LANES)
        so_far = gradient + i * LANES
        for o in range(0 if first else layer.n_out):
            for r in range(n):
                (<real *>across)[o * nv * LANES + r] += so_far[o * n + r]
        if last:
            turn_over(n, layer.n_out, <real *>across, nv * LANES, slope)
            update_rows(layer, i, i + n, 0, LANES, &UNIT[0], 0, slope, LANES, u, gradient,
                        penalties, i > lo, NULL, NULL)
            continue
        for o in range(layer.n_out):
            memcpy(so_far + o * n, <real *>across + o * nv * LANES, n * sizeof(real))


cdef void gradient_tiles(const Net *net, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi,
                         Py_ssize_t first_panel, Py_ssize_t last_panel, Py_ssize_t row,
                         Py_ssize_t count, const real *a, Py_ssize_t a_depth, real *gradient,
                         bint first, bint last, const Update *u, real *penalties) noexcept nogil:
    """dW = A^T dZ over `count` rows from `row`, rows lo to hi of dW: a few tiles at a time added up
    in `gradient`, or updated while the sums are in L1.

    The lines to be written next, which lie far away or on another core, are asked for meanwhile.
    """
    cdef Parts panels = panels_in(layer.vectors), tiles
    cdef Py_ssize_t p, nv, v = vector_of_panel(layer.vectors, first_panel), t, mr, i, at, width, n
    cdef Py_ssize_t tile_step, depth_step, d_row = layer.stride, following, rows
    cdef vec sums[GROUP_TILES * MR][NV]
    cdef real *slope = <real *>sums
    cdef real *so_far
    cdef const real *columns
    cdef const real *d
    cdef bint packed = packs(layer, count), slivered
    cdef Ahead ahead = nothing_ahead()
    if layer.slight:
        if first_panel < last_panel:
            slight_gradient(layer, lo, hi, row, count, a, a_depth, gradient, first, last, u,
                            penalties)
        return
    for p in range(first_panel, last_panel):
        nv = panels.size + (p < panels.larger)
        width = nv * LANES
        if p == first_panel or p == panels.larger:
            tiles = parts_of(hi - lo, tile_rows(nv))
        slivered = packed and nv <= NV  # slivers are of MR rows
        ahead.far = not slivered and count * a_depth > FAR_NUMBERS
        at = v * LANES * layer.rows
        d = layer.d + row * layer.stride + v * LANES
        if packed:
            d = layer.d_panels + v * LANES * net.capacity
            d_row = width
        i = lo
        t = 0
        while t < tiles.number:
            mr = tiles.size + (t < tiles.larger)
            n = min(GROUP_TILES, (tiles.larger if t < tiles.larger else tiles.number) - t)
            so_far = gradient + at + i * width
            columns, tile_step, depth_step = a + row * a_depth + i, mr, a_depth
            if slivered:
                columns, depth_step = layer.slivers + i * net.capacity, mr
                tile_step = mr * net.capacity
            # The rows that are next, of this panel or of the next one: no line of another thread's.
            rows = min(n * mr, hi - i - n * mr)
            following = at + (i + n * mr) * width
            if rows == 0 and p + 1 < last_panel:
                rows = min(n * mr, hi - lo)
                following = (v + nv) * LANES * layer.rows + lo * (
                    panels.size + (p + 1 < panels.larger)) * LANES
            ahead.step = (rows if last else n * mr) * width * sizeof(real) // (n * count)
            if last:
                ahead.one = <const char *>(layer.weights + following)
                ahead.other = <const char *>(layer.velocity + following)
            else:
                ahead.one = ahead.other = <const char *>so_far
            tiles_across(<int>mr, <int>nv, ahead, n, count, columns, tile_step, depth_step, d,
                         d_row, &ZEROS[0] if first else so_far, 0 if first else width,
                         slope if last else so_far, width)
            i += n * mr
            t += n
            if last:
                update_rows(layer, i - n * mr, i, at, width, &UNIT[0], 0, slope, width, u, gradient,
                            penalties + p * LANES, i - n * mr > lo, NULL, NULL)
        v += nv


cdef void sparse_gradient(const Layer *layer, Data data, Py_ssize_t count, const long long *chunk,
                          bint last, const Update *u, real *penalties) noexcept nogil:
    """dW_1 of CSR rows, own columns: each stored number adds x dz to its row of the gradient.

    The gradient is zero when a mini-batch begins; rows written are zeroed after the update.
    """
    cdef Parts panels = panels_in(layer.vectors)
    cdef Py_ssize_t p, nv, v = layer.own.first_vector, s, t, k, j, width
    cdef real *panel
    cdef const real *d
    for p in range(layer.own.first_panel, layer.own.last_panel):
        nv = panels.size + (p < panels.larger)
        width = nv * LANES
        panel = layer.gradient + v * LANES * layer.rows
        for s in range(count):
            d = layer.d + s * layer.stride + v * LANES
            for t in range(data.indptr[chunk[s]], data.indptr[chunk[s] + 1]):
                k = data.indices[t]
                for j from 0 <= j < width by LANES:
                    store(panel + k * width + j,
                          load(panel + k * width + j) + load(d + j) * data.values[t])
            for j from 0 <= j < width by LANES:
                store(panel + layer.n_in * width + j,
                      load(panel + layer.n_in * width + j) + load(d + j))
        if last:
            update_rows(layer, 0, layer.rows, v * LANES * layer.rows, width, &UNIT[0], 0, panel,
                        width, u, layer.gradient, penalties + p * LANES, False, NULL, NULL)
            if u.optimizer != NO_UPDATE:
                memset(panel, 0, layer.rows * width * sizeof(real))
        v += nv


cdef void descend(const Net *net, Desk *desk, Data data, Py_ssize_t l, Py_ssize_t count,
                  const long long *chunk, bint first, bint last, const Update *u,
                  real *penalties) noexcept nogil:
    """dW_l = A_{l-1}^T dZ_l over the chunk's rows, own part, and after the last chunk the update:
    own columns of the first layer, own rows of the others."""
    cdef Layer *layer = &desk.layers[l]
    cdef const Layer *below
    cdef Py_ssize_t lo = 0, hi = layer.rows, q, first_panel = layer.own.first_panel
    cdef Py_ssize_t last_panel = layer.own.last_panel, a_depth = net.input_stride
    cdef Py_ssize_t first_part = 0, last_part = 1, panels = panels_of(layer.vectors)
    cdef const real *a = desk.input
    cdef const real *following = desk.following if l == 0 and desk.ahead else NULL
    cdef Share part
    if l == 0 and net.sparse:
        sparse_gradient(layer, data, count, chunk, last, u, penalties)
        return
    if l > 0:
        below = &desk.layers[l - 1]
        a, a_depth = below.h, below.stride
        first_part, last_part = below.own.first_part, below.own.last_part
        first_panel, last_panel = 0, panels
    for q in range(first_part, last_part):
        if l > 0:
            part = share_of_parts(below, q, q + 1)
            lo, hi = part.first_unit, part.last_unit + part.last
        if count == 1 and last and first:
            outer_update(layer, lo, hi, first_panel, last_panel, a, following, u,
                         penalties + q * panels * LANES)
        else:
            gradient_tiles(net, layer, lo, hi, first_panel, last_panel, 0, count, a, a_depth,
                           layer.gradient, first, last, u, penalties + q * panels * LANES)
        if last and l > 0:
            renew_transposed(net, layer, lo, hi, 0, panels)


cdef void add_slight_slices(const Layer *layer, real *gradients, Py_ssize_t slices,
                            const Update *u, real *penalties) noexcept nogil:
    """`add_slices` of a layer of a few units, with gradients as `slight_gradient` leaves them."""
    cdef vec sums[NV * LANES]
    cdef real across[SLIGHT_UNITS * NV * LANES]
    cdef Py_ssize_t i, n, r, q
    cdef const real *gradient
    for r in range(NV * LANES):
        sums[r] = splat(0)
    for i from 0 <= i < layer.rows by NV * LANES:
        n = min(NV * LANES, layer.rows - i)
        memcpy(across, gradients + i * LANES, layer.n_out * n * sizeof(real))
        for q in range(1, slices):
            gradient = gradients + q * layer.size + i * LANES
            for r in range(layer.n_out * n):
                across[r] += gradient[r]
        turn_over(n, layer.n_out, across, n, <real *>sums)
        update_rows(layer, i, i + n, 0, LANES, &UNIT[0], 0, <real *>sums, LANES, u, gradients,
                    penalties, i > 0, NULL, NULL)


cdef void add_slices(const Net *net, const Desk *desk, const Layer *layer, real *gradients,
                     Py_ssize_t slices, const Update *u, real *penalties) noexcept nogil:
    """The update of a replica by the sum of the slices' gradients, `layer.size` apart."""
    cdef Parts panels = panels_in(layer.vectors), blocks
    cdef Py_ssize_t p, nv, v = 0, q, j, at, width, i, k, n
    cdef real *first
    cdef real *total
    if layer.slight and not net.turned:
        add_slight_slices(layer, gradients, slices, u, penalties)
        return
    for p in range(panels.number):
        nv = panels.size + (p < panels.larger)
        width = nv * LANES
        at = v * LANES * layer.rows
        blocks = parts_of(layer.rows, MOST_PARTS * JOIN_ROWS * NV * LANES // 2 // width)
        i = 0
        for k in range(blocks.number):
            n = blocks.size + (k < blocks.larger)
            first = gradients + at + i * width
            total = first
            if slices > 1:
                total = desk.scratch
                # Other cores wrote most of it: ask for all its lines at once.
                for q in range(slices):
                    for j from 0 <= j < n * width by CACHE_LINE // <Py_ssize_t>sizeof(real):
                        prefetch(first + q * layer.size + j)
                for j from 0 <= j < n * width by LANES:
                    store(total + j, load(first + j) + load(first + layer.size + j))
                for q in range(2, slices):
                    for j from 0 <= j < n * width by LANES:
                        store(total + j, load(total + j) + load(first + q * layer.size + j))
            update_rows(layer, i, i + n, at, width, &UNIT[0], 0, total, width, u, gradients,
                        penalties + p * LANES, i > 0, NULL, NULL)
            i += n
        v += nv
