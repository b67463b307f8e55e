# Products that are dot products: with a few units, whose tiles would use a few lanes of a vector,
# and of a few rows of dZ, which would not repay transposing W.
#
# Design: a vector's worth of dot products at a time, their sums in registers and in the end woven
# together across lanes. One loop serves rows of A with a column of W and rows of W with one of dZ.

cdef inline vec dot(Py_ssize_t nv, const real *a, const real *b, vec so_far) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(nv):
        so_far = so_far + load(a + j * LANES) * load(b + j * LANES)
    return so_far


cdef inline void dots_of_square(const int nv, bint begins, bint ends,
                                const real *d,     # IN  (nv vectors,)
                                const real *rows,  # IN  (LANES, nv vectors), `row` apart
                                Py_ssize_t row,
                                vec *so_far,       # (LANES,) IN unless it begins, OUT unless ends
                                real *c            # OUT (LANES,), where it ends
                                ) noexcept nogil:
    """nv vectors of d times LANES rows; with the last ones sums across lanes go to c."""
    cdef vec dots[LANES]
    cdef vec y[WIDEST]
    cdef int r, j, once
    for once in range(1):  # a loop around the others keeps `dots` in registers: see `tiles`
        for r in range(LANES):
            dots[r] = splat(0) if begins else so_far[r]
        for j in range(nv):
            y[j] = load(d + j * LANES)
        for r in range(LANES):
            for j in range(nv):
                dots[r] = dots[r] + y[j] * load(rows + j * LANES)
            rows += row
        if ends:
            store(c, sums_of(dots))
        else:
            for r in range(LANES):
                so_far[r] = dots[r]


cdef inline void dots_of_panel(const bint packed, Py_ssize_t nv, bint begins, bint ends,
                               const real *d, const real *rows,
                               Py_ssize_t row,     # unless the rows are packed
                               vec *so_far, real *c) noexcept nogil:
    """`dots_of_square` with its size known at run time."""
    if WIDEST >= 4 and nv == 4:
        dots_of_square(4, begins, ends, d, rows, 4 * LANES if packed else row, so_far, c)
    elif WIDEST >= 3 and nv == 3:
        dots_of_square(3, begins, ends, d, rows, 3 * LANES if packed else row, so_far, c)
    elif nv == 2:
        dots_of_square(2, begins, ends, d, rows, 2 * LANES if packed else row, so_far, c)
    else:
        dots_of_square(1, begins, ends, d, rows, LANES if packed else row, so_far, c)


cdef void dot_columns(Py_ssize_t rows, Py_ssize_t n_out, Py_ssize_t vectors,
                      Py_ssize_t first_panel, Py_ssize_t last_panel,  # of the vectors of n_in
                      const real *a,        # IN  (rows, vectors), rows a_row apart
                      Py_ssize_t a_row,
                      const real *across,   # IN  (n_out, vectors) W^T in panels, 0 past n_in
                      const real *bias,     # IN  (n_out,), or NULL for none
                      bint more,            # whether c is added to
                      real *c,              # OUT, IN if more (rows, one vector), c_row apart
                      Py_ssize_t c_row) noexcept nogil:
    """A W + b over some inputs for a layer of a few units, whose tiles would use a few lanes of a
    vector: dot products, a vector's worth of rows at a time."""
    cdef Parts panels = panels_in(vectors)
    cdef Py_ssize_t s = 0, n, o, p, nv, v, r
    cdef vec dots[LANES]
    cdef real sums[LANES]
    cdef const real *w
    while s < rows:
        n = LANES if rows - s >= LANES else 1
        if not more:
            for r in range(n):
                store(c + r * c_row, splat(0))
        for o in range(n_out):
            dots[0] = splat(0)
            store(sums, dots[0])
            v = vector_of_panel(vectors, first_panel)
            for p in range(first_panel, last_panel):
                nv = size_of(panels, p)
                w = across + (v * n_out + o * nv) * LANES
                if n == LANES:
                    dots_of_panel(False, nv, p == first_panel, p + 1 == last_panel, w,
                                  a + v * LANES, a_row, dots, sums)
                else:
                    dots[0] = dot(nv, a + v * LANES, w, dots[0])
                v += nv
            if n == 1:
                sums[0] = sum_of(dots[0])
            for r in range(n):
                c[r * c_row + o] += sums[r] + (bias[o] if bias != NULL else 0)
        s += n
        a += n * a_row
        c += n * c_row


cdef inline real dot_of_row(Parts panels, Py_ssize_t packed_rows,
                            const real *d,       # IN  (vectors,)
                            const real *packed,  # IN  (packed_rows, vectors) in panels
                            Py_ssize_t i
                            ) noexcept nogil:
    """One of the dot products of `dot_rows`, to the same bits."""
    cdef Py_ssize_t p, nv, v = 0
    cdef vec total = splat(0)
    for p in range(panels.number):
        nv = size_of(panels, p)
        total = dot(nv, d + v * LANES, packed + (v * packed_rows + i * nv) * LANES, total)
        v += nv
    return sum_of(total)


cdef void dot_rows(Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last, Py_ssize_t vectors,
                   Py_ssize_t packed_rows,
                   const real *d,        # IN  (rows, vectors) dZ, rows d_row apart, 0 past n_out
                   Py_ssize_t d_row,
                   const real *packed,   # IN  (packed_rows, vectors) W in panels
                   real *c,              # OUT (rows, n_in) dZ W^T, columns first to last
                   Py_ssize_t c_row) noexcept nogil:
    """dZ W^T for a batch of a few rows, which would not repay transposing W: dot products, LANES of
    them at a time; the last ones again where they are no whole vector."""
    cdef Parts panels = panels_in(vectors)
    cdef Py_ssize_t s, i, at, p, nv, v
    cdef const real *w
    cdef vec dots[LANES]
    cdef bint few = last - first < LANES
    for s in range(rows):
        for i from first <= i < (last if few else first):
            c[i] = dot_of_row(panels, packed_rows, d, packed, i)
        for i from first <= i < (first if few else last) by LANES:
            at = min(i, last - LANES)
            v = 0
            for p in range(panels.number):
                nv = size_of(panels, p)
                w = packed + (v * packed_rows + at * nv) * LANES
                dots_of_panel(True, nv, p == 0, p + 1 == panels.number, d + v * LANES, w, 0, dots,
                              c + at)
                v += nv
        d += d_row
        c += c_row
