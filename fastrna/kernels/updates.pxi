# In-place updates of the weights from their gradient: gradient descent, momentum, Nesterov, Adam.
#
# Design: a run of weights is updated while the gradient of its tile is still in L1, so that the
# weights and the velocity cross the memory bus once a step. The gradient comes as `scale * slope`:
# with a tile's sums the scale is 1; for a mini-batch of one example, dW = a_i dz, the slope is dz
# itself and no gradient is ever stored. The penalties l2/2 w^2 + l1 |w| and their gradient
# l2 w + l1 sign(w) join in registers.
# Rejected: update inside the product's registers (saves a store and a load in L1, costs four
# optimizers times every tile).

cdef extern from *:
    """
    #include <float.h>
    #if FASTRNA_BITS == 32
    #define SMALLEST FLT_MIN
    #else
    #define SMALLEST DBL_MIN
    #endif
    """
    const real SMALLEST  # normal number


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
    real first_part     # 1 - beta_1 and 1 - beta_2, whose digits the rounded betas have lost
    real second_part
    real epsilon
    real l1
    real l2


cdef inline real adam_rate(double learning_rate, double beta_1, double beta_2,
                           double t) noexcept nogil:
    """alpha sqrt(1 - beta_2^t) / (1 - beta_1^t): Adam's bias corrections as a rate."""
    return <real>(learning_rate * math_sqrt(1 - math_pow(beta_2, t)) / (1 - math_pow(beta_1, t)))


cdef inline void set_decays(Update *u, double beta_1, double beta_2,
                            double epsilon) noexcept nogil:
    """How the moments decay, or the velocity, and Adam's epsilon: one that the type does not hold
    would be 0, as what it is added to may be."""
    u.momentum, u.beta_2 = <real>beta_1, <real>beta_2
    u.first_part, u.second_part = <real>(1 - beta_1), <real>(1 - beta_2)
    u.epsilon = max(<real>epsilon, SMALLEST)


cdef struct Rule:
    # The settings, in registers: for all the compiler knows, a store to w might change them.
    vec rate, momentum, beta_2, epsilon, l1, l2, half_l2, first_part, second_part


cdef inline Rule rule_of(const Update *u) noexcept nogil:
    cdef Rule r
    r.rate, r.momentum = splat(u.learning_rate), splat(u.momentum)
    r.beta_2, r.epsilon = splat(u.beta_2), splat(u.epsilon)
    r.l1, r.l2, r.half_l2 = splat(u.l1), splat(u.l2), splat(u.l2 * <real>0.5)
    r.first_part, r.second_part = splat(u.first_part), splat(u.second_part)
    return r


cdef inline vec updated(const int optimizer, const int penalty, const Rule *r, vec dw,
                        real *w,         # IN, OUT a vector of each
                        real *v,         # IN, OUT
                        real *s,         # IN, OUT
                        real *gradient,  # OUT
                        vec *sum         # IN, OUT the penalties
                        ) noexcept nogil:
    """One vector of weights after its step along dw, stored and returned; its penalty to `sum`."""
    cdef vec x = load(w), v_new, s_new
    if penalty:
        dw = dw + x * r.l2
        sum[0] = sum[0] + x * x * r.half_l2
    if penalty == L1_AND_L2:
        dw = dw + sign_of(x) * r.l1
        sum[0] = sum[0] + absolute(x) * r.l1
    if optimizer == NO_UPDATE:
        store(gradient, dw)
        return x
    elif optimizer == SGD:
        x = x - dw * r.rate
    elif optimizer == ADAM:
        v_new = load(v) * r.momentum + dw * r.first_part
        s_new = load(s) * r.beta_2 + dw * dw * r.second_part
        store(v, v_new)
        store(s, s_new)
        x = x - v_new * r.rate / (square_root(s_new) + r.epsilon)
    else:
        v_new = load(v) * r.momentum - dw * r.rate
        store(v, v_new)
        x = x + (v_new if optimizer == MOMENTUM else v_new * r.momentum - dw * r.rate)
    store(w, x)
    return x


