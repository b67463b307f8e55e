# In-place updates of the weights from their gradient: gradient descent, momentum, Nesterov, Adam.
#
# Design: a run of weights is updated while the gradient of its tile is still in L1, so that the
# weights and the velocity cross the memory bus once a step. The gradient comes as `scale * slope`:
# with a tile's sums the scale is 1; for a mini-batch of one example, dW = a_i dz, the slope is dz
# itself and no gradient is ever stored. The penalties l2/2 w^2 + l1 |w| and their gradient
# l2 w + l1 sign(w) join in registers.
# Rejected: update inside the product's registers (saves a store and a load in L1, costs four
# optimizers times every tile).

cdef enum Optimizer:
    NO_UPDATE, SGD, MOMENTUM, NESTEROV, ADAM

cdef enum Penalty:
    NO_PENALTY, L2_ONLY, L1_AND_L2

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


cdef inline void update_as(const int optimizer, const int penalty, const Update *u,
                           Py_ssize_t rows, Py_ssize_t width, const real *scales,
                           Py_ssize_t scale_step, const real *slope, Py_ssize_t slope_row,
                           real *w, real *v, real *s, real *gradient, real *penalties,
                           bint more, const real *ahead, real *z) noexcept nogil:
    cdef Py_ssize_t i, j, k = 0
    cdef vec x, dw, v_new, s_new, scale, sum, ahead_i
    # The settings, in registers: for all the compiler knows, a store to w might change them.
    cdef vec rate = splat(u.learning_rate), momentum = splat(u.momentum)
    cdef vec beta_2 = splat(u.beta_2), epsilon = splat(u.epsilon)
    cdef vec l1 = splat(u.l1), l2 = splat(u.l2), half_l2 = splat(u.l2 * <real>0.5)
    cdef vec first_part = splat(1 - u.momentum), second_part = splat(1 - u.beta_2)
    for i in range(rows):
        scale = splat(scales[i * scale_step])
        sum = load(penalties + i * LANES) if penalty and more else splat(0)
        if ahead != NULL:
            ahead_i = splat(ahead[i])
        for j from 0 <= j < width by LANES:
            x = load(w + k)
            dw = load(slope + j) * scale
            if penalty:
                dw = dw + x * l2
                sum = sum + x * x * half_l2
            if penalty == L1_AND_L2:
                dw = dw + sign_of(x) * l1
                sum = sum + absolute(x) * l1
            if optimizer == NO_UPDATE:
                store(gradient + k, dw)
            elif optimizer == SGD:
                x = x - dw * rate
            elif optimizer == ADAM:
                v_new = load(v + k) * momentum + dw * first_part
                s_new = load(s + k) * beta_2 + dw * dw * second_part
                store(v + k, v_new)
                store(s + k, s_new)
                x = x - v_new * rate / (square_root(s_new) + epsilon)
            else:
                v_new = load(v + k) * momentum - dw * rate
                store(v + k, v_new)
                x = x + (v_new if optimizer == MOMENTUM else v_new * momentum - dw * rate)
            if optimizer != NO_UPDATE:
                store(w + k, x)
            if ahead != NULL:
                store(z + j, load(z + j) + ahead_i * x)
            k += LANES
        if penalty:
            store(penalties + i * LANES, sum)
        slope += slope_row


cdef inline void update_with(const int penalty, const Update *u, Py_ssize_t rows,
                             Py_ssize_t width, const real *scales, Py_ssize_t scale_step,
                             const real *slope, Py_ssize_t slope_row, real *w, real *v, real *s,
                             real *gradient, real *penalties, bint more, const real *ahead,
                             real *z) noexcept nogil:
    if u.optimizer == NO_UPDATE:
        update_as(NO_UPDATE, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == SGD:
        update_as(SGD, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == MOMENTUM:
        update_as(MOMENTUM, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == NESTEROV:
        update_as(NESTEROV, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    else:
        update_as(ADAM, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)


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
                 real *gradient,          # OUT (rows, width), where nothing is updated
                 real *penalties,         # OUT (rows, LANES) l2/2 w^2 + l1 |w| before the update,
                 bint more,               # summed over columns in LANES parts; added to, if more
                 const real *ahead,       # IN  (rows,) inputs of the next example, or NULL
                 real *z                  # IN, OUT (width,) plus ahead w: its product on the way
                 ) noexcept nogil:
    """w, v, s after one step along scale * slope (+ the penalties' gradient where `penalised`)."""
    if not penalised or not u.penalised:
        if scale_step == 0 and slope_row == width and ahead == NULL:  # one long row
            width, rows = rows * width, 1
        update_with(NO_PENALTY, u, rows, width, scales, scale_step, slope, slope_row, w, v, s,
                    gradient, penalties, more, ahead, z)
    elif u.l1 == 0:
        update_with(L2_ONLY, u, rows, width, scales, scale_step, slope, slope_row, w, v, s,
                    gradient, penalties, more, ahead, z)
    else:
        update_with(L1_AND_L2, u, rows, width, scales, scale_step, slope, slope_row, w, v, s,
                    gradient, penalties, more, ahead, z)
