# When a team of threads is worse than one thread, and when it comes together again.
#
# Design: where other programs want the processors too, a team waits whole time slices for the one
# that is kept from its own. Its first thread counts what it loses: what it yields in meetings, what
# it is kept from its processor, and what OpenMP makes it wait at the end of a region. A team that
# loses long enough, and a good part of its time, disbands: one thread is better off. It comes
# together again after a while, the longer the more often that was for nothing. The results are the
# same bit for bit. The first time only PATIENCE is enough, as a single hiccup can take half of
# that: each team that disbands halves it, down to an eighth, and doubles the time until the next.
# All is counted anew with each call, and in a long one after epochs that have taken a good while.
# Rejected: to go on alone to the end of the call (a second of other load in the beginning of ten
# halved the speed of them all), to count what is yielded alone (a BLAS whose threads spin keeps the
# first thread from its processor, which then yields nothing).

cdef extern from *:
    """
    #define PATIENCE 1e-2
    #define WAITED_PART 0.5
    #define WINDOW 5e-2
    #define ALONE 1e-2           /* seconds, the first time */
    enum { MOST_HALVINGS = 3, MOST_DOUBLINGS = 7 };  /* 1.3 s: 0.1 % of the time goes in trying */
    """
    const double PATIENCE, WAITED_PART, WINDOW, ALONE
    enum: MOST_HALVINGS
    enum: MOST_DOUBLINGS


cdef struct Watch:
    # What the first thread of a team has lost; in seconds, on the clock of `seconds_now`.
    double began               # since when,
    double running             # `seconds_running` then, and
    double waited              # how long it yielded since
    double left                # when it had done its work
    double alone_until         # when the next team is to come together
    int disbandings            # in a row


cdef inline void look_anew(Watch *watch, double now) noexcept nogil:
    """Begin to watch what a team loses."""
    watch.began, watch.waited = now, 0
    watch.running = seconds_running()


cdef inline double idle(const Watch *watch, double now) noexcept nogil:
    """Seconds since then in which others had this thread's processor."""
    return now - watch.began - (seconds_running() - watch.running)


cdef inline bint hindered(const Watch *watch, double now, double lost) noexcept nogil:
    """Whether so many seconds without work since then are too many for a team."""
    return (lost > PATIENCE / (1 << min(watch.disbandings, MOST_HALVINGS))
            and lost > WAITED_PART * (now - watch.began))


cdef inline void disband(Watch *watch, double now) noexcept nogil:
    """Alone from here on, for a while."""
    watch.alone_until = now + ALONE * (1 << min(watch.disbandings, MOST_DOUBLINGS))
    watch.disbandings += 1


cdef inline bint lost_much(const Watch *watch, double now) noexcept nogil:
    """Whether a team whose region has ended was hindered: OpenMP has waited there for those who
    were kept from their processors."""
    return hindered(watch, now, watch.waited + idle(watch, now) + now - watch.left)
