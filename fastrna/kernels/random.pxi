# What is drawn at random: the order of the examples, the units that dropout leaves out.
#
# Design: the order is NumPy's own, from the same draws of the same generator, so that a seed means
# the same here as in the reference. A dropout mask is a hash of where an entry stands (step, layer,
# row, column): no state, so any number of threads draws the same one, and nothing is stored between
# forward and backward.
# Rejected: permutations drawn by NumPy (a Python call an epoch), a generator a thread (masks would
# depend on their number), the hash in numbers, left to GCC (twice as long: it does not know that
# rows overlap only where they are the same).

from numpy.random cimport bitgen_t


cdef inline unsigned long long splitmix64(unsigned long long x) noexcept nogil:
    """Steele, Lea and Flood's mixer (2014): every bit of x moves every bit of the result."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)


cdef inline unsigned long long dropout_key(unsigned long long seed, unsigned long long step,
                                           unsigned long long layer) noexcept nogil:
    return splitmix64(splitmix64(splitmix64(seed) ^ step) ^ layer)


cdef enum:
    COLUMN = 0x9E3779B9  # 2^32 / golden ratio: columns that are near get places that are not


cdef inline vec_hash mixed(vec_hash x) noexcept nogil:
    """MurmurHash3's finalizer (Appleby), lane by lane."""
    x = (x ^ (x >> 16)) * 0x85EBCA6BU
    x = (x ^ (x >> 13)) * 0xC2B2AE35U
    return x ^ (x >> 16)


cdef void drop(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, unsigned long long key,
               Py_ssize_t first_row,     # of the mini-batch
               Py_ssize_t first_column,  # of the layer
               unsigned int threshold, real kept_factor,
               const real *a,            # IN  (rows, width), stride apart
               real *h                   # OUT likewise; may be a itself
               ) noexcept nogil:
    """H = A / (1 - rate), or 0 where the hash of the place falls below rate * 2^32.

    Inverted dropout; the mask depends on where an entry stands, not on who computes it.
    """
    cdef Py_ssize_t i, j
    cdef unsigned int row
    cdef vec_hash columns
    cdef vec kept
    for i in range(rows):
        row = <unsigned int>splitmix64(key ^ <unsigned long long>(first_row + i))
        columns = counted_from(<unsigned int>first_column) * <unsigned int>COLUMN
        for j from 0 <= j < width by LANES:
            kept = load_first(a + j, width - j) * kept_factor
            store_first(h + j, where_reached(mixed(row ^ columns), threshold, kept), width - j)
            columns = columns + <unsigned int>LANES * <unsigned int>COLUMN
        a += stride
        h += stride


cdef enum:
    DRAWS = 64  # that are made before their exchanges


cdef void shuffle(bitgen_t *generator, Py_ssize_t m, long long *order) noexcept nogil:
    """order = Generator.permutation(m), from the same draws (m below 2^32).

    A draw above the last place that is left is drawn again, as in NumPy's `random_interval`, but
    without a branch, which could not be told beforehand, as up to half of the draws are so: the
    next one is written over it. Exchanges wait for a number of draws: one after each, and in place
    of those drawn again one of a place with itself, took 4.5 or 9.5 ns an example on a Xeon, by
    where in memory the same code lay; so they take 5.6.
    """
    cdef unsigned int draws[DRAWS]
    cdef Py_ssize_t i, n, k
    cdef unsigned int left = <unsigned int>max(m - 1, 0), mask = left, accepted
    cdef long long kept
    for i in range(m):
        order[i] = i
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    mask |= mask >> 8
    mask |= mask >> 16
    i = left
    while left > 0:
        n = 0
        while n < DRAWS and left > 0:
            draws[n] = generator.next_uint32(generator.state) & mask
            accepted = draws[n] <= left
            n += accepted
            left -= accepted
            mask >>= left <= mask >> 1
        for k in range(n):
            kept = order[i]
            order[i] = order[draws[k]]
            order[draws[k]] = kept
            i -= 1
