# How a team of threads shares a mini-batch, and how many threads repay their meetings.
#
# Design: the way (steps.pxi tells the three) is chosen once for a workspace, by the sizes of the
# network and the rows of its largest mini-batch, never by the number of threads: sums are cut by
# it, and results must not depend on who computes them. So is whether slices are turned. The number
# of threads is chosen for each call, by what its operations, its meetings and the numbers that
# cross from core to core are expected to cost.
# Rejected: trying both and keeping the faster (a call may be one epoch of ten microseconds),
# halves of units for the widest networks (they wait for the slower core: tasks.pxi).

cdef enum Sharing:
    BY_UNITS, BY_SLICES, BY_TASKS

cdef enum:
    CHUNK_ROWS = 512    # of a mini-batch that are processed at once
    SLICE_ROWS = 64     # rows of a mini-batch that have a gradient of their own, at least, where
    MOST_SLICES = 8     # it is sliced, and
    SLICED_WEIGHTS = 1 << 17  # weights whose gradients, twice as many, take some megabytes
    TURNED_WORK = 20000  # multiplications a product of a turned slice, at least
    MANY_INPUTS = 8192  # inputs of a chunk that cost more to gather for all of a team than to share
    # In tasks from so many multiplications of a chunk on for a product of each layer: a
    # millisecond of the whole step on one thread.
    TASK_WORK = 20000000

MOST_ROWS = CHUNK_ROWS  # for Python, to which an enum of C is not visible

cdef extern from *:
    """
    /* What a call is expected to cost, to choose a team: seconds, as measured on two cores of a
     * Xeon, those of units on an AMD Zen 3. */
    #define OPERATION_SECONDS (1e-11 * 16 / LANES)
    #define UNIT_SECONDS (5e-10 * 16 / LANES)  /* of an example, beside the products */
    #define WEIGHT_SECONDS 3e-10   /* to update one */
    #define MEETING_SECONDS 5e-7
    #define CROSSING_SECONDS 5e-10  /* a number from core to core */
    #define REGION_SECONDS 2e-5    /* to wake a team */
    #define GAIN 1.25              /* worth the other processors */
    """
    const double OPERATION_SECONDS, UNIT_SECONDS, WEIGHT_SECONDS, MEETING_SECONDS
    const double CROSSING_SECONDS, REGION_SECONDS, GAIN


