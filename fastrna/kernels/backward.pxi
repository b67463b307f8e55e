# Backward, on one thread of a team: slopes, weight gradients and updates of its rows or of its
# columns of every layer.
#
# Design: dZ_{l-1} = (dZ_l W_l^T) g'(Z_{l-1}) is a product with W^T, which is kept beside W and
# renewed with it, row by row; of few examples it is dot products with W itself.
# dW_l = A_{l-1}^T dZ_l goes straight into the velocity and the weights, a few tiles at a time while
# they are in L1; it is stored only where a mini-batch comes in chunks or in slices. Its last row is
# the bias's.

cdef enum:
    # A^T dZ is worth packing both, where tasks are shared (tasks.pxi), from this many rows of the
    # batch on, for layers of more panels than this: 512 rows of 1024 by 1024 run a fifth faster,
    # 128 rows of 512 by 512 a twentieth.
    DEEP_ROWS = 64
    WIDE_PANELS = 3
    GROUP_TILES = 4    # tiles of dW that are updated in one go, while they are in L1
    # Of A^T whose lines are asked for before their tile, unless it is packed. With vectors as long
    # as a line a tile has twice as much to do for each (784-128-10 on a Zen 5: 1.015 without).
    FAR_NUMBERS = 1 << 16
    LONG_VECTORS = LANES * sizeof(real) >= CACHE_LINE


# -- input gradient --------------------------------------------------------------------------------

cdef void times_transposed(const Net *net, const Layer *layer, Share own, Py_ssize_t rows,
                           const real *d,  # IN  (rows, n_out) dZ, layer.stride apart
                           real *c,        # OUT (rows, own units of n_in)
                           Py_ssize_t c_row, Region wanted
                           ) noexcept nogil:
    """dZ W^T of one layer into the own columns of c (rows, n_in)."""
    if net.transposing:
        product(rows, vectors_of(layer.n_in), own.first_panel, own.last_panel, layer.n_out, d,
                layer.stride, layer.transposed, 0, layer.n_out, 0, FROM_ZERO, False, c, c_row,
                wanted)
    else:
        dot_rows(rows, own.first_unit, own.last_unit, layer.vectors, layer.rows, d, layer.stride,
                 layer.weights, c, c_row)


cdef void backward(const Net *net, const Desk *desk, Py_ssize_t l, Share own, Py_ssize_t lo,
                   Py_ssize_t hi, Py_ssize_t first_row, Region wanted) noexcept nogil:
    """dZ_{l-1} = (dZ_l W_l^T) g'(Z_{l-1}), own columns of rows lo to hi."""
    cdef const Layer *layer = &desk.layers[l]
    cdef const Layer *below = &desk.layers[l - 1]
    times_transposed(net, layer, own, hi - lo, layer.d + lo * layer.stride,
                     below.d + lo * below.stride, below.stride, wanted)
    slopes_below(net, desk, l, own, lo, hi, first_row)


cdef void slopes_below(const Net *net, const Desk *desk, Py_ssize_t l, Share own, Py_ssize_t lo,
                       Py_ssize_t hi, Py_ssize_t first_row) noexcept nogil:
    """dZ_{l-1} from dZ_l W_l^T, in its place: dropout and g', own columns of rows lo to hi."""
    cdef const Layer *below = &desk.layers[l - 1]
    cdef Py_ssize_t at = lo * below.stride + own.first_unit
    if below.h != below.a:
        drop_units(net, desk, l - 1, own, hi - lo, first_row + lo, below.d + at, below.d + at)
    differentiate(below.activation, below.parameter, hi - lo,
                  own.last_vector - own.first_vector, below.stride, below.z + at,
                  below.a + at, below.d + at)


# -- weight gradient and update --------------------------------------------------------------------

