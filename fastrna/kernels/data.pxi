# The examples as the engine reads them: where they lie, of what type, and how a row becomes
# numbers.
#
# Design: a mini-batch's rows are gathered, converted and scaled in one pass into the engine's input
# block, straight from the user's array: no copy of X is ever made, whatever its type or strides,
# and a memmap is read a mini-batch at a time. The ones column that follows the inputs makes the
# bias one more row of weights: its gradient falls out of A^T dZ.
# Rejected: products that read X through row pointers (no conversion, no scaling; copying takes 5 %
# of a step of 784-128-10 on two threads, and less of wider nets').

cdef enum Source:
    FLOAT32, FLOAT64, UINT8, INT8, UINT16, INT16, UINT32, INT32, UINT64, INT64

SOURCES = {
    "float32": FLOAT32, "float64": FLOAT64, "bool": UINT8, "uint8": UINT8, "int8": INT8,
    "uint16": UINT16, "int16": INT16, "uint32": UINT32, "int32": INT32, "uint64": UINT64,
    "int64": INT64,
}
SOURCE_OF_DTYPE = {np.dtype(name): code for name, code in SOURCES.items()}

ctypedef fused source:
    float
    double
    unsigned char
    signed char
    unsigned short
    short
    unsigned int
    int
    unsigned long long
    long long


cdef inline void convert_row(const source *x,      # IN  (width,), step apart
                             Py_ssize_t step, Py_ssize_t width,
                             const double *shift,  # IN  (width,)
                             const double *scale,  # IN  (width,), or NULL for no scaling
                             real *a               # OUT (width,)
                             ) noexcept nogil:
    """a_j = (x_j - shift_j) scale_j, or x_j where there is no scaling."""
    cdef Py_ssize_t j
    if scale != NULL:
        for j in range(width):
            a[j] = <real>((<double>x[j * step] - shift[j]) * scale[j])
    elif step == 1:
        for j in range(width):
            a[j] = <real>x[j]
    else:
        for j in range(width):
            a[j] = <real>x[j * step]


cdef inline void copy_row(const real *x,          # IN  (width,)
                          Py_ssize_t width, bint whole,
                          const real *following,  # IN  (width,) a row that is wanted soon
                          real *a                 # OUT (width,)
                          ) noexcept nogil:
    """a = x, by whole vectors where those can be read: a has room for them.

    Another row, somewhere in memory, is asked for meanwhile (784-128-10 on two threads: 1.02),
    and a round takes four vectors: one took a fifth longer where the loop lay across two lines of
    code (1.03).
    """
    cdef Py_ssize_t j = 0, k
    if not whole:
        memcpy(a, x, width * sizeof(real))
        return
    while j + 4 * LANES <= width:
        for k from j <= k < j + 4 * LANES by CACHE_LINE // <Py_ssize_t>sizeof(real):
            prefetch(following + k)
        store(a + j, load(x + j))
        store(a + j + LANES, load(x + j + LANES))
        store(a + j + 2 * LANES, load(x + j + 2 * LANES))
        store(a + j + 3 * LANES, load(x + j + 3 * LANES))
        j += 4 * LANES
    while j < width:
        store(a + j, load(x + j))
        j += LANES


