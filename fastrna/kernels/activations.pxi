# Activation functions g and their derivatives g', side by side.
#
# Design: each is one line on a vector. `activate` and `differentiate` take the activation as a
# compile-time constant (the dispatchers at the end name each once), so that the loop over a block
# has no branch inside. A derivative is written from the output a = g(z) wherever that suffices, so
# that a layer need not keep z; `needs_preactivation` says where it does not.
# Rejected: function pointers (a call a vector), the activation fused into the product's registers
# (12 tiles x 12 activations of code; the block is still in L1 when it is activated: about 1 %).
#
# Blocks are rows x vectors, `stride` numbers apart; lanes past a layer's width carry harmless
# numbers.

cdef extern from "math.h" nogil:
    double math_exp "exp"(double x)
    double math_sqrt "sqrt"(double x)
    double math_pow "pow"(double x, double y)
    const real INFINITY

cdef enum Activation:
    STEP, SIGN, IDENTITY, SIGMOID, TANH, RELU, LEAKY_RELU, ELU, SOFTPLUS, GELU, SILU, EXP, SOFTMAX

ACTIVATIONS = {
    "step": STEP, "sign": SIGN, "identity": IDENTITY, "sigmoid": SIGMOID, "tanh": TANH,
    "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU, "softplus": SOFTPLUS, "gelu": GELU,
    "silu": SILU, "exp": EXP, "softmax": SOFTMAX,
}


cdef inline vec sigmoid(vec z) noexcept nogil:
    """1 / (1 + e^-z), through e^-|z| so that neither tail overflows or loses digits."""
    cdef vec e = exp_of_negative(-absolute(z)), zero = splat(0)
    return where_greater(zero, z, e, splat(1)) / (e + 1)


cdef inline vec silu_slope(vec z) noexcept nogil:
    """(z s)' = s (1 + z (1 - s)), s = 1 / (1 + e^-z); 1 - s as s(-z), which keeps its digits."""
    cdef vec e = exp_of_negative(-absolute(z)), zero = splat(0), near_one = 1 / (e + 1)
    cdef vec near_zero = e * near_one
    return (where_greater(zero, z, near_zero, near_one)
            * (1 + z * where_greater(zero, z, near_one, near_zero)))


cdef inline vec softplus(vec z) noexcept nogil:
    """ln(1 + e^z) = max(z, 0) + ln(1 + e^-|z|)."""
    return larger(splat(0), z) + log1p_of(exp_of_negative(-absolute(z)))


cdef inline vec g(const int activation, real parameter, vec z) noexcept nogil:
    """a = g(z)."""
    cdef vec zero = splat(0), one = splat(1)
    if activation == STEP:
        return where_greater(zero, z, zero, where_greater(z, -one, one, z))
    elif activation == SIGN:
        return where_greater(zero, z, -one, where_greater(z, -one, one, z))
    elif activation == SIGMOID:
        return sigmoid(z)
    elif activation == TANH:
        return tanh_of(z)
    elif activation == RELU:
        return larger(zero, z)
    elif activation == LEAKY_RELU:
        return where_greater(zero, z, z * parameter, z)
    elif activation == ELU:
        return where_greater(z, zero, z, expm1_of_negative(z) * parameter)
    elif activation == SOFTPLUS:
        return softplus(z)
    elif activation == GELU:
        return z * normal_cdf(z)
    elif activation == SILU:
        return z * sigmoid(z)
    elif activation == EXP:
        return exp_of(z)
    return z