cdef void update_rows(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t at,
                      Py_ssize_t width,
                      const real *scales,  # IN  (hi - lo,), as for `update`
                      Py_ssize_t scale_step,
                      const real *slope,   # IN  (hi - lo, width), likewise
                      Py_ssize_t slope_row, const Update *u,
                      real *gradient,      # OUT (rows, vectors) in panels, where nothing is updated
                      real *penalty,       # OUT (LANES,)
                      bint more,
                      const real *ahead,   # IN  (n_in,) the next example, or NULL
                      real *z              # OUT (width,) its pre-activations
                      ) noexcept nogil:
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
                           Py_ssize_t first_panel, Py_ssize_t last_panel,
                           bint handing) noexcept nogil:
    """W^T of one layer after the update of rows lo to hi of some panels of W. Where others read it
    past the caches, if a vector is a line: parts of lines would be slower than either."""
    if layer.transposed != NULL and net.transposing and net.optimizer != NO_UPDATE:
        transpose_rows(lo, min(hi, layer.n_in), vector_of_panel(layer.vectors, first_panel),
                       vector_of_panel(layer.vectors, last_panel), layer.n_in, layer.n_out,
                       layer.rows, layer.weights, layer.transposed, handing and LONG_VECTORS)


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
                       Py_ssize_t last_panel,
                       const real *a,      # IN  (rows,) the example, with its one
                       const real *ahead,  # IN  (n_in,) the next one, or NULL
                       const Update *u,
                       real *penalties     # OUT (panels, LANES)
                       ) noexcept nogil:
    """One example: dW = a^T dz, never stored."""
    cdef Parts panels = panels_in(layer.vectors)
    cdef Py_ssize_t p, nv, v = vector_of_panel(layer.vectors, first_panel)
    for p in range(first_panel, last_panel):
        nv = size_of(panels, p)
        update_rows(layer, lo, hi, v * LANES * layer.rows, nv * LANES, a + lo, 1,
                    layer.d + v * LANES, 0, u, layer.gradient, penalties + p * LANES, False, ahead,
                    layer.z + v * LANES)
        v += nv


cdef void pack_slivers(const Layer *layer, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t count,
                       const real *a,  # IN  (count, rows) A, a_depth apart
                       Py_ssize_t a_depth, Py_ssize_t capacity,
                       real *draft     # (MR, capacity) where slivers are handed over, or NULL
                       ) noexcept nogil:
    """The columns lo to hi of A as the tiles of A^T dZ read them."""
    cdef Parts tiles = parts_of(hi - lo, MR)
    cdef Py_ssize_t t, mr, i = lo
    cdef real *sliver
    for t in range(tiles.number):
        mr = size_of(tiles, t)
        sliver = layer.slivers + i * capacity
        pack_sliver(<int>mr, count, a + i, a_depth, sliver if draft == NULL else draft)
        if draft != NULL:
            hand_over(vectors_of(mr * count), draft, sliver)
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
                          Py_ssize_t count,
                          Rows read,        # as for `gradient_tiles`
                          real *gradient,   # OUT, IN unless first: see below
                          bint first, bint last, const Update *u,
                          real *penalties   # OUT (LANES,)
                          ) noexcept nogil:
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
                     layer.d + row * layer.stride, 0, layer.stride,
                     read.at + row * read.stride + i, read.stride, &ZEROS[0], 0, <real *>across,
                     nv * LANES)
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


cdef inline const real *written_by(const Update *u, const Layer *layer, const real *gradient,
                                   bint second) noexcept nogil:
    """One of the arrays that an update writes, to be asked for; of two the second. Never one that
    there is not: a processor may search for its page each time."""
    if u.optimizer == NO_UPDATE:
        return gradient
    return layer.velocity if second and layer.velocity != NULL else layer.weights


