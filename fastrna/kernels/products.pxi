# The matrix products of a layer: forward A W + b, weight gradient A^T dZ, input gradient dZ W^T.
#
# Design: one tile of C, `mr` rows x `nv` vectors, is held in registers while the depth k runs over
# broadcasts of A and vectors of B. Forward and weight gradient differ only in the two strides of A;
# the input gradient becomes the same product over a transposed copy of W. `tile` is inlined with
# its two sizes constant, once for each remainder, so every row and column count runs at full width.
# Each element of C is one chain of multiply-adds in the order of k, whatever tile it falls in:
# results do not depend on how rows are shared among threads, nor on which rows stand beside one
# another.
# B is packed in panels of columns, as packing.pxi tells.
# Rejected: BLAS (5-25 % slower at these sizes, a dependency), panels of one vector beside wider
# ones (7 to 10 rows of it reach 83 % of the peak with AVX2, 4 rows of three vectors 97 %), fetching
# rows of B ahead (2 % for the widest nets, -5 % for small ones), shallower blocks of the depth,
# structs for the two matrices in place of `product`'s many arguments (steps of 4-10-3 and 2-4-1
# 0.92 to 0.97: they pass through memory).

cdef enum:
    DEPTH_BLOCK = 1024     # depth of a panel that stays in L2 with the rows of A beside it
    FAR_BYTES = 1 << 19    # of a matrix that finds itself thrown out of L2 from use to use
    ROW_VECTORS = 8        # sums of one row at a time: as many as multiply-adds are under way
    TALL = 8               # rows of a tile of few vectors