cdef inline vec g_prime(const int activation, real parameter, vec z, vec a) noexcept nogil:
    """g'(z), from a = g(z) where it can be; at a kink, the derivative from the left.

    Unless `needs_preactivation`, z may be given as a: only its sign is looked at.
    """
    cdef vec zero = splat(0), one = splat(1)
    if activation == STEP or activation == SIGN:
        return zero
    elif activation == SIGMOID:
        return a * (one - a)
    elif activation == TANH:
        return one - a * a
    elif activation == RELU:
        return where_greater(a, zero, one, zero)
    elif activation == LEAKY_RELU:
        return where_greater(z, zero, one, splat(parameter))
    elif activation == ELU:
        return where_greater(z, zero, one, a + parameter)
    elif activation == SOFTPLUS:
        return -expm1_of_negative(-a)
    elif activation == GELU:
        return normal_cdf_slope(z)
    elif activation == SILU:
        return silu_slope(z)
    elif activation == EXP:
        return a
    return one


cdef inline bint needs_preactivation(int activation, real parameter) noexcept nogil:
    """Whether g' cannot be had from a = g(z) alone: g not invertible, or a not of z's sign."""
    return (activation == GELU or activation == SILU
            or (activation == LEAKY_RELU and parameter <= 0)
            or (activation == ELU and parameter <= 0))


cdef inline void activate_as(const int activation, real parameter, Py_ssize_t rows,
                             Py_ssize_t vectors, Py_ssize_t stride,
                             const real *z,  # IN  (rows, vectors), stride apart
                             real *a         # OUT likewise; may be z
                             ) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(vectors):
            store(a + j * LANES, g(activation, parameter, load(z + j * LANES)))
        z += stride
        a += stride


cdef inline void differentiate_as(const int activation, real parameter, Py_ssize_t rows,
                                  Py_ssize_t vectors, Py_ssize_t stride,
                                  const real *z,  # IN  (rows, vectors), stride apart
                                  const real *a,  # IN  likewise, g(z)
                                  real *d         # IN dJ/da, OUT dJ/dz, likewise
                                  ) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(vectors):
            store(d + j * LANES, load(d + j * LANES)
                  * g_prime(activation, parameter, load(z + j * LANES), load(a + j * LANES)))
        z += stride
        a += stride
        d += stride


cdef void activate(int activation, real parameter, Py_ssize_t rows, Py_ssize_t vectors,
                   Py_ssize_t stride,
                   const real *z,     # IN  (rows, stride) pre-activations
                   real *a            # OUT (rows, stride) g(z); may be z itself
                   ) noexcept nogil:
    """A = g(Z), but for softmax, which couples the outputs of a row: softmax_rows."""
    if activation == STEP:
        activate_as(STEP, parameter, rows, vectors, stride, z, a)
    elif activation == SIGN:
        activate_as(SIGN, parameter, rows, vectors, stride, z, a)
    elif activation == SIGMOID:
        activate_as(SIGMOID, parameter, rows, vectors, stride, z, a)
    elif activation == TANH:
        activate_as(TANH, parameter, rows, vectors, stride, z, a)
    elif activation == RELU:
        activate_as(RELU, parameter, rows, vectors, stride, z, a)
    elif activation == LEAKY_RELU:
        activate_as(LEAKY_RELU, parameter, rows, vectors, stride, z, a)
    elif activation == ELU:
        activate_as(ELU, parameter, rows, vectors, stride, z, a)
    elif activation == SOFTPLUS:
        activate_as(SOFTPLUS, parameter, rows, vectors, stride, z, a)
    elif activation == GELU:
        activate_as(GELU, parameter, rows, vectors, stride, z, a)
    elif activation == SILU:
        activate_as(SILU, parameter, rows, vectors, stride, z, a)
    elif activation == EXP:
        activate_as(EXP, parameter, rows, vectors, stride, z, a)
    elif z != a:
        activate_as(IDENTITY, parameter, rows, vectors, stride, z, a)


