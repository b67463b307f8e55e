# Cost and gradient of networks a few units wide, with one example a lane.
#
# Design: where a layer is narrower than a vector, rows of units leave most lanes empty. Here blocks
# are turned: A^T (n, examples), a row a unit, and every lane works whatever the widths. The
# products are those of products.pxi, with W broadcast from where it lies, row by row (nothing is
# packed for it, and X is turned on its way: turning.pxi):
#     Z_l^T = b_l + W_l^T A_{l-1}^T,   dA_{l-1}^T = W_l dZ_l^T
# The weight gradient alone sums across lanes, but for most of the first layer's: dW_l =
# A_{l-1}^T dZ_l are dot products of rows, a tile of them at a time, a vector of sums for each
# weight; a few rows of W at a time, before they leave L1, these are woven into numbers in the order
# of the flat parameters. Costs go by `loss_of`, as in costs.pxi, and softmax needs no sum across
# lanes.
# narrow.pxi computes gradients for Python this way, inference.pxi predictions of many rows (of
# wider networks too, where rows of units are padded), and the engine the slices of a mini-batch,
# where that is quicker (`is_turned` in sharing.pxi): 4-10-3 with batches of 32 takes 0.9 us a step
# for 1.5. Not for CSR, nor with dropout, whose masks are drawn by rows of units.

cdef enum:
    TURNED_ROWS = 256      # examples in a block, at most; its A and dZ stay in L1 and L2
    NARROW_WEIGHTS = 2048  # of a network whose every dot product is worth its sum across lanes
    WOVEN_BYTES = 16384    # of sums that are woven at once, about: they stay in L1
    LANE_SUM = 12          # multiply-adds that take as long as to sum a vector's lanes, about


cdef struct TurnedLayer:
    Py_ssize_t n_in, n_out
    Py_ssize_t offset      # of the layer in the flat parameters
    int activation
    real parameter
    const real *weights    # (n_in + 1, n_out) W and the bias, rows `row` apart
    Py_ssize_t row
    real *z                # (n_out, stride) Z^T; a itself where g' needs no z
    real *a                # (n_out + 1, stride) A^T, the last row ones
    real *d                # (n_out, stride) dJ/dZ^T


cdef struct Turned:
    # One thread's blocks, a row a unit and the examples along it.
    Py_ssize_t n_layers, n_x, n_y, n_parameters
    Py_ssize_t rows        # examples in a block
    Py_ssize_t stride      # of a row of the blocks
    Py_ssize_t gathered_row  # from an example that is gathered to the next
    Py_ssize_t along       # inputs whose weights' gradients are from rows of X: the first ones
    int loss
    real loss_parameter
    TurnedLayer *layers
    Examples examples      # X
    real *gathered         # (stride, gathered_row) what of X is not read where it lies
    real *input            # (n_x - along + 1, stride) X^T of the other inputs, and a row of ones
    real *across           # (n_out, whole vectors of `along`) dW_1^T of those
    real *target           # (n_y, stride) y^T
    real *weights          # (stride,) of the examples
    Py_ssize_t most_sums   # dot products that are woven at once, at most
    real *sums             # (most_sums, LANES) some of the gradient before its lanes are added up
    real *gradient         # (n_parameters,) all of it after