cdef inline Py_ssize_t blocks_of(Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    """How many blocks of `size` things, at most, hold them all."""
    return (count + size - 1) // size


cdef enum Fetch:
    NOTHING, TO_READ, TO_WRITE
    TO_WRITE_AND_READ  # A as well, for the tiles that follow


cdef enum Start:  # of the sums of a product: 0, the last row of B, or what is in C
    FROM_ZERO, FROM_BIAS, FROM_C


cdef struct Region:
    # Memory that is wanted after a product, which has it fetched to L2 on the way: pieces of as
    # many bytes each; or 0 bytes.
    const char *at             # the first piece
    Py_ssize_t bytes
    const char **others        # where the pieces after it are,
    Py_ssize_t more            # and how many


cdef struct Ahead:
    # Memory that is wanted soon, asked for while tiles are computed, a little at each step of the
    # depth: a burst would fill the few places for lines under way and hold up the loads.
    const char *one            # two streams, `step` bytes a step of the depth
    const char *other
    Py_ssize_t step
    Py_ssize_t left            # steps, of what is read, to the end of this piece,
    Region rest                # and the pieces after it
    bint far                   # whether A^T, whose rows lie across, is larger than L1 by far


cdef inline Region nowhere() noexcept nogil:
    cdef Region region
    region.at, region.bytes, region.others, region.more = NULL, 0, NULL, 0
    return region


cdef inline Ahead nothing_ahead() noexcept nogil:
    cdef Ahead ahead
    ahead.one, ahead.other, ahead.step, ahead.left, ahead.far = NULL, NULL, 0, 0, False
    ahead.rest = nowhere()
    return ahead


cdef inline Ahead read_ahead(Region region, Py_ssize_t steps) noexcept nogil:
    """All of a region in so many steps of the depth."""
    cdef Ahead ahead = nothing_ahead()
    if region.bytes > 0 and steps > 0:
        ahead.one, ahead.rest = region.at, region
        ahead.step = (region.more + 1) * region.bytes // steps + 1
        ahead.left = blocks_of(region.bytes, ahead.step)
    return ahead


cdef inline void next_piece(Ahead *ahead) noexcept nogil:
    """Past the end of one piece; past that of the last there is nothing, which does no harm."""
    ahead.left = blocks_of(ahead.rest.bytes, ahead.step)
    if ahead.rest.more > 0:
        ahead.one = ahead.rest.others[0]
        ahead.rest.others += 1
        ahead.rest.more -= 1


cdef void move_on(Ahead *ahead, Py_ssize_t steps) noexcept nogil:
    """What is asked for after so many steps of the depth."""
    if ahead.step == 0:
        return
    while steps >= ahead.left:
        steps -= ahead.left
        ahead.one += ahead.left * ahead.step
        next_piece(ahead)
    ahead.one += steps * ahead.step
    ahead.left -= steps


cdef inline void tiles(const int mr, const int nv, const int fetch, const bint spread, Ahead ahead,
                       Py_ssize_t count, Py_ssize_t depth,
                       const real *a,        # IN  (count, mr, depth), with these strides
                       Py_ssize_t a_tile, Py_ssize_t a_row, Py_ssize_t a_depth,
                       const real *b,        # IN  (depth, nv vectors), rows b_depth apart
                       Py_ssize_t b_depth,
                       const real *start,    # IN  (count mr, nv vectors) what the sums start from,
                       Py_ssize_t start_row,  # or (count mr,) a number a row, where it is spread
                       bint more,            # whether c is added to
                       real *c,              # OUT (count mr, nv vectors), rows c_row apart; IN too,
                       Py_ssize_t c_row      # where it is added to, or the start itself
                       ) noexcept nogil:
    """C = start + A B, or C + (start + A B), for a column of `count` tiles of C.

    The column is in here, and not around it, because GCC keeps an array in registers only where
    all loops over it lie in another loop: without it each sum went through the stack twice. Rows of
    A are reached from a few pointers by one stride, as GCC else keeps a multiple of the stride for
    each row, more than there are registers.
    """
    cdef vec sums[TALL][WIDEST]
    cdef vec row[WIDEST]
    cdef vec x
    cdef int i, j
    cdef Py_ssize_t t, k
    cdef const real *a_k
    cdef const real *a_high
    cdef const real *a_top
    cdef const real *b_k
    for t in range(count):
        for i in range(mr):
            for j in range(nv):
                sums[i][j] = (splat(start[i * start_row]) if spread
                              else load(start + i * start_row + j * LANES))
        a_k = a
        a_high = a + 3 * a_row
        a_top = a + 6 * a_row
        b_k = b
        for k in range(depth):
            for j in range(nv):
                row[j] = load(b_k + j * LANES)
            if fetch == TO_READ:
                prefetch_far(ahead.one)
                ahead.one += ahead.step
                ahead.left -= 1
                if ahead.left == 0:
                    next_piece(&ahead)
            elif fetch:
                prefetch_to_write(ahead.one)
                prefetch_to_write(ahead.other)
                ahead.one += ahead.step
                ahead.other += ahead.step
            if fetch == TO_WRITE_AND_READ:
                prefetch(a_k + CACHE_LINE // sizeof(real))
            for i in range(mr):
                x = splat(a_k[i * a_row] if i < 3 else a_high[(i - 3) * a_row] if i < 6
                          else a_top[(i - 6) * a_row])
                for j in range(nv):
                    sums[i][j] = sums[i][j] + x * row[j]
            a_k += a_depth
            a_high += a_depth
            a_top += a_depth
            b_k += b_depth
        if more:
            for i in range(mr):
                for j in range(nv):
                    sums[i][j] = sums[i][j] + load(c + i * c_row + j * LANES)
        for i in range(mr):
            for j in range(nv):
                store(c + i * c_row + j * LANES, sums[i][j])
        a += a_tile
        start += mr * start_row
        c += mr * c_row


cdef inline void tiles_of_vectors(int mr, const int nv, const int fetch, const bint spread,
                                  Ahead ahead, Py_ssize_t count, Py_ssize_t depth, const real *a,
                                  Py_ssize_t a_tile, Py_ssize_t a_row, Py_ssize_t a_depth,
                                  const real *b, Py_ssize_t b_depth, const real *start,
                                  Py_ssize_t start_row, bint more, real *c,
                                  Py_ssize_t c_row) noexcept nogil:
    if nv <= FEW and mr == TALL:
        tiles(TALL, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif nv <= FEW and mr == 7:
        tiles(7, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif (nv <= FEW or nv <= NV and MR >= 6) and mr == 6:
        tiles(6, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif (nv <= FEW or nv <= NV and MR >= 5) and mr == 5:
        tiles(5, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif mr == 4:
        tiles(4, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif mr == 3:
        tiles(3, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    elif mr == 2:
        tiles(2, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)
    else:
        tiles(1, nv, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b, b_depth,
              start, start_row, more, c, c_row)


cdef inline void tiles_ahead(int mr, int nv, const int fetch, const bint spread, Ahead ahead,
                             Py_ssize_t count, Py_ssize_t depth, const real *a, Py_ssize_t a_tile,
                             Py_ssize_t a_row, Py_ssize_t a_depth, const real *b,
                             Py_ssize_t b_depth, const real *start, Py_ssize_t start_row,
                             bint more, real *c, Py_ssize_t c_row) noexcept nogil:
    """`tiles` with their sizes known at run time; panels of NV vectors alone fetch ahead."""
    if nv == NV and ahead.step > 0 and fetch == TO_WRITE and ahead.far:
        tiles_of_vectors(mr, NV, TO_WRITE_AND_READ, spread, ahead, count, depth, a, a_tile, a_row,
                         a_depth, b, b_depth, start, start_row, more, c, c_row)
    elif nv == NV and ahead.step > 0:
        tiles_of_vectors(mr, NV, fetch, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b,
                         b_depth, start, start_row, more, c, c_row)
    elif WIDEST >= 4 and nv == 4:
        tiles_of_vectors(mr, 4, NOTHING, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b,
                         b_depth, start, start_row, more, c, c_row)
    elif WIDEST >= 3 and nv == 3:
        tiles_of_vectors(mr, 3, NOTHING, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b,
                         b_depth, start, start_row, more, c, c_row)
    elif nv == 2:
        tiles_of_vectors(mr, 2, NOTHING, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b,
                         b_depth, start, start_row, more, c, c_row)
    else:
        tiles_of_vectors(mr, 1, NOTHING, spread, ahead, count, depth, a, a_tile, a_row, a_depth, b,
                         b_depth, start, start_row, more, c, c_row)


cdef void tiles_of(int mr, int nv, Ahead ahead, Py_ssize_t count, Py_ssize_t depth,
                   const real *a,         # IN  (count mr, depth), rows a_row apart
                   Py_ssize_t a_row, const real *b, Py_ssize_t b_depth, const real *start,
                   Py_ssize_t start_row, bint more, real *c, Py_ssize_t c_row) noexcept nogil:
    """C = start + A B, or C + (start + A B)."""
    tiles_ahead(mr, nv, TO_READ, False, ahead, count, depth, a, mr * a_row, a_row, 1, b, b_depth,
                start, start_row, more, c, c_row)


cdef void tiles_of_units(int mr, int nv, Py_ssize_t count, Py_ssize_t depth,
                         const real *w,         # IN  (depth, count mr), rows w_row apart
                         Py_ssize_t w_row, const real *b, Py_ssize_t b_depth,
                         const real *bias,      # IN  (count mr,) numbers `bias_step` apart
                         Py_ssize_t bias_step, real *c, Py_ssize_t c_row) noexcept nogil:
    """C = bias + W^T B."""
    tiles_ahead(mr, nv, NOTHING, True, nothing_ahead(), count, depth, w, mr, 1, w_row, b, b_depth,
                bias, bias_step, False, c, c_row)


cdef void tiles_across(int mr, int nv, Ahead ahead, Py_ssize_t count, Py_ssize_t depth,
                       const real *a,         # IN  (count, depth, mr), strides a_tile and a_depth
                       Py_ssize_t a_tile, Py_ssize_t a_depth, const real *b, Py_ssize_t b_depth,
                       const real *start, Py_ssize_t start_row, real *c,
                       Py_ssize_t c_row) noexcept nogil:
    """C = start + A^T B: what is a row of A for others lies across, and memory to be written is
    fetched. A function of its own, as in a larger one GCC runs out of registers."""
    tiles_ahead(mr, nv, TO_WRITE, False, ahead, count, depth, a, a_tile, 1, a_depth, b, b_depth,
                start, start_row, False, c, c_row)


cdef inline Py_ssize_t part_of(Py_ssize_t count, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
    """Where a thread's part of `count` things begins."""
    return count * rank // team


cdef struct Parts:
    # Things shared out evenly: the first `larger` parts hold size + 1, the others size.
    Py_ssize_t number, size, larger


cdef inline Py_ssize_t size_of(Parts parts, Py_ssize_t i) noexcept nogil:
    """How many things part i holds."""
    return parts.size + (i < parts.larger)


cdef inline Parts shared_out(Py_ssize_t count, Py_ssize_t number) noexcept nogil:
    cdef Parts p
    p.number = number
    p.size = count // number if number > 0 else 0
    p.larger = count - p.size * number
    return p


cdef inline Parts parts_of(Py_ssize_t count, Py_ssize_t most) noexcept nogil:
    """The fewest parts of at most so many."""
    return shared_out(count, blocks_of(count, most))


cdef inline Py_ssize_t vectors_of(Py_ssize_t width) noexcept nogil:
    return blocks_of(width, LANES)


cdef inline Parts panels_in(Py_ssize_t vectors) noexcept nogil:
    """The panels of so many vectors of columns: of NV, or of one more rather than one alone."""
    cdef Py_ssize_t number = (vectors + 2 * NV - 1 - WIDEST) // NV
    return shared_out(vectors, max(number, 1) if vectors > 0 else 0)


cdef inline Py_ssize_t tile_rows(Py_ssize_t nv) noexcept nogil:
    """Rows of a tile of so many vectors, at most."""
    return TALL if nv <= FEW else MR if nv <= NV else MR * NV // nv


cdef inline Py_ssize_t panels_of(Py_ssize_t vectors) noexcept nogil:
    return panels_in(vectors).number


cdef inline Py_ssize_t vector_of_panel(Py_ssize_t vectors, Py_ssize_t panel) noexcept nogil:
    """The first column vector of a panel."""
    cdef Parts panels = panels_in(vectors)
    return panel * panels.size + min(panel, panels.larger)


cdef extern from *:
    """
    static const number ZEROS[WIDEST * LANES] = {0};
    static const number UNIT[1] = {1};
    """
    const real ZEROS[64]
    const real UNIT[1]


cdef Region rows_of_panel(const real *b, Py_ssize_t vectors, Py_ssize_t b_rows, Py_ssize_t panel,
                          Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Some rows of a panel of a packed matrix, if that does not stay in L2 anyway."""
    cdef Region region = nowhere()
    cdef Py_ssize_t v = vector_of_panel(vectors, panel)
    cdef Py_ssize_t nv = vector_of_panel(vectors, panel + 1) - v
    if b_rows * vectors * VECTOR_BYTES > FAR_BYTES:
        region.at = <const char *>(b + (v * b_rows + first * nv) * LANES)
        region.bytes = rows * nv * VECTOR_BYTES
    return region


cdef inline void row_tile(const int nv, Py_ssize_t depth,
                          const real *a,      # IN  (depth,)
                          const real *b,      # IN  (depth, nv vectors), b_depth apart
                          Py_ssize_t b_depth,
                          const real *start,  # IN  (nv vectors,)
                          real *c             # OUT (nv vectors,)
                          ) noexcept nogil:
    cdef vec sums[ROW_VECTORS]
    cdef vec x
    cdef Py_ssize_t k, once
    cdef int j
    for once in range(1):  # a loop around the others keeps `sums` in registers: see `tiles`
        for j in range(nv):
            sums[j] = load(start + j * LANES)
        for k in range(depth):
            x = splat(a[k])
            for j in range(nv):
                sums[j] = sums[j] + x * load(b + j * LANES)
            b += b_depth
        for j in range(nv):
            store(c + j * LANES, sums[j])


cdef void row_product(Py_ssize_t vectors, Py_ssize_t depth,
                      const real *a,     # IN  (depth,)
                      const real *b,     # IN  (depth + 1, vectors), rows b_row apart: W and bias
                      Py_ssize_t b_row,
                      real *c            # OUT (vectors,)
                      ) noexcept nogil:
    """c = a W + bias for one row and weights as they stand. Wider than `tiles`, whose few sums of a
    row alone would wait for one another; to the same bits."""
    cdef Parts columns = parts_of(vectors, ROW_VECTORS)
    cdef Py_ssize_t p, nv
    cdef const real *bias = b + depth * b_row
    for p in range(columns.number):
        nv = size_of(columns, p)
        if nv == 8:
            row_tile(8, depth, a, b, b_row, bias, c)
        elif nv == 7:
            row_tile(7, depth, a, b, b_row, bias, c)
        elif nv == 6:
            row_tile(6, depth, a, b, b_row, bias, c)
        elif nv == 5:
            row_tile(5, depth, a, b, b_row, bias, c)
        elif nv == 4:
            row_tile(4, depth, a, b, b_row, bias, c)
        elif nv == 3:
            row_tile(3, depth, a, b, b_row, bias, c)
        elif nv == 2:
            row_tile(2, depth, a, b, b_row, bias, c)
        else:
            row_tile(1, depth, a, b, b_row, bias, c)
        b += nv * LANES
        bias += nv * LANES
        c += nv * LANES


cdef void product(Py_ssize_t rows, Py_ssize_t vectors,
                  Py_ssize_t first_panel, Py_ssize_t last_panel,  # columns, in panels
                  Py_ssize_t depth,
                  const real *a,         # IN  (rows, depth), a_row apart
                  Py_ssize_t a_row,
                  const real *b,         # IN  (b_rows, vectors): packed panels where b_row is 0,
                  Py_ssize_t b_row,      # else rows b_row apart, and all of its columns
                  Py_ssize_t b_rows,
                  Py_ssize_t b_first,    # the row of b that meets column 0 of a
                  Start start_from,
                  bint more,             # whether c is added to
                  real *c,               # OUT, IN if more or FROM_C (rows, vectors), those panels
                  Py_ssize_t c_row,
                  Region wanted          # what is fetched with the last panel
                  ) noexcept nogil:
    """C = A B, or that from a bias or from C on, or C + that.

    A matrix that does not stay in L2 is fetched there a panel ahead. One that is not packed has
    panels of the most vectors there are tiles for.
    """
    cdef Parts panels = panels_in(vectors) if b_row == 0 else parts_of(vectors, WIDEST), tiles
    cdef Py_ssize_t k = 0, deep, p, nv, v, t, mr, i, count, b_depth, start_row
    cdef const real *panel
    cdef const real *start
    cdef Ahead ahead
    cdef Region region
    if b_row != 0:  # negative where rows of X lie in reverse
        first_panel, last_panel = 0, panels.number
    while k < depth or k == 0:
        deep = min(depth - k, DEPTH_BLOCK)
        v = vector_of_panel(vectors, first_panel)
        for p in range(first_panel, last_panel):
            nv = size_of(panels, p)
            if p == first_panel or p == panels.larger:
                tiles = parts_of(rows, tile_rows(nv))
            b_depth = nv * LANES if b_row == 0 else b_row
            panel = b + v * LANES * (b_rows if b_row == 0 else 1)
            if p + 1 == last_panel:
                region = wanted
            elif b_row == 0:
                region = rows_of_panel(b, vectors, b_rows, p + 1, b_first + k, deep)
            else:
                region = nowhere()
            ahead = read_ahead(region, tiles.number * deep)
            i = 0
            for t in range(2):  # first the tiles of a row more
                mr = tiles.size + 1 - t
                count = tiles.larger if t == 0 else tiles.number - tiles.larger
                if count == 0:
                    continue
                if k > 0 or start_from == FROM_C:
                    start = c + i * c_row + v * LANES
                    start_row = c_row
                else:
                    start = panel + (b_rows - 1) * b_depth if start_from == FROM_BIAS else &ZEROS[0]
                    start_row = 0
                tiles_of(<int>mr, <int>nv, ahead, count, deep, a + i * a_row + k, a_row,
                         panel + (b_first + k) * b_depth, b_depth, start, start_row,
                         more and k == 0, c + i * c_row + v * LANES, c_row)
                move_on(&ahead, count * deep)
                i += count * mr
            v += nv
        k += DEPTH_BLOCK


cdef void product_of_units(Py_ssize_t units, Py_ssize_t vectors, Py_ssize_t depth,
                           const real *w,       # IN  (depth, units), rows w_row apart
                           Py_ssize_t w_row,
                           const real *bias,    # IN  (units,) what sums start from, `bias_step`
                           Py_ssize_t bias_step,  # apart
                           const real *b,       # IN  (depth, vectors), rows b_row apart
                           Py_ssize_t b_row,
                           real *c,             # OUT (units, vectors), rows c_row apart
                           Py_ssize_t c_row) noexcept nogil:
    """C = bias + W^T B: a unit a row of C, in one chain of the depth."""
    cdef Parts panels = parts_of(vectors, WIDEST), tiles
    cdef Py_ssize_t k = 0, deep, p, nv, v, t, mr, count, i
    cdef real *sums
    while k < depth or k == 0:
        deep = min(depth - k, DEPTH_BLOCK)
        v = 0
        for p in range(panels.number):
            nv = size_of(panels, p)
            tiles = parts_of(units, tile_rows(nv))
            i = 0
            for t in range(2):  # first the tiles of a unit more
                mr = tiles.size + 1 - t
                count = tiles.larger if t == 0 else tiles.number - tiles.larger
                sums = c + i * c_row + v * LANES
                if count > 0 and k == 0:
                    tiles_of_units(<int>mr, <int>nv, count, deep, w + i, w_row, b + v * LANES,
                                   b_row, bias + i * bias_step, bias_step, sums, c_row)
                elif count > 0:
                    tiles_across(<int>mr, <int>nv, nothing_ahead(), count, deep, w + k * w_row + i,
                                 mr, w_row, b + k * b_row + v * LANES, b_row, sums, c_row, sums,
                                 c_row)
                i += count * mr
            v += nv
        k += DEPTH_BLOCK
