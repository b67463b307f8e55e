# Costs J and their gradients dJ/dZ at the output layer, side by side.
#
# Design: one pass over a mini-batch's rows yields the cost of each example and, in the same
# registers, its gradient with respect to the output's pre-activation z. Where output and cost match
# (identity and squared error, sigmoid or softmax and log loss, exp and poisson, step or sign and
# the perceptron criterion) that is a - y; elsewhere it is dJ/da * g'(z). Logarithms are taken of z,
# never of a, so that a saturated output has a finite cost. The logarithm of softmax's totals is
# taken at the end of the block, a vector of rows at a time.
# Rejected: the cost from a (infinite at a = 0 or 1), one libm log a row (4 % of a small net's
# step).
#
# cost of an example = sum over outputs; the caller averages over examples.

cdef enum Loss:
    SQUARED_ERROR, LOG_LOSS, PERCEPTRON, ABSOLUTE_ERROR, HUBER, POISSON, QUANTILE

LOSSES = {
    "squared_error": SQUARED_ERROR, "log_loss": LOG_LOSS, "perceptron": PERCEPTRON,
    "absolute_error": ABSOLUTE_ERROR, "huber": HUBER, "poisson": POISSON, "quantile": QUANTILE,
}


cdef inline vec sign_of(vec x) noexcept nogil:
    """-1, 0 or 1; NaN stays NaN."""
    cdef vec zero = splat(0)
    return where_greater(x, zero, splat(1), where_greater(zero, x, splat(-1), x))


cdef inline vec loss_of(const int loss, real parameter, int output, vec z, vec a, vec y,
                        vec *d  # OUT its slope
                        ) noexcept nogil:
    """The cost of one output, and in d its derivative: dJ/da, or dJ/dz where `is_matched`."""
    cdef vec r = a - y, zero = splat(0), size = absolute(r), delta, slope
    d[0] = r
    if loss == LOG_LOSS:
        # softplus(z) - z y, in an order that keeps the digits of a cost near 0.
        return (larger(zero, z) - z * y) + log1p_of(exp_of_negative(-absolute(z)))
    elif loss == PERCEPTRON:
        # An error on the boundary (z = 0) costs more than nothing: cost 0 means separated.
        return size * larger(absolute(z), splat(SMALLEST_NORMAL))
    elif loss == ABSOLUTE_ERROR:
        d[0] = sign_of(r)
        return size
    elif loss == HUBER:
        delta = splat(parameter)
        d[0] = clamp(r, -parameter, parameter)
        return where_greater(size, delta, delta * (size - delta * <real>0.5), r * r * <real>0.5)
    elif loss == QUANTILE:
        d[0] = where_greater(zero, r, splat(-parameter), sign_of(r) * <real>(1 - parameter))
        return larger(r * <real>(1 - parameter), r * -parameter)
    elif loss == POISSON:
        # Half the Poisson deviance, y ln(y / a) - y + a; with the exponential output ln a = z.
        # For softplus, far below 0, ln a = z and g'(z) = a: the quotients stay finite.
        if output == SOFTPLUS:
            delta = splat(<real>1e-8 if sizeof(real) == 4 else <real>1e-17)
            slope = g_prime(SOFTPLUS, 0, z, a)
            d[0] = slope - y * where_greater(delta, a, splat(1), slope / a)
            z = where_greater(delta, a, z, log_of(a))
        return where_greater(y, zero, y * (log_of(y) - z), zero) + r
    return r * r * <real>0.5


cdef vec loss_of_kind(int loss, real parameter, int output, vec z, vec a, vec y,
                      vec *d  # OUT
                      ) noexcept nogil:
    """`loss_of` with its cost known at run time."""
    if loss == LOG_LOSS:
        return loss_of(LOG_LOSS, parameter, output, z, a, y, d)
    elif loss == PERCEPTRON:
        return loss_of(PERCEPTRON, parameter, output, z, a, y, d)
    elif loss == ABSOLUTE_ERROR:
        return loss_of(ABSOLUTE_ERROR, parameter, output, z, a, y, d)
    elif loss == HUBER:
        return loss_of(HUBER, parameter, output, z, a, y, d)
    elif loss == POISSON:
        return loss_of(POISSON, parameter, output, z, a, y, d)
    elif loss == QUANTILE:
        return loss_of(QUANTILE, parameter, output, z, a, y, d)
    return loss_of(SQUARED_ERROR, parameter, output, z, a, y, d)