cdef inline Py_ssize_t woven_rows(const TurnedLayer *layer) noexcept nogil:
    """Rows of W whose dot products are woven at once, whole tiles of them."""
    return max(WOVEN_BYTES // (VECTOR_BYTES * layer.n_out) // MR, 1) * MR


cdef void describe(Turned *turned, TurnedLayer *layers, Py_ssize_t n_layers,
                   Py_ssize_t rows) noexcept nogil:
    """What follows from the layers' sizes, for blocks of up to so many examples."""
    cdef Py_ssize_t l
    turned.layers, turned.n_layers = layers, n_layers
    turned.n_x, turned.n_y = layers[0].n_in, layers[n_layers - 1].n_out
    turned.rows = min(rows, TURNED_ROWS)
    # Not a power of two apart.
    turned.stride = vectors_of(turned.rows) * LANES + CACHE_LINE // sizeof(real)
    turned.gathered_row = block_stride(turned.n_x)
    # A vector of inputs takes a multiply-add an example, an input one a vector of examples and the
    # sum across its lanes.
    turned.along = 0
    while (turned.along < turned.n_x and turned.rows
           < min(turned.n_x - turned.along, LANES) * (vectors_of(turned.rows) + LANE_SUM)):
        turned.along = min(turned.along + LANES, turned.n_x)
    turned.n_parameters = turned.most_sums = 0
    for l in range(n_layers):
        layers[l].offset = turned.n_parameters
        layers[l].row = layers[l].n_out
        turned.n_parameters += (layers[l].n_in + 1) * layers[l].n_out
        turned.most_sums = max(turned.most_sums, woven_rows(&layers[l]) * layers[l].n_out)
    turned.most_sums = vectors_of(turned.most_sums) * LANES


cdef inline Py_ssize_t inputs_kept(const Turned *turned) noexcept nogil:
    """Rows of X^T that the weight gradient reads."""
    return turned.n_x - turned.along


cdef inline Py_ssize_t numbers_across(const Turned *turned) noexcept nogil:
    """Numbers of dW_1^T."""
    return turned.layers[0].n_out * vectors_of(turned.along) * LANES


cdef Py_ssize_t numbers_of(const Turned *turned) noexcept nogil:
    """Numbers in all blocks."""
    cdef Py_ssize_t l, rows = turned.gathered_row + inputs_kept(turned) + 1 + turned.n_y + 1
    for l in range(turned.n_layers):
        rows += 3 * turned.layers[l].n_out + 1
    return (rows * turned.stride + numbers_across(turned) + turned.most_sums * LANES
            + turned.n_parameters + LANES)


cdef real *rows_of_ones(Py_ssize_t count, Py_ssize_t stride, real *at) noexcept nogil:
    """A block of `count` rows of which the last is ones."""
    cdef Py_ssize_t j
    for j in range(stride):
        at[(count - 1) * stride + j] = 1
    return at


cdef void lay_out(Turned *turned, real *at) noexcept nogil:
    """The blocks, one after the other, in zeros for so many numbers as they have."""
    cdef Py_ssize_t l, stride = turned.stride
    cdef TurnedLayer *layer
    turned.gathered = at
    at += turned.gathered_row * stride
    turned.input = rows_of_ones(inputs_kept(turned) + 1, stride, at)
    at += (inputs_kept(turned) + 1) * stride
    turned.across = at
    at += numbers_across(turned)
    for l in range(turned.n_layers):
        layer = &turned.layers[l]
        layer.a = layer.z = rows_of_ones(layer.n_out + 1, stride, at)
        at += (layer.n_out + 1) * stride
        if l == turned.n_layers - 1 or needs_preactivation(layer.activation, layer.parameter):
            layer.z = at
            at += layer.n_out * stride
        layer.d = at
        at += layer.n_out * stride
    turned.target = at
    turned.weights = turned.target + turned.n_y * stride
    turned.sums = turned.weights + stride
    turned.gradient = turned.sums + turned.most_sums * LANES


# -- examples -------------------------------------------------------------------------------------

cdef void turn_targets(const Turned *turned, Data data, const long long *order, Py_ssize_t first,
                       Py_ssize_t count) noexcept nogil:
    """y^T of `count` examples: whole vectors of them where they lie one after the other, else
    number by number, of which most networks have few. Old ones past the last are finite."""
    cdef Py_ssize_t s = 0, o, i, stride = turned.stride, n = turned.n_y
    cdef real *target = turned.target
    cdef const real *y = data.y + first * n
    if data.classes != NULL:
        for o from 0 <= o < n * stride by LANES:
            store(target + o, splat(0))
        for s in range(count):
            i = order[first + s] if order != NULL else first + s
            target[data.classes[i] * stride + s] = 1
        return
    if order == NULL and n == 1:
        memcpy(target, y, count * sizeof(real))
        return
    if order == NULL:
        while s + LANES <= min(count, data.whole_y - first):
            transpose_block(False, y + s * n, n, n, target + s, stride)
            s += LANES
    for s in range(s, count):
        y = data.y + n * (order[first + s] if order != NULL else first + s)
        for o in range(n):
            target[o * stride + s] = y[o]


cdef void take_examples(Turned *turned, Data data,
                        const long long *order,  # IN  (first + count,), or NULL
                        Py_ssize_t first, Py_ssize_t count
                        ) noexcept nogil:
    """X where it lies or gathered, y^T, and the weights of `count` examples."""
    cdef Py_ssize_t s
    turned.examples = examples_of(data, order, first, count, turned.gathered, turned.gathered_row)
    turn_targets(turned, data, order, first, count)
    if data.weights != NULL:
        for s in range(count):
            turned.weights[s] = <real>data.weights[order[first + s] if order != NULL else first + s]


# -- forward and cost -----------------------------------------------------------------------------

cdef void forward_turned(const Turned *turned, Py_ssize_t vectors) noexcept nogil:
    """Z_l and A_l of all layers; softmax is left to `compare_turned`."""
    cdef Py_ssize_t l
    cdef const TurnedLayer *layer
    cdef const real *a = NULL
    for l in range(turned.n_layers):
        layer = &turned.layers[l]
        if l == 0:
            turning_product(layer.n_in, layer.n_out, vectors, &turned.examples, layer.weights,
                            layer.row, layer.z, turned.along, turned.input, turned.stride)
        else:
            product_of_units(layer.n_out, vectors, layer.n_in, layer.weights, layer.row,
                             layer.weights + layer.n_in * layer.row, 1, a, turned.stride, layer.z,
                             turned.stride)
        if layer.activation != SOFTMAX:
            activate(layer.activation, layer.parameter, layer.n_out, vectors, turned.stride,
                     layer.z, layer.a)
        a = layer.a


cdef vec compare_softmax(int loss, Py_ssize_t width, Py_ssize_t stride,
                         const real *z,    # IN  (width, LANES) pre-activations, rows a stride apart
                         const real *y,    # IN  (width, LANES) targets, likewise
                         real *a,          # OUT (width, LANES) softmax(z), likewise
                         real *d           # OUT (width, LANES) dJ/dz, likewise
                         ) noexcept nogil:
    """The costs of an example a lane: the formulas of costs.pxi."""
    cdef vec top = load(z), total = splat(0), linear = total, mass = total, inner = total, r, e
    cdef Py_ssize_t k
    for k in range(1, width):
        top = larger(load(z + k * stride), top)
    for k in range(width):
        r = load(z + k * stride) - top
        linear = linear - load(y + k * stride) * r
        mass = mass + load(y + k * stride)
        e = exp_of_negative(r)
        total = total + e
        store(a + k * stride, e)
    r = 1 / total
    for k in range(width):
        store(a + k * stride, load(a + k * stride) * r)
    if loss == LOG_LOSS:
        for k in range(width):
            store(d + k * stride, load(a + k * stride) * mass - load(y + k * stride))
        return linear + mass * log_of(total)
    total = splat(0)
    for k in range(width):
        r = load(a + k * stride) - load(y + k * stride)
        total = total + r * r * <real>0.5
        inner = inner + r * load(a + k * stride)
        store(d + k * stride, r)
    for k in range(width):
        store(d + k * stride, load(a + k * stride) * (load(d + k * stride) - inner))
    return total


cdef vec compare_units(const Turned *turned, const TurnedLayer *last,
                       Py_ssize_t s) noexcept nogil:
    """The costs of LANES examples from s, whose outputs are apart, and dZ^T."""
    cdef vec z, a, slope, total = splat(0)
    cdef Py_ssize_t o, at
    cdef bint matched = is_matched(turned.loss, last.activation)
    for o in range(last.n_out):
        at = o * turned.stride + s
        z = load(last.z + at)
        a = load(last.a + at)
        total = total + loss_of_kind(turned.loss, turned.loss_parameter, last.activation, z, a,
                                     load(turned.target + at), &slope)
        if not matched:
            slope = slope * g_prime(last.activation, last.parameter, z, a)
        store(last.d + at, slope)
    return total


cdef double compare_turned(const Turned *turned, Py_ssize_t rows, bint weighted,
                           double factor) noexcept nogil:
    """The sum of the weighted costs of a block; dZ^T of the output times weight * factor, 0 past
    the last row."""
    cdef const TurnedLayer *last = &turned.layers[turned.n_layers - 1]
    cdef Py_ssize_t s, o, at
    cdef vec c, d, total = splat(0), weight = splat(1), scale = splat(<real>factor)
    for s from 0 <= s < rows by LANES:
        if last.activation == SOFTMAX:
            c = compare_softmax(turned.loss, last.n_out, turned.stride, last.z + s,
                                turned.target + s, last.a + s, last.d + s)
        else:
            c = compare_units(turned, last, s)
        if weighted:  # what has no weight takes no part, were it infinite
            weight = load(turned.weights + s)
            scale = weight * <real>factor
            c = where_greater(weight, splat(0), c * weight, splat(0))
        total = total + within(c, rows, s, 0)
        for o in range(last.n_out):
            at = o * turned.stride + s
            d = load(last.d + at) * scale
            if weighted:
                d = where_greater(weight, splat(0), d, splat(0))
            store(last.d + at, within(d, rows, s, 0))
    return sum_of(total)


# -- backward and weight gradient -----------------------------------------------------------------

cdef void backward_turned(const Turned *turned, Py_ssize_t l, Py_ssize_t vectors) noexcept nogil:
    """dZ_{l-1}^T = (W_l dZ_l^T) g'(Z_{l-1}^T)."""
    cdef const TurnedLayer *layer = &turned.layers[l]
    cdef const TurnedLayer *below = &turned.layers[l - 1]
    product(layer.n_in, vectors, 0, panels_of(vectors), layer.n_out, layer.weights, layer.row,
            layer.d, turned.stride, layer.n_out, 0, FROM_ZERO, False, below.d, turned.stride,
            nowhere())
    differentiate(below.activation, below.parameter, layer.n_in, vectors, turned.stride, below.z,
                  below.a, below.d)


cdef inline void dots(const int mr, const int nr, Py_ssize_t vectors,
                      const real *a,     # IN  (mr, vectors), rows `stride` apart
                      const real *d,     # IN  (nr, vectors), likewise
                      Py_ssize_t stride,
                      real *sums,        # OUT (mr, nr vectors) a_i d_j in LANES parts
                      Py_ssize_t sums_row) noexcept nogil:
    """Products of rows of A^T and of dZ^T, a tile of them, left in LANES parts each."""
    cdef vec total[MR][NV]
    cdef vec x
    cdef vec y[NV]
    cdef Py_ssize_t k, once
    cdef int i, j
    for once in range(1):  # a loop around the others keeps `total` in registers: see `tiles`
        for i in range(mr):
            for j in range(nr):
                total[i][j] = splat(0)
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


cdef inline void dots_of_columns(const int mr, Py_ssize_t nr, Py_ssize_t vectors,
                                 const real *a,  # IN  (mr, vectors), stride apart
                                 const real *d,  # IN  (nr, vectors), stride apart
                                 Py_ssize_t stride,
                                 real *sums,     # OUT (mr, nr vectors)
                                 Py_ssize_t sums_row
                                 ) noexcept nogil:
    if NV >= 4 and nr == 4:
        dots(mr, 4, vectors, a, d, stride, sums, sums_row)
    elif NV >= 3 and nr == 3:
        dots(mr, 3, vectors, a, d, stride, sums, sums_row)
    elif nr == 2:
        dots(mr, 2, vectors, a, d, stride, sums, sums_row)
    else:
        dots(mr, 1, vectors, a, d, stride, sums, sums_row)


cdef void dots_of(Py_ssize_t mr, Py_ssize_t nr, Py_ssize_t vectors, const real *a, const real *d,
                  Py_ssize_t stride, real *sums, Py_ssize_t sums_row) noexcept nogil:
    """`dots` with its sizes known at run time."""
    if MR >= 6 and mr == 6:
        dots_of_columns(6, nr, vectors, a, d, stride, sums, sums_row)
    elif MR >= 5 and mr == 5:
        dots_of_columns(5, nr, vectors, a, d, stride, sums, sums_row)
    elif mr == 4:
        dots_of_columns(4, nr, vectors, a, d, stride, sums, sums_row)
    elif mr == 3:
        dots_of_columns(3, nr, vectors, a, d, stride, sums, sums_row)
    elif mr == 2:
        dots_of_columns(2, nr, vectors, a, d, stride, sums, sums_row)
    else:
        dots_of_columns(1, nr, vectors, a, d, stride, sums, sums_row)


cdef inline void weave(Py_ssize_t count,
                       const real *sums,  # IN  (count, LANES)
                       bint more,
                       real *gradient     # OUT, IN if more (count,)
                       ) noexcept nogil:
    """`count` numbers of the gradient from their sums in LANES parts; added to it if `more`."""
    cdef vec square[LANES]
    cdef vec woven
    cdef Py_ssize_t k
    cdef int i
    for k from 0 <= k < count by LANES:
        for i in range(LANES):
            square[i] = load(sums + (k + i) * LANES)
        woven = sums_of(square)
        if more:
            woven = woven + load_first(gradient + k, count - k)
        store_first(gradient + k, woven, count - k)


cdef void add_gradient(const Turned *turned, Py_ssize_t l, Py_ssize_t rows, bint more,
                       real *gradient  # OUT, IN if more (n_parameters,)
                       ) noexcept nogil:
    """dW_l and db_l of a block, into their places in the flat gradient or added to what is there:
    dot products of rows of A^T and dZ^T, but for the rows of dW_1 that are from rows of X."""
    cdef const TurnedLayer *layer = &turned.layers[l]
    gradient += layer.offset
    if l > 0:
        add_dots(turned, layer, layer.n_in + 1, turned.layers[l - 1].a, vectors_of(rows), more,
                 gradient)
        return
    if turned.along > 0:
        gradient_from_rows(turned.along, layer.n_out, rows, &turned.examples, layer.d,
                           turned.stride, more, turned.across, gradient)
    add_dots(turned, layer, inputs_kept(turned) + 1, turned.input, vectors_of(rows), more,
             gradient + turned.along * layer.n_out)


cdef void add_dots(const Turned *turned, const TurnedLayer *layer, Py_ssize_t count,
                   const real *a,  # IN  (count, vectors)
                   Py_ssize_t vectors, bint more,
                   real *gradient  # OUT, IN if more (count, n_out)
                   ) noexcept nogil:
    """A^T dZ for some rows of A^T."""
    cdef Parts tiles = parts_of(count, MR), columns = parts_of(layer.n_out, NV)
    cdef Py_ssize_t t, c, mr, nr, j, rows = 0, most_rows = woven_rows(layer) - MR
    for t in range(tiles.number):
        mr = size_of(tiles, t)
        j = 0
        for c in range(columns.number):
            nr = size_of(columns, c)
            dots_of(mr, nr, vectors, a, layer.d + j * turned.stride, turned.stride,
                    turned.sums + (rows * layer.n_out + j) * LANES, layer.n_out * LANES)
            j += nr
        a += mr * turned.stride
        rows += mr
        if rows > most_rows or t == tiles.number - 1:
            weave(rows * layer.n_out, turned.sums, more, gradient)
            gradient += rows * layer.n_out
            rows = 0


cdef void spread(const Turned *turned, Py_ssize_t l,
                 real *gradient  # OUT (rows, vectors) in panels
                 ) noexcept nogil:
    """One layer of the woven gradient into rows of whole vectors, zeros past n_out."""
    cdef const TurnedLayer *layer = &turned.layers[l]
    cdef const real *flat = turned.gradient + layer.offset
    cdef Py_ssize_t i, j, width = vectors_of(layer.n_out) * LANES
    for i in range(layer.n_in + 1):
        for j from 0 <= j < width by LANES:
            store(gradient + j, within(load(flat + j), layer.n_out, j, 0))
        flat += layer.n_out
        gradient += width
