# Forward, on one thread of a team: pre-activations, activations and costs of its rows or of its
# columns of every layer.
#
# Design: Z_l = A_{l-1} W_l + b_l is one call of `product`, from the bias on. Where a team shares
# units (layers.pxi) a thread computes the shares of its own parts and adds them as a tree, for few
# rows and one panel at a time, so that those that wait for others stay in L1. After the units of a
# block comes a column of ones, which makes the bias one more row of dW. Long rows of X are gathered
# among the first layer's products: a core can wait for a few lines of memory at a time only, and on
# a Zen 4 copied 15 GB/s with nothing else to do (784-128-10 1.05 on one thread, 1.07 on two).
# Rejected: blocks of 12 or 48 such rows (0.98 to 1.00), each thread beginning with another one, and
# the lines that rows are copied to asked for as well (nothing).

cdef enum:
    LONG_ROWS = 256         # inputs, from which on rows are gathered so (from 64 to 200 nothing)
    GATHERED_ROWS = 4 * MR  # and how many at a time


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
                a + part.first_unit, below.stride, layer.weights, 0, layer.rows,
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
            n = size_of(blocks, k)
            sum_of_parts(below, layer, first, last, n, panel, panel + 1, a + i * below.stride,
                         False, c + i * layer.stride
                         + vector_of_panel(layer.vectors, panel) * LANES, layer.stride,
                         desk.scratch)
            i += n


cdef void add_shares(const Desk *desk, const Layer *below, const Layer *layer,
                     const real *sums,  # IN  (team, capacity, stride) each desk's share
                     Py_ssize_t capacity, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t first,
                     Py_ssize_t last
                     ) noexcept nogil:
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


cdef void drop_units(const Net *net, const Desk *desk, Py_ssize_t l, Share own, Py_ssize_t rows,
                     Py_ssize_t first_row,   # of the mini-batch
                     const real *a,          # IN  (rows, own units)
                     real *h                 # OUT likewise: those kept, scaled; may be a itself
                     ) noexcept nogil:
    """Dropout of a thread's units: the same forward and backward."""
    drop(rows, own.last_unit - own.first_unit, desk.layers[l].stride,
         dropout_key(net.dropout_seed, desk.step, l), first_row, own.first_unit,
         net.dropout_threshold, <real>(1 / (1 - net.dropout)), a, h)


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
    if training and layer.h != layer.a:
        drop_units(net, desk, l, own, hi - lo, first_row + lo, layer.a + at, layer.h + at)
    for s in range(lo, hi):
        if not training and layer.h != layer.a:
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
            nv = size_of(panels, p)
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
    cdef Rows read = rows_read_by(net, desk, l)
    if layer.dotted:
        dot_columns(hi - lo, layer.n_out, (layer - 1).vectors, 0, panels_of((layer - 1).vectors),
                    read.at + lo * read.stride, read.stride, layer.transposed,
                    layer.weights + layer.n_in * LANES, False, layer.z + lo * layer.stride,
                    layer.stride)
        return
    product(hi - lo, layer.vectors, own.first_panel, own.last_panel, layer.n_in,
            read.at + lo * read.stride, read.stride, layer.weights, 0, layer.rows, 0, FROM_BIAS,
            False, layer.z + lo * layer.stride, layer.stride, wanted)


cdef inline bint gathers_inputs(const Net *net, const Desk *desk) noexcept nogil:
    """Whether the first layer gathers the rows of X that it reads, on this thread."""
    return net.long_rows and not (desk.ahead or desk.team > 1 and net.shared_input)


cdef Region rows_to_come(const Desk *desk, Data data,
                         const long long *chunk, Py_ssize_t first, Py_ssize_t count,
                         const char **pieces  # scratch (count,)
                         ) noexcept nogil:
    """`count` rows of X from place `first` of the chunk on, or as many as there are."""
    cdef Region region = nowhere()
    cdef Py_ssize_t s
    count = min(count, desk.to_come - first)
    for s in range(count):
        pieces[s] = data.x + chunk[first + s] * data.row_bytes
    if count > 0:
        region.at, region.bytes = pieces[0], data.row_extent
        region.others, region.more = pieces + 1, count - 1
    return region


cdef void gathered_layer(const Net *net, const Desk *desk, Data data, Py_ssize_t rows,
                         const long long *chunk) noexcept nogil:
    """Z_1 = X W_1 + b_1, own columns, from rows of X that are gathered a few at a time. Those that
    follow, in the end the first ones of the next mini-batch, come from memory meanwhile."""
    cdef const char *pieces[GATHERED_ROWS]
    cdef Py_ssize_t i = 0, n, following
    while i < rows:
        n = min(GATHERED_ROWS, rows - i)
        following = min(GATHERED_ROWS, rows - i - n if i + n < rows else rows)
        data.gather(chunk, i, n, desk.input + i * net.input_stride, net.input_stride)
        whole_product(net, desk, 0, desk.layers[0].own, i, i + n,
                      rows_to_come(desk, data, chunk, i + n, following, pieces))
        i += n


cdef void first_layer(const Net *net, const Desk *desk, Data data, Py_ssize_t lo, Py_ssize_t hi,
                      const long long *chunk) noexcept nogil:
    """Z_1 = X W_1 + b_1, own columns of rows lo to hi of the chunk."""
    if net.sparse:
        sparse_forward(desk, data, lo, hi, chunk)
    elif gathers_inputs(net, desk):
        gathered_layer(net, desk, data, hi, chunk)
    elif not desk.ahead:
        whole_product(net, desk, 0, desk.layers[0].own, lo, hi, nowhere())


# -- targets and costs -----------------------------------------------------------------------------

cdef void gather_targets(Data data, const Desk *desk, const Layer *last, Py_ssize_t lo,
                         Py_ssize_t hi, const long long *chunk) noexcept nogil:
    """The targets and weights of rows lo to hi of the chunk."""
    cdef Py_ssize_t s
    data.gather_targets(chunk + lo, hi - lo, desk.target + lo * last.stride, last.stride)
    if data.weights != NULL:
        for s in range(lo, hi):
            desk.weights[s] = data.weights[chunk[s]]


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
            desk.costs[s] = (<real>(desk.costs[s] * desk.weights[s])
                             if desk.weights[s] != 0 else 0)


cdef double add_costs(double total, const Desk *desk, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    """`total` plus the weighted costs of rows lo to hi of a chunk, in the order of the rows."""
    cdef Py_ssize_t s
    for s in range(lo, hi):
        total += desk.costs[s]
    return total