cdef inline Py_ssize_t whole_rows(Py_ssize_t m, Py_ssize_t width, Py_ssize_t row) noexcept nogil:
    """Of m rows, `row` numbers apart, those behind which there is as much as whole vectors read;
    none where all are the same one, of which a product would think that they are packed."""
    cdef Py_ssize_t beyond = vectors_of(width) * LANES - width
    if row == 0:
        return 0
    if row < 0:
        return m if beyond == 0 else 0
    return max(m - (beyond + row - 1) // row, 0)


cdef inline vec times_zero(Py_ssize_t vectors,
                           const real *x,  # IN  (vectors,)
                           Py_ssize_t step
                           ) noexcept nogil:
    """The sum, times 0, of vectors that are `step` apart: 0 but for lanes with NaN or infinity."""
    cdef Py_ssize_t i
    cdef vec zero = splat(0), one = zero, two = zero, three = zero, four = zero
    for i in range(vectors // 4):  # four sums: a chain of one would wait for every addition
        one = one + load(x) * zero
        two = two + load(x + step) * zero
        three = three + load(x + 2 * step) * zero
        four = four + load(x + 3 * step) * zero
        x += 4 * step
    for i in range(vectors % 4):
        one = one + load(x + i * step) * zero
    return (one + two) + (three + four)


cdef bint all_finite(Py_ssize_t count, const real *x) noexcept nogil:
    """Whether no number is NaN or infinite."""
    cdef Py_ssize_t vectors = count // LANES
    cdef vec total = times_zero(vectors, x, LANES)
    if count > vectors * LANES:
        total = total + load_first(x + vectors * LANES, count - vectors * LANES) * splat(0)
    return sum_of(total) == 0


@cython.final
cdef class Data:
    """Examples, targets and weights, checked by the caller; holds references, copies nothing.

    X : (m, n_x) array of a type in SOURCES with aligned items, or None where `csr` is given.
    y : (m, n_y) C-ordered array of the network's type, (m,) int64 classes, or None.
    sample_weight : (m,) C-ordered float64, or None.
    shift, scale : (n_x,) float64 of the network's scaler, or None.
    csr : (indptr int64, indices int32, values of the network's type), or None.
    """

    cdef readonly Py_ssize_t m, n_x, n_y
    cdef readonly double total_weight
    cdef object owners
    cdef const char *x
    cdef Py_ssize_t row_bytes, step
    cdef Py_ssize_t row_extent  # bytes of a row whose numbers lie side by side, or 0
    cdef readonly bint is_sparse
    cdef readonly bint plain  # whether rows of X are of the network's type, unscaled, contiguous
    cdef Py_ssize_t whole_x, whole_y  # rows, from the first on, that may be read by whole vectors
    cdef int kind
    cdef const double *shift
    cdef const double *scale
    cdef const long long *indptr
    cdef const int *indices
    cdef const real *values
    cdef const real *y
    cdef const long long *classes
    cdef const double *weights

    def __init__(self, m, n_x, n_y, X, y=None, sample_weight=None, shift=None, scale=None,
                 csr=None):
        cdef Py_ssize_t i
        self.owners = (X, y, sample_weight, shift, scale, csr)
        self.m, self.n_x, self.n_y = m, n_x, n_y
        self.is_sparse = csr is not None
        if csr is not None:
            self.indptr = <const long long *>cnp.PyArray_DATA(csr[0])
            self.indices = <const int *>cnp.PyArray_DATA(csr[1])
            self.values = <const real *>cnp.PyArray_DATA(csr[2])
        else:
            self.kind = SOURCE_OF_DTYPE[X.dtype]
            self.x = <const char *>cnp.PyArray_DATA(X)
            self.row_bytes = cnp.PyArray_STRIDE(X, 0)
            self.step = cnp.PyArray_STRIDE(X, 1) // cnp.PyArray_ITEMSIZE(X)
            if self.step == 1:
                self.row_extent = n_x * cnp.PyArray_ITEMSIZE(X)
        if y is not None:
            if cnp.PyArray_NDIM(y) == 1:
                self.classes = <const long long *>cnp.PyArray_DATA(y)
            else:
                self.y = <const real *>cnp.PyArray_DATA(y)
        if shift is not None:
            self.shift = <const double *>cnp.PyArray_DATA(shift)
            self.scale = <const double *>cnp.PyArray_DATA(scale)
        self.plain = csr is None and scale is None and self.step == 1 and (
            self.kind == (FLOAT32 if sizeof(real) == 4 else FLOAT64))
        self.find_whole_rows()
        self.total_weight = m
        if sample_weight is not None:
            self.weights = <const double *>cnp.PyArray_DATA(sample_weight)
            self.total_weight = 0
            for i in range(self.m):
                self.total_weight += self.weights[i]

    cdef void find_whole_rows(self) noexcept nogil:
        """How many rows of X and y may be read by whole vectors, once the rest is known."""
        self.whole_x = self.whole_y = 0
        if self.plain:
            self.whole_x = whole_rows(self.m, self.n_x,
                                      self.row_bytes // <Py_ssize_t>sizeof(real))
        if self.y != NULL:
            self.whole_y = whole_rows(self.m, self.n_y, self.n_y)

    cdef void gather(self,
                     const long long *order,  # IN  (first + count,)
                     Py_ssize_t first, Py_ssize_t count,
                     real *a,                 # OUT (count, n_x + 1)
                     Py_ssize_t stride
                     ) noexcept nogil:
        """`count` rows of X, from place `first` of the order (or of X itself where that is NULL),
        into a (count, stride), each followed by the 1 that multiplies the bias. Rows are asked for
        two before their turn: one takes less time to copy than to come from memory."""
        cdef Py_ssize_t s, i, following, n = self.n_x, row = self.row_bytes, whole = self.whole_x
        cdef const char *x = self.x  # not read anew after each store to a, which might change it
        cdef bint plain = self.plain
        for s in range(first, first + count):
            i = order[s] if order != NULL else s
            if plain:
                following = i
                if s + 2 < first + count:
                    following = order[s + 2] if order != NULL else s + 2
                copy_row(<const real *>(x + i * row), n, i < whole,
                         <const real *>(x + following * row), a)
            else:
                self.convert(x + i * row, a)
            a[n] = 1
            a += stride

    cdef void convert(self, const char *x, real *a) noexcept nogil:
        """One row of X, of any type, scaled."""
        cdef Py_ssize_t n = self.n_x
        if self.kind == FLOAT32:
            convert_row(<const float *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == FLOAT64:
            convert_row(<const double *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == UINT8:
            convert_row(<const unsigned char *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == INT8:
            convert_row(<const signed char *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == UINT16:
            convert_row(<const unsigned short *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == INT16:
            convert_row(<const short *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == UINT32:
            convert_row(<const unsigned int *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == INT32:
            convert_row(<const int *>x, self.step, n, self.shift, self.scale, a)
        elif self.kind == UINT64:
            convert_row(<const unsigned long long *>x, self.step, n, self.shift, self.scale, a)
        else:
            convert_row(<const long long *>x, self.step, n, self.shift, self.scale, a)

    cdef void gather_targets(self,
                             const long long *order,  # IN  (count,)
                             Py_ssize_t count,
                             real *t,                 # OUT (count, n_y)
                             Py_ssize_t stride
                             ) noexcept nogil:
        """The rows of y that `order` lists into t (count, stride); a class as its one-hot row."""
        cdef Py_ssize_t s
        for s in range(count):
            self.copy_target(order[s], t)
            t += stride

    cdef inline void copy_target(self, Py_ssize_t i, real *t) noexcept nogil:
        """One row of y."""
        cdef Py_ssize_t j, n = self.n_y
        if self.classes != NULL:
            for j from 0 <= j < n by LANES:
                store(t + j, splat(0))
            t[self.classes[i]] = 1
        else:
            copy_row(self.y + i * n, n, i < self.whole_y, self.y + i * n, t)

    cdef inline void copy_input(self, Py_ssize_t i, real *a) noexcept nogil:
        """One row of X."""
        cdef const char *x = self.x + i * self.row_bytes
        if self.plain:
            copy_row(<const real *>x, self.n_x, i < self.whole_x, <const real *>x, a)
        else:
            self.convert(x, a)


cdef inline bint is_matrix(array, Py_ssize_t width):
    """Whether it is a C-ordered matrix of this module's type and that width."""
    cdef int kind = cnp.NPY_FLOAT32 if sizeof(real) == 4 else cnp.NPY_FLOAT64
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(array) == kind
            and cnp.PyArray_NDIM(array) == 2 and cnp.PyArray_DIM(array, 1) == width
            and cnp.PyArray_ISCARRAY_RO(array))


cdef bint reads_matrices(Data data, X, y):
    """Whether X and y, as most are, are matrices of the network's type and of the widths of `data`,
    which then reads them where they lie. Whether they are finite is left to the caller, as is
    keeping them alive."""
    if not (is_matrix(X, data.n_x) and is_matrix(y, data.n_y)
            and 0 < cnp.PyArray_DIM(X, 0) == cnp.PyArray_DIM(y, 0)):
        return False
    data.m = cnp.PyArray_DIM(X, 0)
    data.kind = FLOAT32 if sizeof(real) == 4 else FLOAT64
    data.x, data.y = <const char *>cnp.PyArray_DATA(X), <const real *>cnp.PyArray_DATA(y)
    data.row_bytes = data.row_extent = data.n_x * sizeof(real)
    data.step = 1
    data.plain = True
    data.find_whole_rows()
    data.total_weight = data.m
    return True


def plain_examples(X, y, Py_ssize_t n_x, Py_ssize_t n_y):
    """Data of such matrices, if they are finite; else None, for the caller to convert X and y or to
    say what is wrong."""
    cdef Data data = Data.__new__(Data)
    data.n_x, data.n_y = n_x, n_y
    if not (reads_matrices(data, X, y) and all_finite(data.m * n_x, <const real *>data.x)
            and all_finite(data.m * n_y, data.y)):
        return None
    data.owners = (X, y)
    return data