cdef inline Py_ssize_t slices_of(Py_ssize_t count) noexcept nogil:
    """Slices of a mini-batch of `count` rows: by the count alone, so for any number of threads."""
    return min(max(count // SLICE_ROWS, 2 if count >= SLICE_ROWS else 1), MOST_SLICES)


cdef inline Py_ssize_t turned_slices(const Net *net, Py_ssize_t rows) noexcept nogil:
    """Slices of a mini-batch of so many rows, where they are turned."""
    return min(slices_of(rows), max(1, rows * net.n_parameters // TURNED_WORK))


cdef bint is_turned(const Net *net, const Layer *layers, Py_ssize_t rows) noexcept nogil:
    """Whether mini-batches of so many rows have an example a lane (turned.pxi): where an example's
    rows of units would take longer, in lanes that work. Across them, a weight takes one and an
    input that is turned one and a half; the sums of a slice's lanes as long as one vector of its
    examples. Along, layers take what they fill, tiles of one vector as long as those of a vector
    and a third, and a unit of slight layers four lanes. Of 24 networks with 32 and 128 rows, in
    float32 with 8 and 16 lanes, on a Zen 4, steps take by this choice on average 0.4 % longer than
    by the better one, at most 9 %; by either alone, up to 28 % and two and a half times.
    """
    cdef Py_ssize_t l
    cdef double along = 0, across
    if (net.sparse or net.dropout > 0 or net.optimizer == NO_UPDATE or rows < 2 * LANES
            or net.n_parameters > NARROW_WEIGHTS):
        return False
    across = (1.5 * net.n_x
              + net.n_parameters * (1 + <double>turned_slices(net, rows) * LANES / rows))
    for l in range(net.n_layers):
        if panels_of(layers[l].vectors) > 1:
            return False
        if layers[l].slight:
            along += layers[l].rows * 4 * layers[l].n_out
        elif layers[l].vectors == 1:
            along += layers[l].rows * LANES * 4 / 3.0
        else:
            along += layers[l].rows * LANES * layers[l].vectors
    return across < along


cdef Py_ssize_t most_parts(const Net *net, const Layer *layers) noexcept nogil:
    """The parts of the hidden layer that has most, 1 without one."""
    cdef Py_ssize_t l, most = 1
    for l in range(net.n_layers - 1):
        most = max(most, layers[l].parts)
    return most


cdef int preferred_sharing(const Net *net, const Layer *layers, Py_ssize_t rows) noexcept nogil:
    """The way for mini-batches of so many rows. By slices: a gradient for each, written and read
    again, against the inputs, sums and slopes of its rows that cross else."""
    cdef Py_ssize_t l, crossing = 0, weights = net.n_parameters
    cdef Py_ssize_t slice_rows = max(SLICE_ROWS, rows // slices_of(rows))
    cdef bint by_units = most_parts(net, layers) > 1
    cdef const Layer *layer
    if net.sparse:
        return BY_UNITS
    if net.turned:
        return BY_SLICES
    for l in range(net.n_layers):
        layer = &layers[l]
        if not by_units:
            crossing += layer.n_in + layer.n_out
        elif l == 0:
            crossing += layer.n_in
        else:
            crossing += layer.n_out * (2 if l < net.n_layers - 1 else 1)
    if slices_of(rows) > 1 and weights <= SLICED_WEIGHTS and (
            slice_rows * crossing > (weights if by_units else 2 * weights)):
        return BY_SLICES
    return BY_TASKS if min(rows, CHUNK_ROWS) * weights >= TASK_WORK else BY_UNITS


cdef bint shares_input(const Net *net, Py_ssize_t team, bint plain) noexcept nogil:
    """Whether a team gathers one block of inputs together. Of a pair that shares by units each
    gathers all, as what the other had written would have to cross; conversions take longer."""
    if net.sharing == BY_UNITS:
        return not net.sparse and not net.few_inputs and (team > 2 or (team == 2 and not plain))
    return net.sharing == BY_TASKS


cdef bint has_long_rows(const Net *net) noexcept nogil:
    """Whether rows of X are worth to be fetched while others are used: see `gathered_layer`."""
    return net.sharing == BY_UNITS and not net.sparse and net.n_x >= LONG_ROWS


cdef Py_ssize_t most_useful(const Net *net, const Layer *layers, Py_ssize_t team) noexcept nogil:
    """How many of a team have work in training."""
    cdef Py_ssize_t l, tasks = 1
    if net.sharing == BY_TASKS:
        for l in range(net.n_layers):
            tasks = max(tasks, panels_of(layers[l].vectors) * blocks_of(layers[l].rows, TASK_UNITS))
        return min(team, tasks)
    return min(team, net.slices if net.sharing == BY_SLICES else most_parts(net, layers))


cdef Py_ssize_t draft_numbers(const Net *net, const Layer *layers) noexcept nogil:
    """Numbers in the largest block that a thread makes for itself and hands over, but for slices:
    the inputs of a task, a sliver or a panel of slopes; or its share of a layer's sums."""
    cdef Py_ssize_t l, most = 0
    if net.sharing == BY_TASKS:
        return max(max(TASK_EXAMPLES * net.input_stride, MR * net.capacity),
                   TASK_ROWS * WIDEST * LANES)
    for l in range(1, net.n_layers if net.sharing == BY_UNITS else 0):
        most = max(most, net.capacity * layers[l].stride)
    return most


cdef double largest_share(const Net *net, const Layer *layers, Py_ssize_t team) noexcept nogil:
    """The part of a step's work that the busiest of a team has."""
    cdef Py_ssize_t l, rank, largest = 1, parts = most_parts(net, layers)
    cdef Share share
    if net.sharing == BY_SLICES:
        return <double>blocks_of(net.slices, team) / net.slices
    if net.sharing == BY_TASKS:
        return 1 / <double>team
    for l in range(net.n_layers - 1):
        if layers[l].parts == parts:
            for rank in range(team):
                share = share_of(&layers[l], rank, team)
                largest = max(largest, share.last_part - share.first_part)
    return <double>largest / parts


cdef Py_ssize_t worthwhile(const Net *net, const Layer *layers, Py_ssize_t rows, Py_ssize_t steps,
                           Py_ssize_t most, bint plain) noexcept nogil:
    """The team that is expected to take so many steps soonest, of at most so many threads."""
    cdef Py_ssize_t team, l, numbers = 0, meetings = 1, gathering, chosen = 1, units = 0
    cdef Py_ssize_t chunks = blocks_of(rows, net.capacity)
    cdef double work, alone, best, expected
    for l in range(net.n_layers):
        units += layers[l].n_out
    work = (net.n_parameters * (6.0 * rows * OPERATION_SECONDS + WEIGHT_SECONDS)
            + rows * units * UNIT_SECONDS)
    alone = best = steps * work
    if net.sharing == BY_SLICES:
        numbers = net.slices * net.n_parameters
    else:
        for l in range(1, net.n_layers):
            numbers += rows * layers[l].n_out * (2 if l < net.n_layers - 1 else 1)
        meetings = chunks * (2 * net.n_layers if net.sharing == BY_TASKS
                             else max(2 * net.n_layers - 3, 1) + (not net.alone))
    for team in range(2, most + 1):
        gathering = 2 * chunks if shares_input(net, team, plain) else 0
        expected = REGION_SECONDS + steps * (
            work * largest_share(net, layers, team) + (meetings + gathering) * MEETING_SECONDS
            + numbers * CROSSING_SECONDS * (team - 1)
            / (1 if net.sharing == BY_SLICES else team))
        if expected < best and expected * GAIN < alone:
            best, chosen = expected, team
    return chosen