cdef void differentiate(int activation, real parameter, Py_ssize_t rows, Py_ssize_t vectors,
                        Py_ssize_t stride,
                        const real *z,     # IN  (rows, stride) pre-activations (or a: g_prime)
                        const real *a,     # IN  (rows, stride) activations
                        real *d            # IN  dJ/dA, OUT dJ/dZ = dJ/dA * g'(Z)
                        ) noexcept nogil:
    """dZ = dA * g'(Z)."""
    if activation == STEP or activation == SIGN:
        differentiate_as(STEP, parameter, rows, vectors, stride, z, a, d)
    elif activation == SIGMOID:
        differentiate_as(SIGMOID, parameter, rows, vectors, stride, z, a, d)
    elif activation == TANH:
        differentiate_as(TANH, parameter, rows, vectors, stride, z, a, d)
    elif activation == RELU:
        differentiate_as(RELU, parameter, rows, vectors, stride, z, a, d)
    elif activation == LEAKY_RELU:
        differentiate_as(LEAKY_RELU, parameter, rows, vectors, stride, z, a, d)
    elif activation == ELU:
        differentiate_as(ELU, parameter, rows, vectors, stride, z, a, d)
    elif activation == SOFTPLUS:
        differentiate_as(SOFTPLUS, parameter, rows, vectors, stride, z, a, d)
    elif activation == GELU:
        differentiate_as(GELU, parameter, rows, vectors, stride, z, a, d)
    elif activation == SILU:
        differentiate_as(SILU, parameter, rows, vectors, stride, z, a, d)
    elif activation == EXP:
        differentiate_as(EXP, parameter, rows, vectors, stride, z, a, d)


cdef enum:
    FEW_COLUMNS = 4  # of softmax that are worth turning over, if they fill half a vector or less


cdef extern from *:
    """
    static const number LANE_NUMBERS[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    """
    const real LANE_NUMBERS[16]


cdef inline vec within(vec x, Py_ssize_t width, Py_ssize_t column, real otherwise) noexcept nogil:
    """x in the lanes of the columns before `width`, `otherwise` past it; lane 0 is `column`."""
    return where_greater(splat(<real>(width - column)), load(LANE_NUMBERS), x, splat(otherwise))