cdef inline bint is_matched(int loss, int output) noexcept nogil:
    """Whether `loss_of` gives dJ/dz itself."""
    return (loss == LOG_LOSS or loss == PERCEPTRON or loss == POISSON
            or (loss == SQUARED_ERROR and output == IDENTITY))


cdef inline void loss_rows(const int loss, real parameter, int output, real output_parameter,
                           Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                           const real *z,  # IN  (rows, width), stride apart
                           const real *a,  # IN  likewise, the outputs
                           const real *y,  # IN  likewise, the targets
                           real *d,        # OUT likewise, dJ/dz
                           real *cost      # OUT (rows,)
                           ) noexcept nogil:
    cdef Py_ssize_t i, j, s, n
    cdef vec totals[LANES]
    cdef vec total, slope, c
    cdef bint matched = is_matched(loss, output)
    for i from 0 <= i < rows by LANES:
        n = min(LANES, rows - i)
        for s in range(n):
            total = splat(0)
            for j from 0 <= j < width by LANES:
                c = loss_of(loss, parameter, output, load(z + j), load(a + j), load(y + j), &slope)
                total = total + within(c, width, j, 0)
                if not matched:
                    slope = slope * g_prime(output, output_parameter, load(z + j), load(a + j))
                store(d + j, within(slope, width, j, 0))
            totals[s] = total
            z += stride
            a += stride
            y += stride
            d += stride
        sums_of_rows(n, totals, cost + i)


cdef inline void log_loss_of_few(const int width, Py_ssize_t rows, Py_ssize_t stride,
                                 const real *z,  # IN  (rows, width), stride apart
                                 real *a,        # OUT likewise, softmax(z)
                                 const real *y,  # IN  likewise, the targets
                                 real *d,        # OUT likewise, dJ/dz
                                 real *cost      # OUT (rows,)
                                 ) noexcept nogil:
    """`softmax_log_loss_rows` of a few columns, a row a lane."""
    cdef vec columns[LANES]
    cdef vec targets[LANES]
    cdef vec linear, mass
    cdef Py_ssize_t i, n
    cdef int k
    for i from 0 <= i < rows by LANES:
        n = min(LANES, rows - i)
        load_columns(n, z + i * stride, stride, columns)
        load_columns(n, y + i * stride, stride, targets)
        below_largest(width, columns)
        linear = splat(0)
        mass = splat(0)
        for k in range(width):
            linear = linear - targets[k] * columns[k]
            mass = mass + targets[k]
        store_first(cost + i, linear + mass * log_of(softmax_columns(width, columns)), n)
        for k in range(width):
            targets[k] = columns[k] * mass - targets[k]
        store_columns(width, n, columns, a + i * stride, stride)
        store_columns(width, n, targets, d + i * stride, stride)


cdef inline void softmax_log_loss_rows(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                                       const real *z,  # IN  (rows, width), stride apart
                                       real *a,        # OUT likewise, softmax(z)
                                       const real *y,  # IN  likewise, the targets
                                       real *d,        # OUT likewise, dJ/dz
                                       real *cost,     # OUT (rows,)
                                       real *totals,   # scratch (rows,)
                                       real *masses    # scratch (rows,)
                                       ) noexcept nogil:
    """J = sum_k y_k (max + ln total - z_k), dJ/dz = a sum(y) - y; a = softmax(z) on the way."""
    cdef Py_ssize_t i, j, s, n
    cdef vec linears[LANES]
    cdef vec mass_of[LANES]
    cdef vec linear, mass, target
    if few_columns(width):
        if width == 2:
            log_loss_of_few(2, rows, stride, z, a, y, d, cost)
        elif width == 3:
            log_loss_of_few(3, rows, stride, z, a, y, d, cost)
        else:
            log_loss_of_few(4, rows, stride, z, a, y, d, cost)
        return
    softmax_rows(rows, width, stride, z, a, cost, totals)
    for i from 0 <= i < rows by LANES:
        n = min(LANES, rows - i)
        for s in range(n):
            linear = splat(0)
            mass = splat(0)
            for j from 0 <= j < width by LANES:
                target = within(load(y + s * stride + j), width, j, 0)
                linear = linear + target * (splat(cost[i + s]) - load(z + s * stride + j))
                mass = mass + target
            linears[s] = linear
            mass_of[s] = mass
        sums_of_rows(n, linears, cost + i)
        sums_of_rows(n, mass_of, masses + i)
        store_first(cost + i, load_first(cost + i, n)
                    + load_first(masses + i, n) * log_of(load_first(totals + i, n)), n)
        for s in range(n):
            mass = splat(masses[i + s])
            for j from 0 <= j < width by LANES:
                store(d + s * stride + j, within(load(a + s * stride + j) * mass
                                                 - load(y + s * stride + j), width, j, 0))
        z += n * stride
        a += n * stride
        y += n * stride
        d += n * stride


