# Functions of one vector: exp, expm1, tanh, log, log1p, and the normal distribution's.
#
# Design: straight-line code (reduce the argument, a polynomial, scale back), so that a loop over
# vectors keeps the FMA units busy; a branch an element made a tanh net three times slower. One body
# serves float32 and float64: only the number of terms differs, and the compiler unrolls it away.
# Coefficients are the series' own (1/k!, 2/(2k+1)): one term longer than a minimax fit, and nothing
# to look up. Only the normal distribution's tail, for which no series will do, has fitted ones.
# Error bounds are tested over the whole range: see tests/tolerances.py.
# Rejected: libm per element (scalar), tables (gathers), other fitted constants (a term less,
# unreadable).

cdef extern from "simd.h" nogil:
    ctypedef real vec
    enum: LANES
    enum: MR
    enum: FEW
    enum: NV
    enum: WIDEST
    enum: CACHE_LINE
    enum: VECTOR_BYTES
    vec splat(real x)
    vec load(const real *p)
    void store(real *p, vec v)
    enum: STORES_PAST_CACHES
    void store_past_caches(real *p, vec v)
    void settle()
    void wait_for_stores()
    vec load_first(const real *p, Py_ssize_t n)
    void store_first(real *p, vec v, Py_ssize_t n)
    enum: BLOCK_LANES
    vec load_blocks(const real *a, const real *b, const real *c, const real *d)
    vec where_greater(vec x, vec y, vec a, vec b)
    vec larger(vec x, vec y)
    vec smaller(vec x, vec y)
    vec absolute(vec x)
    vec square_root(vec x)
    vec upper_half(vec x)
    enum: RAISED
    vec nearest(vec x, real raised, vec *power)
    vec times_power_of_two(vec x, vec n)
    vec times_negative_power(vec x, vec n, vec raised)
    vec exponent(vec x)
    vec mantissa(vec x)
    ctypedef unsigned int vec_hash
    vec_hash counted_from(unsigned int first)
    vec where_reached(vec_hash x, unsigned int threshold, vec a)
    real sum_of(vec v)
    real largest_of(vec v)
    vec weave_low(int n, vec a, vec b)
    vec weave_high(int n, vec a, vec b)
    unsigned long long flush_subnormals()
    void restore_subnormals(unsigned long long before)
    void prefetch(const void *p)
    void prefetch_far(const void *p)
    void prefetch_to_write(const void *p)

