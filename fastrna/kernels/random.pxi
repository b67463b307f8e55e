# What is drawn at random: the order of the examples, the units that dropout leaves out.
#
# Design: the order is NumPy's own, from the same draws of the same generator, so that a seed means
# the same here as in the reference. A dropout mask is a hash of where an entry stands (step, layer,
# row, column): no state, so any number of threads draws the same one, and nothing is stored between
# forward and backward.
# Rejected: permutations drawn by NumPy (a Python call an epoch), a generator a thread (masks would
# depend on their number).

from numpy.random cimport bitgen_t


cdef inline unsigned long long splitmix64(unsigned long long x) noexcept nogil:
    """Steele, Lea and Flood's mixer (2014): every bit of x moves every bit of the result."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)


cdef inline unsigned int dropout_base(unsigned long long seed, unsigned long long step,
                                      unsigned long long layer,
                                      unsigned long long row) noexcept nogil:
    return <unsigned int>splitmix64(splitmix64(splitmix64(splitmix64(seed) ^ step) ^ layer) ^ row)


cdef inline void drop_row(Py_ssize_t first, Py_ssize_t width, unsigned int base,
                          unsigned int threshold, real kept_factor,
                          const real *a,    # IN  (width,) from column `first` on
                          real *h           # OUT (width,) likewise
                          ) noexcept nogil:
    """h_j = a_j / (1 - rate), or 0 where the hash of (base, first + j) falls below rate * 2^32.

    Inverted dropout; the mask depends on where an entry stands, not on who computes it.
    """
    cdef Py_ssize_t j
    cdef unsigned int x
    for j in range(width):
        x = base ^ (<unsigned int>(first + j) * 0x9E3779B9U)
        x ^= x >> 16
        x *= 0x85EBCA6BU
        x ^= x >> 13
        x *= 0xC2B2AE35U
        x ^= x >> 16
        h[j] = a[j] * kept_factor if x >= threshold else <real>0


cdef void shuffle(bitgen_t *generator, Py_ssize_t m, long long *order) noexcept nogil:
    """order = Generator.permutation(m), from the same draws (m below 2^32).

    A draw above i is drawn again, as in NumPy's `random_interval`, but as an exchange of i with
    itself that does not count: no branch can tell beforehand, and up to half of the draws are so.
    """
    cdef Py_ssize_t i, j
    cdef unsigned int left = <unsigned int>max(m - 1, 0), mask = left, drawn, accepted
    cdef long long kept
    for i in range(m):
        order[i] = i
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    mask |= mask >> 8
    mask |= mask >> 16
    while left > 0:
        drawn = generator.next_uint32(generator.state) & mask
        accepted = drawn <= left
        j = drawn if accepted else left
        kept = order[left]
        order[left] = order[j]
        order[j] = kept
        left -= accepted
        mask >>= left <= mask >> 1