cdef inline void softmax_squared_error_rows(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                                            const real *z,  # IN  (rows, width), stride apart
                                            real *a,        # OUT likewise, softmax(z)
                                            const real *y,  # IN  likewise, the targets
                                            real *d,        # OUT likewise, dJ/dz
                                            real *cost,     # OUT (rows,)
                                            real *totals    # scratch (rows,)
                                            ) noexcept nogil:
    """dJ/dz = a (r - sum_k a_k r_k) with r = a - y: softmax's whole Jacobian."""
    cdef Py_ssize_t i, j
    cdef vec total, inner, r
    cdef real dot
    softmax_rows(rows, width, stride, z, a, cost, totals)
    for i in range(rows):
        total = splat(0)
        inner = splat(0)
        for j from 0 <= j < width by LANES:
            r = within(load(a + j) - load(y + j), width, j, 0)
            total = total + r * r * <real>0.5
            inner = inner + r * load(a + j)
            store(d + j, r)
        cost[i] = sum_of(total)
        dot = sum_of(inner)
        for j from 0 <= j < width by LANES:
            store(d + j, load(a + j) * (load(d + j) - dot))
        a += stride
        y += stride
        d += stride


cdef void cost_and_slope(int loss, real parameter, int output, real output_parameter,
                         Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                         const real *z,      # IN  (rows, stride) pre-activations of the output
                         real *a,            # IN  (rows, stride) g(z); OUT for softmax
                         const real *y,      # IN  (rows, stride) targets
                         real *d,            # OUT (rows, stride) dJ_i/dz, 0 past the width
                         real *cost,         # OUT (rows,) J_i
                         real *totals,       # scratch (rows,)
                         real *masses        # scratch (rows,)
                         ) noexcept nogil:
    """The cost J_i of each example and its gradient with respect to the output's Z."""
    if output == SOFTMAX and loss == LOG_LOSS:
        softmax_log_loss_rows(rows, width, stride, z, a, y, d, cost, totals, masses)
    elif output == SOFTMAX:
        softmax_squared_error_rows(rows, width, stride, z, a, y, d, cost, totals)
    elif loss == LOG_LOSS:
        loss_rows(LOG_LOSS, parameter, output, output_parameter, rows, width, stride, z, a, y, d,
                  cost)
    elif loss == PERCEPTRON:
        loss_rows(PERCEPTRON, parameter, output, output_parameter, rows, width, stride, z, a, y, d,
                  cost)
    elif loss == ABSOLUTE_ERROR:
        loss_rows(ABSOLUTE_ERROR, parameter, output, output_parameter, rows, width, stride, z, a, y,
                  d, cost)
    elif loss == HUBER:
        loss_rows(HUBER, parameter, output, output_parameter, rows, width, stride, z, a, y, d, cost)
    elif loss == POISSON:
        loss_rows(POISSON, parameter, output, output_parameter, rows, width, stride, z, a, y, d,
                  cost)
    elif loss == QUANTILE:
        loss_rows(QUANTILE, parameter, output, output_parameter, rows, width, stride, z, a, y, d,
                  cost)
    else:
        loss_rows(SQUARED_ERROR, parameter, output, output_parameter, rows, width, stride, z, a, y,
                  d, cost)


cdef inline void scale_rows(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride,
                            real *d,                  # IN, OUT (rows, stride)
                            const double *weights,    # IN  (rows,) or NULL for ones
                            double factor) noexcept nogil:
    """d_i = d_i * weight_i * factor: from the cost of an example to the mean over examples. One
    without weight takes no part, were its cost infinite."""
    cdef Py_ssize_t i, j
    cdef real scale = <real>factor
    for i in range(rows):
        if weights != NULL:
            scale = <real>(weights[i] * factor)
        for j from 0 <= j < width by LANES:
            store(d + j, load(d + j) * scale)
        if scale == 0:
            memset(d, 0, width * sizeof(real))
        d += stride