cdef extern from *:
    """
    /* MILLS_POWERS, below: the Chebyshev expansion of (x + 4) (1 - Phi(x)) e^(x^2/2) in
     * t = (x - 4) / (x + 4), x >= 0, as powers of t, cut where what is left is less than the last
     * digit (by mpmath, from 80 nodes). So Shepherd and Laframboise expand erfc (Mathematics of
     * Computation 36, 1981, 249-253). Of eight numbers from 1.5 to 6, 4 takes the fewest terms. */
    /* 1/k! from k = 0, 2/(2k+1) from k = 0, and tanh's of z, z^3, z^5... from k = 1: with B the
     * Bernoulli numbers, 4^k (4^k - 1) B_2k / (2k)!. And sqrt(2 pi) (Phi(z) - 1/2)'s of z, z^3...:
     * (-1/2)^k / (k! (2k + 1)). */
    static const number INVERSE_FACTORIAL[] = {
        1.0, 1.0, 1.0/2, 1.0/6, 1.0/24, 1.0/120, 1.0/720, 1.0/5040, 1.0/40320, 1.0/362880,
        1.0/3628800, 1.0/39916800, 1.0/479001600, 1.0/6227020800.0};
    static const number ATANH_SERIES[] = {
        2.0, 2.0/3, 2.0/5, 2.0/7, 2.0/9, 2.0/11, 2.0/13, 2.0/15, 2.0/17, 2.0/19, 2.0/21};
    static const number TANH_SERIES[] = {
        1.0, -1.0/3, 2.0/15, -17.0/315, 62.0/2835, -1382.0/155925, 21844.0/6081075,
        -929569.0/638512875, 6404582.0/10854718875};
    static const number CENTRE_SERIES[] = {
        1.0, -1.0/6, 1.0/40, -1.0/336, 1.0/3456, -1.0/42240, 1.0/599040, -1.0/9676800,
        1.0/175472640, -1.0/3530096640, 1.0/78033715200, -1.0/1880240947200, 1.0/49049763840000,
        -1.0/1377317368627200, 1.0/41421544567603200, -1.0/1328346084409344000};
    #define CENTRE ((number)1)
    #if FASTRNA_BITS == 32
    enum { CENTRE_TERMS = 9 };
    enum { EXP_TERMS = 7, LOG_TERMS = 5, TANH_TERMS = 3 };
    #define LN2_HIGH 0.693359375f
    #define LN2_LOW -2.12194440054690583e-4f
    #define EXP_LARGEST 89.0f     /* e^89 overflows */
    #define EXP_SMALLEST -104.0f  /* e^-104 underflows to 0 */
    #define SMALLEST_NORMAL 1.17549435e-38f
    #define TAIL_END 15.0f        /* 1 - Phi(15) underflows to 0 */
    enum { MILLS_TERMS = 12 };
    static const number MILLS_POWERS[] = {
        0.755285131f, -0.607896631f, 0.387137394f, -0.18652216f, 0.0603966483f, -0.00753771716f,
        -0.00347995464f, 0.00162204011f, 0.000133653387f, -0.000215573776f, -1.7310823e-6f,
        2.11829843e-5f};
    #else
    enum { CENTRE_TERMS = 16 };
    enum { EXP_TERMS = 13, LOG_TERMS = 10, TANH_TERMS = 8 };
    #define LN2_HIGH 6.93147180369123816490e-01
    #define LN2_LOW 1.90821492927058770002e-10
    #define EXP_LARGEST 710.0
    #define EXP_SMALLEST -746.0
    #define SMALLEST_NORMAL 2.2250738585072014e-308
    #define TAIL_END 39.0
    enum { MILLS_TERMS = 25 };
    static const number MILLS_POWERS[] = {
        0.75528513041575149, -0.6078966419718923, 0.38713740074221492, -0.18652185795963661,
        0.060396574890917872, -0.0075401889673863126, -0.0034796923670479736, 0.0016308184674099085,
        0.00013334430941183254, -0.00023109501736277426, -1.9082463514145711e-6,
        3.5145111902837651e-5, 7.166587641195121e-7, -5.9216110459239774e-6, -6.2983673384923691e-7,
        1.0247851016552773e-6, 2.7246296951145872e-7, -1.597739614223922e-7, -8.6866470159978928e-8,
        1.7844927772981416e-8, 2.1427603843452356e-8, -5.8736267649871907e-10,
        -3.7306450818683703e-9, -1.1997782031253095e-10, 3.4033123086494946e-10};
    #endif
    #define LN2 ((number)0.69314718055994530942)
    #define LOG2_E ((number)1.44269504088896340736)
    #define INVERSE_ROOT_OF_2_PI ((number)0.39894228040143267794)
    #define SQUARE_ROOT_OF_2 ((number)1.41421356237309504880)
    """
    const real INVERSE_FACTORIAL[14]
    const real ATANH_SERIES[11]
    const real TANH_SERIES[9]
    enum: EXP_TERMS
    enum: LOG_TERMS
    enum: TANH_TERMS
    enum: CENTRE_TERMS
    enum: MILLS_TERMS
    const real CENTRE_SERIES[16]
    const real CENTRE
    const real MILLS_POWERS[25]
    const real TAIL_END
    const real LN2_HIGH, LN2_LOW, EXP_LARGEST, EXP_SMALLEST, SMALLEST_NORMAL
    const real LN2, LOG2_E, SQUARE_ROOT_OF_2, INVERSE_ROOT_OF_2_PI


cdef inline vec clamp(vec x, real lowest, real highest) noexcept nogil:
    """x kept within [lowest, highest]; NaN stays NaN."""
    return smaller(splat(highest), larger(splat(lowest), x))


cdef inline void weave_round(const int n, const int count, vec *rows) noexcept nogil:
    """One round of transposing `count` vectors: those that are n apart."""
    cdef int i
    cdef vec x
    for i in range(count):
        if n < count and i & n == 0:
            x = rows[i]
            rows[i] = weave_low(n, x, rows[i + n])
            rows[i + n] = weave_high(n, x, rows[i + n])


cdef inline void transpose(vec *rows) noexcept nogil:
    """A square of LANES vectors in place."""
    # Not a loop: only with each n a constant does GCC keep the rows in registers.
    weave_round(8, LANES, rows)
    weave_round(4, LANES, rows)
    weave_round(2, LANES, rows)
    weave_round(1, LANES, rows)


cdef inline void weave_blocks(vec *rows) noexcept nogil:
    """The rounds of `transpose` that are left after `load_blocks`, of BLOCK_LANES vectors."""
    weave_round(2, BLOCK_LANES, rows)
    weave_round(1, BLOCK_LANES, rows)


cdef inline void load_columns(Py_ssize_t n, const real *rows, Py_ssize_t row,
                              vec *columns) noexcept nogil:
    """The lanes of up to LANES rows of one vector, `row` apart: a vector each, 0 past row n."""
    cdef int i
    for i in range(LANES):
        columns[i] = load(rows + i * row) if i < n else splat(0)
    transpose(columns)


