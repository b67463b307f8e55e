# What one thread writes for others of its team to read: through the caches, or past them.
#
# Design: a line of memory that another core has read cannot be written again before that core has
# given it up. Between cores that share a cache this takes little; between those that do not (other
# chiplets, other sockets; on a virtual machine that may change at any time) it takes far longer
# than to read the line, and the next one waits: on a Zen 4 7 ns a line near by, and 28 far away,
# for 2 and 5 to read it. Stores that go past the caches wait for nobody (3 ns), and what has gone
# to memory takes 5 ns to read, near and far. So a team measures now and then how long such lines
# take to write, and where that is long, what the others read and is written as a whole, or copied
# anyway, is made in memory of the thread's own and stored past the caches: gradients of slices,
# shares of sums, and in tasks the inputs, the operands of weight gradients and W^T. The results are
# the same bit for bit.
# Rejected: always past the caches (near by 784-512-512-10 takes 1.03 and 512-256-256-256-10 1.06
# times as long: bench/crossing.py), to ask for the lines, to be written, beforehand (they take as
# long), shares of a batch of a few rows past the caches (64-100-10, far apart: 1.10 times as long).

cdef enum:
    PROBED_LINES = 256
    PROBES = 2            # of which the quickest counts

cdef extern from *:
    """
    #define LOOK_SECONDS 5e-2      /* from one look at the distance to the next, at least */
    #define FAR_LINE_SECONDS 1.2e-8  /* to write a line that another has read: long */
    """
    const double LOOK_SECONDS, FAR_LINE_SECONDS

FAR_LINE = FAR_LINE_SECONDS  # for Python


cdef void hand_over(Py_ssize_t vectors,
                    const real *own,  # IN  (vectors,)
                    real *shared      # OUT (vectors,) for others to read once they have met
                    ) noexcept nogil:
    """A copy past the caches."""
    cdef Py_ssize_t j
    for j from 0 <= j < vectors * LANES by LANES:
        store_past_caches(shared + j, load(own + j))
    settle()


cdef inline Py_ssize_t probe_numbers() noexcept nogil:
    """Numbers in the lines of one thread."""
    return PROBED_LINES * (CACHE_LINE // sizeof(real))


cdef double line_seconds(place *places, Py_ssize_t rank, Py_ssize_t team,
                         real *lines  # (team, PROBED_LINES lines)
                         ) noexcept nogil:
    """Seconds to write a line that another thread has read: on the first thread the most of any."""
    cdef Py_ssize_t line = CACHE_LINE // sizeof(real), k, trial
    cdef real *own = lines + rank * probe_numbers()
    cdef const real *others = lines + (rank + 1) % team * probe_numbers()
    cdef double began, took, best = 1
    cdef real total = 0
    for trial in range(1 + PROBES):
        began = seconds_now()
        for k in range(PROBED_LINES):
            own[k * line] = 0
        wait_for_stores()
        took = seconds_now() - began
        if trial > 0:  # before, nobody may have read them
            best = min(best, took)
        arrive(&places[rank])
        await_team(places, <int>team, <int>rank)
        for k in range(PROBED_LINES):
            total += others[k * line]
        own[1] = total
        arrive(&places[rank])
        await_team(places, <int>team, <int>rank)
    own[0] = <real>best
    arrive(&places[rank])
    await_team(places, <int>team, <int>rank)
    for k in range(team if rank == 0 else 0):
        best = max(best, lines[k * probe_numbers()])
    return best / PROBED_LINES
