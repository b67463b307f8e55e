# The phases of a mini-batch of a wide network, cut in tasks for whichever thread is free.
#
# Design: where a mini-batch is milliseconds of arithmetic, one core is now and then slower than
# another for as long: it has other work, or a lower clock, or it shares its units with a twin. So
# each phase (the rows of X, a layer's products, the costs, the slopes of the layer below, all
# weight gradients with their updates) is cut in tasks of some 10 to 100 us, most of them one panel
# of columns by a block of rows. A thread begins with the tasks of its own panels, which are the
# same in every mini-batch, so that their weights are in its caches if they fit; then it takes from
# the far end what others have left. A phase begins when all have finished the one before. Each
# number is the same sum whoever computes it: results do not depend on the number of threads, nor on
# luck. Products go through their panels for one block of rows after another: the rows stay in L2
# while the panels, which are contiguous, are fetched ahead, and with the last of them the rows of
# the next block, of which another core has written half (two threads: 784-512-512-10 1.04). Weight
# gradients go down each panel, so that weights to be written next are fetched from task to task.
# The tasks are the same where products of wide layers are the matrix unit's (matrix_unit.pxi).
# Rejected: halves fixed in advance (a core that was a fifth slower for half a second made the whole
# step a fifth slower), one queue for all (no panel stays with its core).

cdef enum:
    TASK_ROWS = 128    # rows of the batch in a task, at most,
    FEW_TASKS = 16     # and half or a quarter of it where a phase would have fewer tasks than this
    TASK_UNITS = 96    # rows of dW in a task: whole tiles, and whole vectors of W^T
    NEAR_NUMBERS = 1 << 17  # of A_{l-1}^T that are packed and stay in L2 while panels pass by
    TASK_EXAMPLES = 16  # examples whose inputs are gathered in a task, or outputs compared


cdef enum Phase:
    ORDER, GATHER, FORWARD, COST, BACKWARD, UPDATE, WAIT, N_PHASES

PHASES = {ORDER: "order", GATHER: "gather", FORWARD: "forward", COST: "cost",
          BACKWARD: "backward", UPDATE: "weight gradient and update", WAIT: "waiting"}


cdef struct Stage:
    # A phase of one chunk of a mini-batch, and what its tasks need to know.
    int phase
    Py_ssize_t l               # the layer of FORWARD and BACKWARD
    Py_ssize_t rows            # of the chunk
    const long long *chunk
    Py_ssize_t first_row       # the place of its first row in the mini-batch
    bint first, last           # whether it is the mini-batch's first chunk, or last
    bint weighted
    bint handing               # whether copies for others go past the caches: crossing.pxi
    double factor              # of the slopes
    Update update
    real *penalties            # of this step


cdef struct Grid:
    # One thread's tasks of a matrix: for each group of blocks of rows its panels, for each of these
    # the blocks of the group.
    Py_ssize_t first_panel, panels, blocks, group
    Py_ssize_t first_block     # with which it begins; after the last comes block 0


cdef struct Cell:
    Py_ssize_t panel, block