cdef inline void store_columns(const int width, Py_ssize_t n, vec *columns, real *rows,
                               Py_ssize_t row) noexcept nogil:
    """The same back, of `width` columns; zeros past them."""
    cdef int i
    for i in range(width, LANES):
        columns[i] = splat(0)
    transpose(columns)
    for i in range(LANES):
        if i < n:
            store(rows + i * row, columns[i])


cdef inline vec sums_of(vec *rows) noexcept nogil:
    """The sum of each of LANES vectors, one a lane: woven together and added."""
    cdef int i, n = LANES
    while n > 1:
        n //= 2
        for i in range(n):
            rows[i] = weave_low(n, rows[i], rows[i + n]) + weave_high(n, rows[i], rows[i + n])
    return rows[0]


cdef inline vec largest_of_each(vec *rows) noexcept nogil:
    """The largest number of each of LANES vectors, one a lane."""
    cdef int i, n = LANES
    while n > 1:
        n //= 2
        for i in range(n):
            rows[i] = larger(weave_low(n, rows[i], rows[i + n]),
                             weave_high(n, rows[i], rows[i + n]))
    return rows[0]


cdef inline void sums_of_rows(Py_ssize_t count, vec *rows, real *sums) noexcept nogil:
    """The sums of up to LANES vectors; one alone in as few steps, and to the same bits."""
    cdef Py_ssize_t i
    if count == 1:
        sums[0] = sum_of(rows[0])
        return
    for i in range(count, LANES):
        rows[i] = splat(0)
    store_first(sums, sums_of(rows), count)


cdef inline void largest_of_rows(Py_ssize_t count, vec *rows, real *largest) noexcept nogil:
    """The largest numbers of up to LANES vectors."""
    cdef Py_ssize_t i
    if count == 1:
        largest[0] = largest_of(rows[0])
        return
    for i in range(count, LANES):
        rows[i] = splat(0)
    store_first(largest, largest_of_each(rows), count)


cdef inline vec expm1_reduced(vec x, real raised, vec *n, vec *power) noexcept nogil:
    """e^r - 1, where x = n ln 2 + r and |r| <= ln(2)/2; and 2^(n + raised), if it is normal."""
    cdef vec r, r2, p
    cdef int k
    n[0] = nearest(x * LOG2_E, raised, power)
    r = (x - n[0] * LN2_HIGH) - n[0] * LN2_LOW
    r2 = r * r
    p = r * INVERSE_FACTORIAL[EXP_TERMS] + INVERSE_FACTORIAL[EXP_TERMS - 1]
    for k in range(EXP_TERMS - 2, 2, -2):
        p = p * r2 + (r * INVERSE_FACTORIAL[k] + INVERSE_FACTORIAL[k - 1])
    return r + r2 * p


cdef inline vec exp_of(vec x) noexcept nogil:
    """e^x = (1 + (e^r - 1)) 2^n."""
    cdef vec n, power, p
    p = expm1_reduced(clamp(x, EXP_SMALLEST, EXP_LARGEST), 0, &n, &power) + 1
    return times_power_of_two(p, n)


cdef inline vec exp_of_negative(vec x) noexcept nogil:
    """e^x for x <= 0, scaled back in a third of the instructions (with AVX2: six fewer of 24)."""
    cdef vec n, power, p
    p = expm1_reduced(larger(splat(EXP_SMALLEST), x), RAISED, &n, &power) + 1
    return times_negative_power(p, n, power)