cdef inline void update_as(const int optimizer, const int penalty, const int nv, const Update *u,
                           Py_ssize_t rows, Py_ssize_t width, const real *scales,
                           Py_ssize_t scale_step, const real *slope, Py_ssize_t slope_row,
                           real *w, real *v, real *s, real *gradient, real *penalties,
                           bint more, const real *ahead, real *z) noexcept nogil:
    """`update`; where nv is not 0, on nv vectors of columns with the next product in registers."""
    cdef Py_ssize_t i, j, k = 0
    cdef int p
    cdef vec sum, scale, next_input
    cdef vec product[WIDEST]
    cdef Rule rule = rule_of(u)
    sum = load(penalties) if penalty and more else splat(0)
    for p in range(nv):
        product[p] = load(z + p * LANES)
    for i in range(rows):
        scale = splat(scales[i * scale_step])
        if nv == 0:
            for j from 0 <= j < width by LANES:
                updated(optimizer, penalty, &rule, load(slope + j) * scale, w + k, v + k, s + k,
                        gradient + k, &sum)
                k += LANES
        else:
            next_input = splat(ahead[i])
            for p in range(nv):
                product[p] = product[p] + next_input * updated(
                    optimizer, penalty, &rule, load(slope + p * LANES) * scale, w + k, v + k,
                    s + k, gradient + k, &sum)
                k += LANES
        slope += slope_row
    for p in range(nv):
        store(z + p * LANES, product[p])
    if penalty:
        store(penalties, sum)


cdef inline void update_by(const int optimizer, const int penalty, const Update *u,
                           Py_ssize_t rows, Py_ssize_t width, const real *scales,
                           Py_ssize_t scale_step, const real *slope, Py_ssize_t slope_row,
                           real *w, real *v, real *s, real *gradient, real *penalties,
                           bint more, const real *ahead, real *z) noexcept nogil:
    cdef Py_ssize_t nv = width // LANES
    if ahead == NULL:
        update_as(optimizer, penalty, 0, u, rows, width, scales, scale_step, slope, slope_row, w,
                  v, s, gradient, penalties, more, ahead, z)
    elif WIDEST >= 4 and nv == 4:
        update_as(optimizer, penalty, 4, u, rows, width, scales, scale_step, slope, slope_row, w,
                  v, s, gradient, penalties, more, ahead, z)
    elif WIDEST >= 3 and nv == 3:
        update_as(optimizer, penalty, 3, u, rows, width, scales, scale_step, slope, slope_row, w,
                  v, s, gradient, penalties, more, ahead, z)
    elif nv == 2:
        update_as(optimizer, penalty, 2, u, rows, width, scales, scale_step, slope, slope_row, w,
                  v, s, gradient, penalties, more, ahead, z)
    else:
        update_as(optimizer, penalty, 1, u, rows, width, scales, scale_step, slope, slope_row, w,
                  v, s, gradient, penalties, more, ahead, z)


cdef inline void update_with(const int penalty, const Update *u, Py_ssize_t rows,
                             Py_ssize_t width, const real *scales, Py_ssize_t scale_step,
                             const real *slope, Py_ssize_t slope_row, real *w, real *v, real *s,
                             real *gradient, real *penalties, bint more, const real *ahead,
                             real *z) noexcept nogil:
    if u.optimizer == NO_UPDATE:
        update_as(NO_UPDATE, penalty, 0, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == SGD:
        update_by(SGD, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == MOMENTUM:
        update_by(MOMENTUM, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    elif u.optimizer == NESTEROV:
        update_by(NESTEROV, penalty, u, rows, width, scales, scale_step, slope, slope_row,
                  w, v, s, gradient, penalties, more, ahead, z)
    else:
        update_by(ADAM, penalty, u, rows, width, scales, scale_step, slope, slope_row,
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
                 real *penalties,         # OUT (LANES,) l2/2 w^2 + l1 |w| before the update, summed
                 bint more,               # in LANES parts; added to what is there, if more
                 const real *ahead,       # IN  (rows,) inputs of the next example, or NULL
                 real *z                  # IN, OUT (width,) of a panel: z + ahead w, on the way
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