cdef void gradient_tiles(const Net *net, const Layer *layer, Py_ssize_t lo, Py_ssize_t hi,
                         Py_ssize_t first_panel, Py_ssize_t last_panel, Py_ssize_t row,
                         Py_ssize_t count,
                         Rows read,        # IN  (row + count, rows) A_{l-1} with its ones
                         real *gradient,   # OUT (rows, vectors) in panels; IN unless first; left
                         bint first,       # alone where it is last as well
                         bint last,
                         const Update *u,  # of the weights, where it is last
                         real *penalties   # OUT (panels, LANES), likewise
                         ) noexcept nogil:
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
            slight_gradient(layer, lo, hi, row, count, read, gradient, first, last, u, penalties)
        return
    for p in range(first_panel, last_panel):
        nv = size_of(panels, p)
        width = nv * LANES
        slivered = packed and nv <= NV  # slivers are of MR rows
        if p == first_panel or p == panels.larger:
            tiles = parts_of(hi - lo, MR if slivered else tile_rows(nv))
        ahead.far = not (slivered or LONG_VECTORS) and count * read.stride > FAR_NUMBERS
        at = v * LANES * layer.rows
        d = layer.d + row * layer.stride + v * LANES
        if packed:
            d = layer.d_panels + v * LANES * net.capacity
            d_row = width
        i = lo
        t = 0
        while t < tiles.number:
            mr = size_of(tiles, t)
            n = min(GROUP_TILES, (tiles.larger if t < tiles.larger else tiles.number) - t)
            so_far = gradient + at + i * width
            columns = read.at + row * read.stride + i
            tile_step, depth_step = mr, read.stride
            if slivered:
                columns, depth_step = layer.slivers + i * net.capacity, mr
                tile_step = mr * net.capacity
            # The rows that are next, of this panel or of the next one: no line of another thread's.
            rows = min(n * mr, hi - i - n * mr)
            following = at + (i + n * mr) * width
            if rows == 0 and p + 1 < last_panel:
                rows = min(n * mr, hi - lo)
                following = ((v + nv) * LANES * layer.rows
                             + lo * size_of(panels, p + 1) * LANES)
            ahead.step = (rows if last else n * mr) * width * sizeof(real) // (n * count)
            if last:
                ahead.one = <const char *>(written_by(u, layer, gradient, False) + following)
                ahead.other = <const char *>(written_by(u, layer, gradient, True) + following)
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


cdef void sparse_gradient(const Layer *layer, Data data, Py_ssize_t count,
                          const long long *chunk,  # IN  (count,) rows of X
                          bint last, const Update *u,
                          real *penalties          # OUT (panels, LANES)
                          ) noexcept nogil:
    """dW_1 of CSR rows, own columns: each stored number adds x dz to its row of the gradient.

    The gradient is zero when a mini-batch begins; rows written are zeroed after the update.
    """
    cdef Parts panels = panels_in(layer.vectors)
    cdef Py_ssize_t p, nv, v = layer.own.first_vector, s, t, k, j, width
    cdef real *panel
    cdef const real *d
    for p in range(layer.own.first_panel, layer.own.last_panel):
        nv = size_of(panels, p)
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
                  const long long *chunk,  # IN  (count,) rows of X
                  bint first, bint last, const Update *u,
                  real *penalties          # OUT (parts, panels, LANES)
                  ) noexcept nogil:
    """dW_l = A_{l-1}^T dZ_l over the chunk's rows, own part, and after the last chunk the update:
    own columns of the first layer, own rows of the others."""
    cdef Layer *layer = &desk.layers[l]
    cdef const Layer *below
    cdef Py_ssize_t lo = 0, hi = layer.rows, q, first_panel = layer.own.first_panel
    cdef Py_ssize_t last_panel = layer.own.last_panel
    cdef Py_ssize_t first_part = 0, last_part = 1, panels = panels_of(layer.vectors)
    cdef Rows read = rows_read_by(net, desk, l)
    cdef const real *following = desk.following if l == 0 and desk.ahead else NULL
    cdef Share part
    if l == 0 and net.sparse:
        sparse_gradient(layer, data, count, chunk, last, u, penalties)
        return
    if l > 0:
        below = &desk.layers[l - 1]
        first_part, last_part = below.own.first_part, below.own.last_part
        first_panel, last_panel = 0, panels
    for q in range(first_part, last_part):
        if l > 0:
            part = share_of_parts(below, q, q + 1)
            lo, hi = part.first_unit, part.last_unit + part.last
        if count == 1 and last and first:
            outer_update(layer, lo, hi, first_panel, last_panel, read.at, following, u,
                         penalties + q * panels * LANES)
        else:
            gradient_tiles(net, layer, lo, hi, first_panel, last_panel, 0, count, read,
                           layer.gradient, first, last, u, penalties + q * panels * LANES)
        if last and l > 0:
            renew_transposed(net, layer, lo, hi, 0, panels, False)


cdef struct Slices:
    # Of a mini-batch, as one thread has them.
    Py_ssize_t number
    Py_ssize_t first, last     # its own
    Py_ssize_t following       # the first of the next thread's
    Py_ssize_t turn            # which of the shared gradients are of this mini-batch: 0 or 1
    bint apart                 # whether its own are added up in memory of its own,
    bint handed                # and then copied for the others