cdef inline bint few_columns(Py_ssize_t width) noexcept nogil:
    """Whether softmax turns LANES rows at a time over, so that each lane has a row of its own."""
    return 2 <= width <= min(FEW_COLUMNS, LANES // 2)


cdef inline vec below_largest(const int width,
                              vec *columns  # IN z, OUT z - max z (width,), a row a lane
                              ) noexcept nogil:
    """z - max z of a row in each lane, in place; the largest are returned."""
    cdef vec top = columns[0]
    cdef int k
    for k in range(1, width):
        top = larger(columns[k], top)
    for k in range(width):
        columns[k] = columns[k] - top
    return top


cdef inline vec softmax_columns(const int width,
                                vec *columns  # IN z - max z, OUT softmax (width,)
                                ) noexcept nogil:
    """Softmax of what `below_largest` leaves, in place; the totals are returned."""
    cdef vec total = splat(0), inverse
    cdef int k
    for k in range(width):
        columns[k] = exp_of_negative(columns[k])
        total = total + columns[k]
    inverse = 1 / total
    for k in range(width):
        columns[k] = columns[k] * inverse
    return total


cdef inline void softmax_of_few(const int width, Py_ssize_t rows, Py_ssize_t stride,
                                const real *z,  # IN  (rows, width), stride apart
                                real *a,        # OUT likewise
                                real *largest,  # OUT (rows,) max z
                                real *totals    # OUT (rows,) sum of e^(z - max z)
                                ) noexcept nogil:
    """`softmax_rows` of so few columns that most lanes of a row would be empty."""
    cdef vec columns[LANES]
    cdef Py_ssize_t i, n
    for i from 0 <= i < rows by LANES:
        n = min(LANES, rows - i)
        load_columns(n, z + i * stride, stride, columns)
        store_first(largest + i, below_largest(width, columns), n)
        store_first(totals + i, softmax_columns(width, columns), n)
        store_columns(width, n, columns, a + i * stride, stride)


cdef inline void softmax_across(const int width, Py_ssize_t vectors, Py_ssize_t stride,
                                real *z     # IN OUT (width, vectors) a row a lane
                                ) noexcept nogil:
    """The same where they are turned over already: to the same bits."""
    cdef vec columns[FEW_COLUMNS]
    cdef Py_ssize_t v
    cdef int k
    for v in range(vectors):
        for k in range(width):
            columns[k] = load(z + k * stride + v * LANES)
        below_largest(width, columns)
        softmax_columns(width, columns)
        for k in range(width):
            store(z + k * stride + v * LANES, columns[k])


cdef void softmax_turned(Py_ssize_t width, Py_ssize_t vectors, Py_ssize_t stride,
                         real *z  # IN, OUT (width, vectors), stride apart: an example a lane
                         ) noexcept nogil:
    """`softmax_rows` of columns that are turned over already: to the same bits, so totals are
    summed in the order in which `sums_of` adds lanes."""
    cdef vec sums[LANES]
    cdef vec top, e, inverse
    cdef Py_ssize_t v, k, n
    if few_columns(width):
        if width == 2:
            softmax_across(2, vectors, stride, z)
        elif width == 3:
            softmax_across(3, vectors, stride, z)
        else:
            softmax_across(4, vectors, stride, z)
        return
    for v in range(vectors):
        top = splat(-INFINITY)
        for k in range(width):
            top = larger(load(z + k * stride), top)
        for k in range(LANES):
            sums[k] = splat(0)
        for k in range(width):
            e = exp_of_negative(load(z + k * stride) - top)
            store(z + k * stride, e)
            sums[k % LANES] = sums[k % LANES] + e
        n = LANES
        while n > 1:
            n //= 2
            for k in range(n):
                sums[k] = sums[k] + sums[k + n]
        inverse = 1 / sums[0]
        for k in range(width):
            store(z + k * stride, load(z + k * stride) * inverse)
        z += LANES


cdef void softmax_rows(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                       const real *z,     # IN  (rows, stride) pre-activations, whole vectors
                       real *a,           # OUT (rows, stride) e^(z - max) / total; may be z
                       real *largest,     # OUT (rows,) max z
                       real *totals       # OUT (rows,) sum e^(z - max): log-sum-exp = max + ln
                       ) noexcept nogil:
    """A = softmax(Z); a vector's worth of rows at a time is summed across its lanes, or, of a few
    columns, turned over."""
    cdef vec woven[LANES]
    cdef real inverses[LANES]
    cdef vec top, total, e, inverse
    cdef Py_ssize_t i, j, s, n
    if few_columns(width):
        if width == 2:
            softmax_of_few(2, rows, stride, z, a, largest, totals)
        elif width == 3:
            softmax_of_few(3, rows, stride, z, a, largest, totals)
        else:
            softmax_of_few(4, rows, stride, z, a, largest, totals)
        return
    for i from 0 <= i < rows by LANES:
        n = min(LANES, rows - i)
        for s in range(n):
            top = splat(-INFINITY)
            for j from 0 <= j < width by LANES:
                top = larger(within(load(z + s * stride + j), width, j, -INFINITY), top)
            woven[s] = top
        largest_of_rows(n, woven, largest + i)
        for s in range(n):
            top = splat(largest[i + s])
            total = splat(0)
            for j from 0 <= j < width by LANES:
                # Past the width the argument may be anything, and so its e^x, which is left out.
                e = exp_of_negative(load(z + s * stride + j) - top)
                e = within(e, width, j, 0)
                total = total + e
                store(a + s * stride + j, e)
            woven[s] = total
        sums_of_rows(n, woven, totals + i)
        store(inverses, 1 / load_first(totals + i, n))
        for s in range(n):
            inverse = splat(inverses[s])
            for j from 0 <= j < width by LANES:
                store(a + s * stride + j, load(a + s * stride + j) * inverse)
        z += n * stride
        a += n * stride