cdef Grid grid_of(Py_ssize_t vectors, Py_ssize_t blocks, Py_ssize_t group, Py_ssize_t first_block,
                  Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
    cdef Grid grid
    grid.first_panel = part_of(panels_of(vectors), rank, team)
    grid.panels = part_of(panels_of(vectors), rank + 1, team) - grid.first_panel
    grid.blocks, grid.group, grid.first_block = blocks, group, first_block
    return grid


cdef Cell cell_of(Grid grid, Py_ssize_t task) noexcept nogil:
    """Which panel and block of rows the task with this number is."""
    cdef Cell cell
    cdef Py_ssize_t first = task // (grid.group * grid.panels) * grid.group
    cdef Py_ssize_t size = min(grid.group, grid.blocks - first)
    task -= first * grid.panels
    cell.panel = grid.first_panel + task // size
    cell.block = (first + task % size + grid.first_block) % grid.blocks
    return cell


cdef Py_ssize_t row_blocks(const Layer *layer, Py_ssize_t rows,
                           Py_ssize_t vectors) noexcept nogil:
    """Blocks of the rows of a mini-batch, for tasks of so many vectors of a layer's products. The
    matrix unit's are not halved, as each splits its weights (784-512-512-10 1.04 to 1.12)."""
    cdef Py_ssize_t blocks = blocks_of(rows, TASK_ROWS), panels = panels_of(vectors), k
    for k in range(0 if uses_matrix_unit(layer) else 2):
        if panels * blocks < FEW_TASKS and 4 * MR * blocks < rows:
            blocks *= 2
    return blocks


cdef Grid rows_grid(const Layer *layer, const Layer *result, Py_ssize_t rows, Py_ssize_t rank,
                    Py_ssize_t team) noexcept nogil:
    """The tasks of a layer's products, which are the units of `result`: all panels for one block of
    rows after another, the first of them one whose inputs the thread has gathered itself."""
    cdef Py_ssize_t blocks = row_blocks(layer, rows, result.vectors)
    return grid_of(result.vectors, blocks, 1, part_of(blocks, rank, team), rank, team)


cdef Grid units_grid(const Layer *layer, Py_ssize_t rows, Py_ssize_t rank,
                     Py_ssize_t team) noexcept nogil:
    """The tasks of a layer's weight gradient: down each panel, where weights are fetched ahead."""
    return grid_of(layer.vectors, blocks_of(layer.rows, TASK_UNITS),
                   max(NEAR_NUMBERS // (TASK_UNITS * rows), 1), 0, rank, team)


cdef Py_ssize_t sliver_blocks(const Layer *layer, Py_ssize_t rows) noexcept nogil:
    """Blocks of A_{l-1}^T that are to be packed."""
    return blocks_of(layer.rows, TASK_UNITS) if packs(layer, rows) else 0


cdef Py_ssize_t tasks_of(const Net *net, const Layer *layers, const Stage *stage, Py_ssize_t rank,
                         Py_ssize_t team) noexcept nogil:
    """How many tasks of a phase are a thread's own."""
    cdef Py_ssize_t l, count = 0
    cdef const Layer *layer = &layers[stage.l]
    cdef Grid grid
    if stage.phase == FORWARD or stage.phase == BACKWARD:
        grid = rows_grid(layer, layer if stage.phase == FORWARD else layer - 1, stage.rows, rank,
                         team)
        if stage.phase == FORWARD:
            count = sliver_blocks(layer, stage.rows)
        return (grid.panels * grid.blocks + part_of(count, rank + 1, team)
                - part_of(count, rank, team))
    elif stage.phase == UPDATE:
        for l in range(net.n_layers):
            grid = units_grid(&layers[l], stage.rows, rank, team)
            count += grid.panels * grid.blocks
        return count
    count = blocks_of(stage.rows, TASK_EXAMPLES)
    return part_of(count, rank + 1, team) - part_of(count, rank, team)


cdef void gather_task(const Net *net, const Desk *desk, Data data, const Stage *stage,
                      Py_ssize_t task) noexcept nogil:
    """A block of examples with their targets and weights."""
    cdef const Layer *last = &desk.layers[net.n_layers - 1]
    cdef Py_ssize_t count = blocks_of(stage.rows, TASK_EXAMPLES)
    cdef Py_ssize_t lo = part_of(stage.rows, task, count), hi = part_of(stage.rows, task + 1, count)
    cdef real *rows = desk.input + lo * net.input_stride
    data.gather(stage.chunk, lo, hi - lo, desk.draft if stage.handing else rows, net.input_stride)
    if stage.handing:
        hand_over((hi - lo) * net.input_stride // LANES, desk.draft, rows)
    gather_targets(data, desk, last, lo, hi, stage.chunk)


cdef Region wanted_next(const Layer *layer, const Stage *stage, Rows read, Grid grid,
                        Py_ssize_t task) noexcept nogil:
    """What the task after this one reads for the first time: its panel of weights, or the block of
    rows that begins there, which other threads have just written in part."""
    cdef bint forward = stage.phase == FORWARD
    cdef const Layer *result = layer if forward else layer - 1
    cdef Region region = nowhere()
    cdef Py_ssize_t lo, hi
    cdef Cell following
    if task + 1 >= grid.panels * grid.blocks:
        return region
    following = cell_of(grid, task + 1)
    if following.block == cell_of(grid, task).block:
        return rows_of_panel(layer.weights if forward else layer.transposed, result.vectors,
                             layer.rows if forward else layer.n_out, following.panel, 0,
                             layer.n_in if forward else layer.n_out)
    lo = part_of(stage.rows, following.block, grid.blocks)
    hi = part_of(stage.rows, following.block + 1, grid.blocks)
    region.at = <const char *>(read.at + lo * read.stride)
    region.bytes = (hi - lo) * read.stride * sizeof(real)
    return region


cdef void pack_slopes(const Net *net, const Desk *desk, const Stage *stage, const Layer *layer,
                      Py_ssize_t panel, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    """dZ of one panel and rows lo to hi as the weight gradient reads it, where that is packed."""
    cdef Py_ssize_t v = vector_of_panel(layer.vectors, panel)
    cdef Py_ssize_t nv = vector_of_panel(layer.vectors, panel + 1) - v
    cdef Py_ssize_t at = (v * net.capacity + lo * nv) * LANES
    if layer.d_panels == NULL:
        return
    pack(lo, hi, layer.n_out, panel, panel + 1, layer.d, layer.stride,
         desk.draft - at if stage.handing else layer.d_panels, net.capacity)
    if stage.handing:
        hand_over((hi - lo) * nv, desk.draft, layer.d_panels + at)


cdef void layer_task(const Net *net, const Desk *desk, const Stage *stage, Py_ssize_t owner,
                     Py_ssize_t team, Py_ssize_t task) noexcept nogil:
    """One panel of A_l, or of dZ_{l-1}, for a block of rows; or a block of A_{l-1}^T, packed."""
    cdef const Layer *layer = &desk.layers[stage.l]
    cdef bint forward = stage.phase == FORWARD
    cdef const Layer *result = layer if forward else layer - 1
    cdef Grid grid = rows_grid(layer, result, stage.rows, owner, team)
    cdef Py_ssize_t lo, hi
    cdef Region wanted
    cdef Cell cell
    cdef Share own
    cdef Rows read = rows_read_by(net, desk, stage.l)
    if not forward:
        read.at, read.stride = layer.d, layer.stride
    if task >= grid.panels * grid.blocks:
        task -= grid.panels * grid.blocks
        lo = (part_of(sliver_blocks(layer, stage.rows), owner, team) + task) * TASK_UNITS
        pack_slivers(layer, lo, min(lo + TASK_UNITS, layer.rows), stage.rows, read.at, read.stride,
                     net.capacity, desk.draft if stage.handing else NULL)
        return
    wanted = wanted_next(layer, stage, read, grid, task)
    cell = cell_of(grid, task)
    lo = part_of(stage.rows, cell.block, grid.blocks)
    hi = part_of(stage.rows, cell.block + 1, grid.blocks)
    own = share_of_panels(result, cell.panel, cell.panel + 1)
    if not forward:
        if uses_matrix_unit(layer):
            matrix_backward(desk.matrix_unit, layer, cell.panel, cell.block, hi - lo,
                            layer.d + lo * layer.stride, result.d + lo * result.stride,
                            result.stride)
        else:
            times_transposed(net, layer, own, hi - lo, layer.d + lo * layer.stride,
                             result.d + lo * result.stride, result.stride, wanted)
        slopes_below(net, desk, stage.l, own, lo, hi, stage.first_row)
        pack_slopes(net, desk, stage, result, cell.panel, lo, hi)
        return
    if uses_matrix_unit(layer):
        matrix_forward(desk.matrix_unit, layer, cell.panel, cell.block, hi - lo,
                       read.at + lo * read.stride, read.stride, layer.z + lo * layer.stride)
    else:
        whole_product(net, desk, stage.l, own, lo, hi, wanted)
    if stage.l < net.n_layers - 1:
        activate_units(net, desk, stage.l, own, lo, hi, True, stage.first_row)


cdef void cost_task(const Net *net, const Desk *desk, const Stage *stage,
                    Py_ssize_t task) noexcept nogil:
    """Outputs, costs and slopes of a block of rows."""
    cdef const Layer *last = &desk.layers[net.n_layers - 1]
    cdef Py_ssize_t count = blocks_of(stage.rows, TASK_EXAMPLES)
    cdef Py_ssize_t lo = part_of(stage.rows, task, count), hi = part_of(stage.rows, task + 1, count)
    cdef Py_ssize_t p
    compare(net, desk, stage.weighted, lo, hi, stage.factor)
    for p in range(panels_of(last.vectors)):
        pack_slopes(net, desk, stage, last, p, lo, hi)


cdef void update_task(const Net *net, const Desk *desk, const Stage *stage, Py_ssize_t owner,
                      Py_ssize_t team, Py_ssize_t task) noexcept nogil:
    """One panel of dW of some layer, a block of rows, and after the last chunk their update."""
    cdef Py_ssize_t l = 0, lo, hi
    cdef real *penalties
    cdef const Layer *layer = desk.layers
    cdef Grid grid = units_grid(layer, stage.rows, owner, team)
    cdef Cell cell
    while task >= grid.panels * grid.blocks:
        task -= grid.panels * grid.blocks
        l += 1
        layer = &desk.layers[l]
        grid = units_grid(layer, stage.rows, owner, team)
    cell = cell_of(grid, task)
    lo = cell.block * TASK_UNITS
    hi = min(lo + TASK_UNITS, layer.rows)
    penalties = stage.penalties + LANES * (layer.first_penalty
                                           + cell.block * panels_of(layer.vectors))
    if uses_matrix_unit(layer):
        matrix_gradient(desk.matrix_unit, &desk.layers[l], l, lo, hi, cell.panel, stage.rows,
                        rows_read_by(net, desk, l), stage.first, stage.last, &stage.update,
                        penalties)
        return
    gradient_tiles(net, layer, lo, hi, cell.panel, cell.panel + 1, 0, stage.rows,
                   rows_read_by(net, desk, l), layer.gradient, stage.first, stage.last,
                   &stage.update, penalties)
    if stage.last and l > 0:
        renew_transposed(net, layer, lo, hi, cell.panel, cell.panel + 1, stage.handing)


cdef void do_task(const Net *net, const Desk *desk, Data data, const Stage *stage, Py_ssize_t owner,
                  Py_ssize_t team, Py_ssize_t task) noexcept nogil:
    """One of the tasks that are `owner`'s, on the thread of the desk."""
    cdef Py_ssize_t first = part_of(blocks_of(stage.rows, TASK_EXAMPLES), owner, team)
    if stage.phase == GATHER:
        gather_task(net, desk, data, stage, first + task)
    elif stage.phase == COST:
        cost_task(net, desk, stage, first + task)
    elif stage.phase == UPDATE:
        update_task(net, desk, stage, owner, team, task)
    else:
        layer_task(net, desk, stage, owner, team, task)