cdef inline Slices slices_at(const Net *net, Py_ssize_t number, Py_ssize_t rank, Py_ssize_t team,
                             Py_ssize_t turn) noexcept nogil:
    cdef Slices slices
    slices.number, slices.turn = number, turn
    slices.first = part_of(number, rank, team)
    slices.last = part_of(number, rank + 1, team)
    slices.following = part_of(number, (rank + 1) % team, team)
    slices.handed = team > 1 and net.past_caches
    slices.apart = team == 1 or net.past_caches
    return slices


cdef inline real *shared_gradient(const Net *net, const Layer *layer, const Slices *slices,
                                  Py_ssize_t q) noexcept nogil:
    """Where other threads find the gradient of slice q."""
    return layer.shared + (slices.turn * net.slices + q) * layer.size


cdef inline real *slice_gradient(const Net *net, const Layer *layer, const Slices *slices,
                                 Py_ssize_t q) noexcept nogil:
    """Where this thread adds up the gradient of slice q, or finds it."""
    if slices.apart and slices.first <= q < slices.last:
        return layer.gradient + (q - slices.first) * layer.size
    return shared_gradient(net, layer, slices, q)


cdef inline void finish_slice(const Net *net, const Layer *layer, const Slices *slices,
                              Py_ssize_t q) noexcept nogil:
    """The gradient of an own slice for the others, where they do not find it in its place."""
    if slices.handed:
        hand_over(layer.size // LANES, slice_gradient(net, layer, slices, q),
                  shared_gradient(net, layer, slices, q))


cdef void add_slight_slices(const Net *net, const Layer *layer, const Slices *slices,
                            const Update *u,
                            real *penalties  # OUT (LANES,)
                            ) noexcept nogil:
    """`add_slices` of a layer of a few units, with gradients as `slight_gradient` leaves them."""
    cdef vec sums[NV * LANES]
    cdef real across[SLIGHT_UNITS * NV * LANES]
    cdef Py_ssize_t i, n, r, q
    cdef const real *gradient
    for r in range(NV * LANES):
        sums[r] = splat(0)
    for i from 0 <= i < layer.rows by NV * LANES:
        n = min(NV * LANES, layer.rows - i)
        memcpy(across, slice_gradient(net, layer, slices, 0) + i * LANES,
               layer.n_out * n * sizeof(real))
        for q in range(1, slices.number):
            gradient = slice_gradient(net, layer, slices, q) + i * LANES
            for r in range(layer.n_out * n):
                across[r] += gradient[r]
        turn_over(n, layer.n_out, across, n, <real *>sums)
        update_rows(layer, i, i + n, 0, LANES, &UNIT[0], 0, <real *>sums, LANES, u,
                    layer.gradient, penalties, i > 0, NULL, NULL)


cdef void add_slices(const Net *net, const Desk *desk, const Layer *layer,
                     const Slices *slices, const Update *u,
                     real *penalties  # OUT (panels, LANES)
                     ) noexcept nogil:
    """The update of a replica by the sum of the slices' gradients, which becomes the layer's where
    nothing is updated."""
    cdef Parts panels = panels_in(layer.vectors), blocks
    cdef Py_ssize_t p, nv, v = 0, q, j, at, width, i, k, n
    cdef const real *parts[MOST_SLICES]
    cdef const real *total
    if layer.slight and not net.turned:
        add_slight_slices(net, layer, slices, u, penalties)
        return
    for p in range(panels.number):
        nv = size_of(panels, p)
        width = nv * LANES
        at = v * LANES * layer.rows
        blocks = parts_of(layer.rows, MOST_PARTS * JOIN_ROWS * NV * LANES // 2 // width)
        i = 0
        for k in range(blocks.number):
            n = size_of(blocks, k)
            # Other cores wrote most of it: ask for all its lines at once.
            for q in range(slices.number):
                parts[q] = slice_gradient(net, layer, slices, q) + at + i * width
                if slices.number > 1:
                    for j from 0 <= j < n * width by CACHE_LINE // <Py_ssize_t>sizeof(real):
                        prefetch(parts[q] + j)
            total = parts[0]
            for q in range(1, slices.number):
                for j from 0 <= j < n * width by LANES:
                    store(desk.scratch + j, load(total + j) + load(parts[q] + j))
                total = desk.scratch
            update_rows(layer, i, i + n, at, width, &UNIT[0], 0, total, width, u, layer.gradient,
                        penalties + p * LANES, i > 0, NULL, NULL)
            i += n
        v += nv