cdef inline vec expm1_of_negative(vec x) noexcept nogil:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1) for x <= 0; below -40 it is -1 in either precision."""
    cdef vec n, power, p
    p = expm1_reduced(larger(splat(-40), x), 0, &n, &power)
    return power * p + (power - 1)


cdef inline vec tanh_reduced(vec x, vec *power) noexcept nogil:
    """tanh r, where x = n ln(2)/2 + r and |r| <= ln(2)/4; and 2^n = e^(2(x - r))."""
    cdef vec r, r2, p
    cdef int k
    r = x - nearest(x * (<real>2 * LOG2_E), 0, power) * (<real>0.5 * LN2)
    r2 = r * r
    p = splat(TANH_SERIES[TANH_TERMS])
    for k in range(TANH_TERMS - 1, -1, -1):
        p = p * r2 + TANH_SERIES[k]
    return r * p


cdef inline vec tanh_of(vec x) noexcept nogil:
    """tanh(s + r) = (h + t) / (1 + h t) with h = tanh r and t = tanh s = (p - 1) / (p + 1), where
    p = e^2s is a power of two; from 20 on it is 1 in either precision."""
    cdef vec power, h = tanh_reduced(clamp(x, -20, 20), &power)
    cdef vec sum = 1 + power, difference = 1 - power  # subtracted, so that -0 stays -0
    return (sum * h - difference) / (sum - difference * h)


cdef inline vec log1p_reduced(vec f) noexcept nogil:
    """ln(1 + f) = f - s (f - R) with s = f / (2 + f), R = 2/3 s^2 + 2/5 s^4 + ..., for
    sqrt(1/2) <= 1 + f <= sqrt(2)."""
    cdef vec s = f / (f + 2), s2 = s * s, R
    cdef int k
    R = splat(ATANH_SERIES[LOG_TERMS])
    for k in range(LOG_TERMS - 1, 0, -1):
        R = R * s2 + ATANH_SERIES[k]
    return f - s * (f - s2 * R)


cdef inline vec log1p_of(vec u) noexcept nogil:
    """ln(1 + u) for 0 <= u <= 1: above sqrt(2) - 1, ln 2 + ln(1 + (u - 1)/2)."""
    cdef vec limit = splat(SQUARE_ROOT_OF_2 - 1), zero = splat(0)
    cdef vec f = where_greater(u, limit, (u - 1) * <real>0.5, u)
    cdef vec high = where_greater(u, limit, splat(LN2_HIGH), zero)
    cdef vec low = where_greater(u, limit, splat(LN2_LOW), zero)
    return high + (low + log1p_reduced(f))


cdef inline vec log_of(vec x) noexcept nogil:
    """ln x = e ln 2 + ln m for x = m 2^e >= 0; below the normal numbers, ln of the smallest one."""
    cdef vec normal = where_greater(splat(SMALLEST_NORMAL), x, splat(SMALLEST_NORMAL), x)
    cdef vec e = exponent(normal), m = mantissa(normal), root = splat(SQUARE_ROOT_OF_2)
    cdef vec one = splat(1), zero = splat(0)
    e = e + where_greater(m, root, one, zero)
    m = where_greater(m, root, m * <real>0.5, m)
    return e * LN2_HIGH + (e * LN2_LOW + log1p_reduced(m - 1))


cdef inline vec exp_of_half_square(vec x) noexcept nogil:
    """e^(-x^2/2) for 0 <= x <= TAIL_END. What x^2 loses in rounding is made good: the result would
    be wrong by x^2/2 times as much."""
    cdef vec high = upper_half(x), square = x * x
    cdef vec lost = (high * high - square) + (x - high) * (x + high)
    cdef vec e = exp_of_negative(square * <real>-0.5)
    return e - e * (lost * <real>0.5)


cdef inline vec mills_ratio(vec x) noexcept nogil:
    """M(x) = (1 - Phi(x)) / e^(-x^2/2) for 0 <= x <= TAIL_END; t, from -1 to almost 1, as
    2x / (x + 4) - 1, which has more digits where x is small."""
    cdef vec s = 1 / (x + 4), t = (x + x) * s - 1, p = splat(MILLS_POWERS[MILLS_TERMS - 1])
    cdef int k
    for k in range(MILLS_TERMS - 2, -1, -1):
        p = p * t + MILLS_POWERS[k]
    return p * s


cdef inline vec with_complement(vec z, vec p) noexcept nogil:
    """p for z <= 0, 1 - p above; NaN stays NaN."""
    return where_greater(z, splat(0), 1 - p, p)


cdef inline vec normal_centre(vec z) noexcept nogil:
    """Phi(z) = 1/2 + (z - z^3/6 + z^5/40 - ...) / sqrt(2 pi) for |z| <= CENTRE."""
    cdef vec z2 = z * z, p = splat(CENTRE_SERIES[CENTRE_TERMS - 1] * INVERSE_ROOT_OF_2_PI)
    cdef int k
    for k in range(CENTRE_TERMS - 2, -1, -1):
        p = p * z2 + CENTRE_SERIES[k] * INVERSE_ROOT_OF_2_PI
    return z * p + <real>0.5


cdef inline vec normal_cdf(vec z) noexcept nogil:
    """Phi(z) = e^(-z^2/2) M(-z) for z <= 0; in the centre by its series, which has more digits."""
    cdef vec x = smaller(splat(TAIL_END), absolute(z))
    cdef vec tails = with_complement(z, exp_of_half_square(x) * mills_ratio(x))
    return where_greater(splat(CENTRE), x, normal_centre(clamp(z, -TAIL_END, TAIL_END)), tails)


cdef inline vec normal_cdf_slope(vec z) noexcept nogil:
    """(z Phi(z))' = Phi(z) + z phi(z) = e^(-z^2/2) (M(-z) + z / sqrt(2 pi)) for z <= 0."""
    cdef vec x = smaller(splat(TAIL_END), absolute(z))
    return with_complement(z, exp_of_half_square(x) * (mills_ratio(x) - x * INVERSE_ROOT_OF_2_PI))
