# How matrices lie for the products: weights in panels, slivers of A, and W^T.
#
# Design: matrices of weights are kept packed: in panels of about NV vectors of columns, each panel
# contiguous over the rows, padded with zeros to whole vectors. A panel streams through L1 and stays
# in L2 while the rows of A pass by (unpacked, a stride of a power of two thrashes L1). As the
# engine keeps its own copy of the weights during an epoch, packing costs nothing a step.
# For the weight gradient of a deep batch and a wide layer both operands are packed first (see
# `pack_sliver`): their columns lie a row of the batch apart, each on a page of its own.
# Rejected: packing A of the forward product (its rows already stream).

cdef void pack(Py_ssize_t first, Py_ssize_t last, Py_ssize_t width,
               Py_ssize_t first_panel, Py_ssize_t last_panel,
               const real *flat,      # IN  (last, width), rows flat_row apart
               Py_ssize_t flat_row,
               real *packed,          # OUT (packed_rows, vectors of width) in panels: rows first
               Py_ssize_t packed_rows  # to last, zeros past the width; panels likewise
               ) noexcept nogil:
    cdef Py_ssize_t p, nv, v, i, j, columns
    cdef Parts panels = panels_in(vectors_of(width))
    cdef const real *source
    cdef real *row
    v = vector_of_panel(vectors_of(width), first_panel)
    for p in range(first_panel, last_panel):
        nv = size_of(panels, p)
        row = packed + v * LANES * packed_rows + first * nv * LANES
        for i in range(first, last):
            source = flat + i * flat_row
            for j in range(v, v + nv):
                columns = width - j * LANES
                store(row, load(source + j * LANES) if columns >= LANES
                      else load_first(source + j * LANES, columns))
                row += LANES
        v += nv


cdef void unpack(Py_ssize_t rows, Py_ssize_t width,
                 const real *packed,  # IN  (rows, vectors of width) in panels
                 real *flat           # OUT (rows, width) contiguous
                 ) noexcept nogil:
    cdef Py_ssize_t vectors = vectors_of(width), p, nv, v = 0, i, columns
    cdef Parts panels = panels_in(vectors)
    for p in range(panels.number):
        nv = size_of(panels, p)
        columns = min(nv * LANES, width - v * LANES)
        for i in range(rows):
            memcpy(flat + i * width + v * LANES, packed, columns * sizeof(real))
            packed += nv * LANES
        v += nv


cdef inline void pack_sliver(int mr, Py_ssize_t depth,
                             const real *a,     # IN  (depth, mr), rows a_depth apart
                             Py_ssize_t a_depth,
                             real *sliver       # OUT (depth, mr) contiguous
                             ) noexcept nogil:
    """The columns of A that one tile of A^T dZ reads, side by side."""
    cdef Py_ssize_t k
    cdef int i
    if mr == MR:
        for k in range(depth):
            memcpy(sliver, a, MR * sizeof(real))
            sliver += MR
            a += a_depth
    else:
        for k in range(depth):
            for i in range(mr):
                sliver[i] = a[i]
            sliver += mr
            a += a_depth


cdef struct Panels:
    # Where column vector v of a packed matrix begins, and how far apart its rows are.
    Py_ssize_t offset, row


cdef inline Panels panel_at(Py_ssize_t vectors, Py_ssize_t rows, Py_ssize_t v) noexcept nogil:
    cdef Parts panels = panels_in(vectors)
    cdef Py_ssize_t first, wide = panels.larger * (panels.size + 1), nv
    cdef Panels found
    if v < wide:
        nv = panels.size + 1
        first = v // nv * nv
    else:
        nv = panels.size
        first = wide + (v - wide) // nv * nv
    found.offset = first * LANES * rows + (v - first) * LANES
    found.row = nv * LANES
    return found


cdef inline void weave_and_store(const bint past_caches,
                                 vec *blocks,       # IN  (BLOCK_LANES,) vectors of `load_blocks`
                                 Py_ssize_t columns,
                                 real *target,      # OUT (columns, LANES), rows target_row apart
                                 Py_ssize_t target_row) noexcept nogil:
    """The columns of LANES rows, BLOCK_LANES of them at most; vector i has rows i,
    i + BLOCK_LANES, ..., a block of each."""
    cdef int i
    weave_blocks(blocks)
    if columns >= BLOCK_LANES:
        for i in range(BLOCK_LANES):
            if past_caches:
                store_past_caches(target + i * target_row, blocks[i])
            else:
                store(target + i * target_row, blocks[i])
    else:
        for i in range(BLOCK_LANES - 1):  # a constant, which keeps them in registers
            if i < columns:
                store(target + i * target_row, blocks[i])


cdef inline void transpose_block(const bint past_caches,
                                 const real *source,   # IN  (LANES, columns), source_row apart
                                 Py_ssize_t source_row, Py_ssize_t columns,
                                 real *target,         # OUT (columns, LANES), target_row apart
                                 Py_ssize_t target_row) noexcept nogil:
    """The columns of LANES rows, by 16 bytes of them. These come to their lanes by loads; the
    rounds of weaving within them are left, half of all with AVX-512."""
    cdef vec blocks[BLOCK_LANES]
    cdef Py_ssize_t j, apart = BLOCK_LANES * source_row
    cdef int i
    cdef const real *first
    for j from 0 <= j < columns by BLOCK_LANES:
        for i in range(BLOCK_LANES):
            first = source + i * source_row + j
            blocks[i] = load_blocks(first, first + apart, first + 2 * apart, first + 3 * apart)
        weave_and_store(past_caches, blocks, columns - j, target + j * target_row, target_row)


cdef void transpose_rows(Py_ssize_t first, Py_ssize_t last, Py_ssize_t first_vector,
                         Py_ssize_t last_vector, Py_ssize_t n_in, Py_ssize_t n_out,
                         Py_ssize_t packed_rows,
                         const real *packed,   # IN  (packed_rows, n_out) in panels
                         real *transposed,     # OUT (n_out, n_in) in panels: columns first to last
                         bint past_caches      # how whole squares are stored
                         ) noexcept nogil:
    """W^T for rows first <= i < last of W and some vectors of its columns: whole squares by
    vectors and edges by numbers.

    Threads that own neighbouring rows write neighbouring lanes, hence numbers at the edges.
    """
    cdef Py_ssize_t in_vectors = vectors_of(n_in), out_vectors = vectors_of(n_out)
    cdef Py_ssize_t u, v, i0, i1, i, o, columns
    cdef Panels source, target
    for u in range(first // LANES, vectors_of(last)):
        i0 = max(first, u * LANES)
        i1 = min(last, (u + 1) * LANES)
        target = panel_at(in_vectors, n_out, u)
        for v in range(first_vector, last_vector):
            source = panel_at(out_vectors, packed_rows, v)
            columns = min(LANES, n_out - v * LANES)
            if i1 - i0 == LANES and past_caches:
                transpose_block(True, packed + source.offset + i0 * source.row, source.row, columns,
                                transposed + target.offset + v * LANES * target.row, target.row)
            elif i1 - i0 == LANES:
                transpose_block(False, packed + source.offset + i0 * source.row, source.row,
                                columns, transposed + target.offset + v * LANES * target.row,
                                target.row)
            else:
                for i in range(i0, i1):
                    for o in range(columns):
                        transposed[target.offset + (v * LANES + o) * target.row + i - u * LANES] = (
                            packed[source.offset + i * source.row + o])
    if past_caches:
        settle()
