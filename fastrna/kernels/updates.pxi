# In-place updates of the weights from their gradient: gradient descent, momentum, Nesterov, Adam.
#
# Design: a run of weights is updated while the gradient of its tile is still in L1, so that the
# weights and the velocity cross the memory bus once a step. The gradient comes as `scale * slope`:
# with a tile's sums the scale is 1; for a mini-batch of one example, dW = a_i dz, the slope is dz
# itself and no gradient is ever stored. The penalties' gradient l2 w + l1 sign(w) joins in
# registers.
# Rejected: update inside the product's registers (saves a store and a load in L1, costs four
# optimizers times every tile).

cdef enum Optimizer:
    NO_UPDATE, SGD, MOMENTUM, NESTEROV, ADAM

OPTIMIZERS = {"none": NO_UPDATE, "sgd": SGD, "momentum": MOMENTUM, "nesterov": NESTEROV,
              "adam": ADAM}

cdef struct Update:
    int optimizer
    bint penalised      # whether l1 or l2 is not 0
    real learning_rate  # of this step; Adam's includes its bias corrections
    real momentum       # beta; Adam's beta_1
    real beta_2
    real epsilon
    real l1
    real l2


cdef inline real adam_rate(double learning_rate, double beta_1, double beta_2,
                           double t) noexcept nogil:
    """alpha sqrt(1 - beta_2^t) / (1 - beta_1^t): Adam's bias corrections as a rate."""
    return <real>(learning_rate * math_sqrt(1 - math_pow(beta_2, t)) / (1 - math_pow(beta_1, t)))


cdef inline void update_as(const int optimizer, const bint penalised, const Update *u,
                           Py_ssize_t rows, Py_ssize_t width, const real *scales,
                           Py_ssize_t scale_step, const real *slope, Py_ssize_t slope_row,
                           real *w, real *v, real *s, real *gradient) noexcept nogil:
    cdef Py_ssize_t i, j, k = 0
    cdef vec x, dw, v_new, s_new, scale
    for i in range(rows):
        scale = splat(scales[i * scale_step])
        for j from 0 <= j < width by LANES:
            x = load(w + k)
            dw = load(slope + j) * scale
            if penalised:
                dw = dw + (x * u.l2 + sign_of(x) * u.l1)
            if optimizer == NO_UPDATE:
                store(gradient + k, dw)
            elif optimizer == SGD:
                store(w + k, x - dw * u.learning_rate)
            elif optimizer == MOMENTUM:
                v_new = load(v + k) * u.momentum - dw * u.learning_rate
                store(v + k, v_new)
                store(w + k, x + v_new)
            elif optimizer == NESTEROV:
                v_new = load(v + k) * u.momentum - dw * u.learning_rate
                store(v + k, v_new)
                store(w + k, x + (v_new * u.momentum - dw * u.learning_rate))
            else:
                v_new = load(v + k) * u.momentum + dw * <real>(1 - u.momentum)
                s_new = load(s + k) * u.beta_2 + dw * dw * <real>(1 - u.beta_2)
                store(v + k, v_new)
                store(s + k, s_new)
                store(w + k, x - v_new * u.learning_rate / (square_root(s_new) + u.epsilon))
            k += LANES
        slope += slope_row


cdef inline void update_with(const bint penalised, const Update *u, Py_ssize_t rows,
                             Py_ssize_t width, const real *scales, Py_ssize_t scale_step,
                             const real *slope, Py_ssize_t slope_row, real *w, real *v, real *s,
                             real *gradient) noexcept nogil:
    if u.optimizer == NO_UPDATE:
        update_as(NO_UPDATE, penalised, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient)
    elif u.optimizer == SGD:
        update_as(SGD, penalised, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient)
    elif u.optimizer == MOMENTUM:
        update_as(MOMENTUM, penalised, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient)
    elif u.optimizer == NESTEROV:
        update_as(NESTEROV, penalised, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient)
    else:
        update_as(ADAM, penalised, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient)


cdef void update(const Update *u, bint penalised,
                 Py_ssize_t rows,
                 Py_ssize_t width,        # numbers in a row, a multiple of LANES
                 const real *scales,      # IN  (rows,) a factor of each row, scale_step apart
                 Py_ssize_t scale_step,
                 const real *slope,       # IN  (rows, width), slope_row apart: gradient / scale
                 Py_ssize_t slope_row,
                 real *w,                 # IN, OUT (rows, width) weights
                 real *v,                 # IN, OUT (rows, width) velocity; Adam's first moment
                 real *s,                 # IN, OUT (rows, width) Adam's second moment
                 real *gradient           # OUT (rows, width), where nothing is updated
                 ) noexcept nogil:
    """w, v, s after one step along scale * slope (+ the penalties' gradient where `penalised`)."""
    if penalised and u.penalised:
        update_with(True, u, rows, width, scales, scale_step, slope, slope_row, w, v, s, gradient)
    else:
        update_with(False, u, rows, width, scales, scale_step, slope, slope_row, w, v, s, gradient)


cdef inline double penalty_of(const Update *u, Py_ssize_t count, const real *w) noexcept nogil:
    """l2/2 sum w^2 + l1 sum |w| of a run of weights."""
    cdef vec total = splat(0), x
    cdef Py_ssize_t i
    for i from 0 <= i < count by LANES:
        x = load(w + i)
        total = total + (x * x * (u.l2 * <real>0.5) + absolute(x) * u.l1)
    return sum_of(total)
