# What training a network needs in memory, all allocated once: weights, moments, gradients and the
# blocks of a mini-batch, and the ways of parameters and moments in and out.
#
# Design: the weights are kept packed (packing.pxi) from the beginning of a call to its end. Each
# thread has a desk (layers.pxi), whose blocks are its own where it writes them and the first desk's
# where it only reads: `seat` says which. Threads that share units or slices work on replicas of the
# weights; those of the first desk are what goes out.
# Rejected: one set of weights for threads that share units (see layers.pxi), desks made anew each
# call (a call of a small network takes less time than the allocations).

cdef enum:
    FEW_OUTPUTS = 1024  # outputs of a chunk that cost less to compute twice than to share
    SLICE_COSTS = 2 * CACHE_LINE // 8  # from the cost of a slice to that of the next


cdef struct Ledger:
    # What the first thread writes in every mini-batch; on lines that no other reads.
    double cost_sum, weight_sum, pending_weight
    Watch watch                # of what a team loses
    unsigned long long n_steps


cdef class Workspace:
    """The memory of an Engine; see the top of the file.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers, input first.
    activations : sequence of (str, float)
        Name and parameter of each layer's activation.
    loss : (str, float)
        Name and parameter of the cost.
    optimizer : str
        A key of OPTIMIZERS; "none" computes gradients only.
    rows : int
        Of the largest mini-batch that will come; more than CHUNK_ROWS pass in chunks.
    dropout : float
        Rate at which hidden activations are dropped in training.
    sparse : bool
        Whether X comes as CSR.
    input_gradient : bool
        Whether the derivative with respect to X is wanted: `jacobian`.
    """

    cdef readonly Py_ssize_t workspace_bytes
    cdef Net net
    cdef Layer *layers          # of the first desk, which owns the results
    cdef Desk *desks
    cdef place *places          # where the team meets
    cdef Py_ssize_t seats       # desks there are
    cdef real *probes           # of the distance of the cores: crossing.pxi
    cdef bint input_gradient
    cdef Ledger *ledger
    cdef double *slice_costs    # (2, slices) in turn, SLICE_COSTS apart
    cdef list buffers
    cdef Py_ssize_t n_penalties
    cdef bint matrix_units     # whether some layer is the matrix unit's

    def __init__(self, sizes, activations, loss, optimizer, Py_ssize_t rows, double dropout=0.0,
                 bint sparse=False, bint input_gradient=False):
        cdef Net *net = &self.net
        cdef Layer *layer
        cdef Py_ssize_t l, offset = 0, capacity = min(rows, CHUNK_ROWS)
        cdef bint hidden, whole_gradient
        net.n_layers = len(sizes) - 1
        self.buffers = []
        self.layers = <Layer *>self.block(net.n_layers * sizeof(Layer) // sizeof(real))
        net.loss, net.loss_parameter = LOSSES[loss[0]], loss[1]
        net.optimizer = OPTIMIZERS[optimizer]
        net.dropout = dropout
        net.dropout_threshold = <unsigned int>(dropout * 4294967296.0)
        net.sparse = sparse
        net.n_x = sizes[0]
        net.input_stride = block_stride(net.n_x)
        self.input_gradient = input_gradient
        for l in range(net.n_layers):
            layer = &self.layers[l]
            layer.n_in, layer.n_out = sizes[l], sizes[l + 1]
            layer.rows = layer.n_in + 1
            layer.vectors = vectors_of(layer.n_out)
            layer.stride = block_stride(layer.n_out)
            layer.offset = offset
            layer.size = layer.rows * layer.vectors * LANES
            layer.activation, layer.parameter = ACTIVATIONS[activations[l][0]], activations[l][1]
            layer.slight = layer.n_out <= min(LANES // 4, SLIGHT_UNITS)
            layer.parts = parts_of_units(layer.n_out) if l < net.n_layers - 1 else 1
            offset += layer.rows * layer.n_out
        net.n_parameters = offset
        net.turned = is_turned(net, self.layers, rows)
        net.sharing = preferred_sharing(net, self.layers, rows)
        for l in range(net.n_layers):
            layer = &self.layers[l]
            if net.sharing == BY_TASKS:
                layer.parts = 1
            layer.by_matrix_unit = (net.sharing == BY_TASKS and not input_gradient
                                    and trains_by_matrix_unit(layer.n_in, layer.n_out, rows))
            layer.first_penalty = self.n_penalties
            self.n_penalties += panels_of(layer.vectors) * (
                blocks_of(layer.rows, TASK_UNITS) if net.sharing == BY_TASKS
                else self.layers[l - 1].parts if l > 0 else 1)
        net.slices = 1
        if net.sharing == BY_SLICES:
            net.slices = turned_slices(net, rows) if net.turned else slices_of(rows)
            capacity += net.slices  # slices may differ by a row
        if net.sharing == BY_TASKS:  # rows of blocks that are packed begin where a vector may
            capacity = vectors_of(capacity) * LANES
        net.capacity = capacity
        net.few_inputs = net.sharing == BY_UNITS and capacity * net.n_x < MANY_INPUTS
        net.alone = (net.sharing != BY_TASKS
                     and capacity * self.layers[net.n_layers - 1].stride <= FEW_OUTPUTS)
        for l in range(net.n_layers):
            layer = &self.layers[l]
            hidden = l < net.n_layers - 1
            layer.weights = self.block(layer.size + (BEYOND if layer.by_matrix_unit else 0))
            if net.optimizer in (MOMENTUM, NESTEROV, ADAM):
                layer.velocity = self.block(layer.size)
            if net.optimizer == ADAM:
                layer.second = self.block(layer.size)
            whole_gradient = net.optimizer == NO_UPDATE or rows > CHUNK_ROWS or (
                sparse and l == 0)
            if net.sharing == BY_SLICES:
                layer.gradient = self.block(layer.size * net.slices)
            elif whole_gradient:
                layer.gradient = self.block(layer.size)
            if (l > 0 or input_gradient) and not layer.by_matrix_unit:
                layer.transposed = self.block(layer.n_out * vectors_of(layer.n_in) * LANES)
            layer.a = self.block(capacity * layer.stride)
            layer.z = layer.h = layer.a
            if not hidden or needs_preactivation(layer.activation, layer.parameter):
                layer.z = self.block(capacity * layer.stride)
            if hidden and dropout > 0:
                layer.h = self.block(capacity * layer.stride)
            layer.d = self.block(capacity * layer.stride)
            if layer.by_matrix_unit:
                self.matrix_units = True
                layer.cells = self.block(cell_numbers(layer.rows, capacity))
            elif net.sharing == BY_TASKS and layer.vectors > WIDE_PANELS * NV:
                layer.d_panels = self.block(capacity * layer.vectors * LANES)
                layer.slivers = self.block(capacity * layer.rows)
        self.ledger = <Ledger *>self.block(sizeof(Ledger) // sizeof(real))
        self.slice_costs = <double *>self.block(2 * net.slices * SLICE_COSTS * 8 // sizeof(real))
        self.seat(1)

    @property
    def n_steps(self):
        """Mini-batches done since the engine was made, or since the number that was set."""
        return self.ledger.n_steps

    @n_steps.setter
    def n_steps(self, unsigned long long n):
        self.ledger.n_steps = n

    cdef real *block(self, Py_ssize_t count) except NULL:
        """Zeros for `count` numbers on pairs of cache lines of their own: the processor fetches
        lines in pairs, and what another thread writes is not to come along."""
        cdef Py_ssize_t pair = 2 * CACHE_LINE
        cdef Py_ssize_t size = (count * sizeof(real) // pair + 3) * pair
        memory = np.zeros(size, np.uint8)
        self.buffers.append(memory)
        self.workspace_bytes += size
        cdef size_t address = <size_t>cnp.PyArray_DATA(memory)
        return <real *>((address + pair - 1) // pair * pair)

    cdef int seat(self, Py_ssize_t team) except -1:
        """Desks for a team of so many: memory the first time, and nothing after that."""
        cdef Py_ssize_t rank, l, before = self.seats, turns = 2 if self.net.n_layers == 2 else 1
        cdef Layer *layer
        cdef Layer *last
        cdef Desk *desk
        cdef Desk *desks
        cdef Net *net = &self.net
        cdef bint by_rows
        if team <= before:
            return 0
        desks = <Desk *>self.block(team * sizeof(Desk) // sizeof(real))
        if before > 0:
            memcpy(desks, self.desks, before * sizeof(Desk))
        self.desks = desks
        self.places = <place *>self.block(team * sizeof(place) // sizeof(real))
        for rank in range(before, team):
            desk = &self.desks[rank]
            desk.layers = self.layers
            if rank > 0:
                desk.layers = <Layer *>self.block(net.n_layers * sizeof(Layer) // sizeof(real))
            memcpy(desk.layers, self.layers, net.n_layers * sizeof(Layer))
            last = &desk.layers[net.n_layers - 1]
            desk.draft = self.block(draft_numbers(net, self.layers))
            desk.scratch = self.block(MOST_PARTS * JOIN_ROWS * WIDEST * LANES)
            if self.matrix_units:
                self.set_matrix_unit(desk, rank > 0)
            desk.own_input, desk.target = self.desks[0].own_input, self.desks[0].target
            desk.costs, desk.totals = self.desks[0].costs, self.desks[0].totals
            desk.masses, desk.weights = self.desks[0].masses, self.desks[0].weights
            desk.penalties = self.desks[0].penalties
            if net.turned:
                self.turn_desk(desk)
            if rank == 0 or net.sharing == BY_SLICES:
                desk.penalties = self.block(2 * self.n_penalties * LANES)
            # What a thread writes in blocks of its own: the processor fetches what lies ahead, and
            # would pull its neighbour's rows or columns away from the other core.
            by_rows = net.sharing == BY_SLICES and not net.turned
            if not net.sparse and (rank == 0 or by_rows or net.few_inputs
                                   or (rank == 1 and net.sharing == BY_UNITS)):
                desk.own_input = self.block(net.capacity * net.input_stride)
            if not net.sparse:
                desk.following = self.block(net.input_stride)
            if rank == 0 or by_rows or (net.alone and net.sharing == BY_UNITS):
                desk.target = self.block(net.capacity * last.stride)
                desk.costs = self.block(net.capacity)
                desk.totals = self.block(net.capacity)
                desk.masses = self.block(net.capacity)
                desk.weights = <double *>self.block(net.capacity * 8 // sizeof(real))
                if rank > 0:
                    self.own_blocks(last, True)
            if rank > 0 and (by_rows or net.sharing == BY_UNITS):
                for l in range(net.n_layers - 1):
                    # Of units that are shared all read dZ_l, l > 1.
                    self.own_blocks(&desk.layers[l], by_rows or l == 0)
            if rank > 0 and net.sharing != BY_TASKS and net.optimizer != NO_UPDATE:
                # Where units are shared, for the sake of the distance: see layers.pxi.
                for l in range(net.n_layers):
                    layer = &desk.layers[l]
                    layer.weights = self.block(layer.size)
                    if layer.velocity != NULL:
                        layer.velocity = self.block(layer.size)
                    if layer.second != NULL:
                        layer.second = self.block(layer.size)
                    if layer.transposed != NULL:
                        layer.transposed = self.block(layer.n_out * vectors_of(layer.n_in) * LANES)
        if team > 1:
            self.probes = self.block(team * probe_numbers())
        for l in range(net.n_layers if team > 1 and net.sharing == BY_SLICES else 0):
            layer = &self.layers[l]
            if layer.shared == NULL:
                layer.shared = self.block(2 * net.slices * layer.size)
            for rank in range(max(before, 1), team):
                layer = &self.desks[rank].layers[l]
                layer.shared = self.layers[l].shared
                layer.gradient = self.block(layer.size * blocks_of(net.slices, 2))
        if team > 1 and net.sharing == BY_UNITS:
            for l in range(1, net.n_layers):
                layer = &self.layers[l]
                layer.sums = self.block(turns * team * net.capacity * layer.stride)
                for rank in range(1, team):
                    self.desks[rank].layers[l].sums = layer.sums
        self.seats = team  # only now that all have their blocks: memory may run out before
        return 0

    cdef int own_blocks(self, Layer *layer, bint slopes) except -1:
        """Blocks of another desk's layer, where it has them for itself: with dZ, or without."""
        cdef Py_ssize_t size = self.net.capacity * layer.stride
        cdef bint aliases = layer.z == layer.a, drops = layer.h != layer.a
        layer.a = self.block(size)
        layer.z = layer.h = layer.a
        if not aliases:
            layer.z = self.block(size)
        if drops:
            layer.h = self.block(size)
        if slopes:
            layer.d = self.block(size)
        return 0

    cdef int turn_desk(self, Desk *desk) except -1:
        """The blocks of turned slices."""
        cdef Turned *turned = &desk.turned
        cdef TurnedLayer *layers = <TurnedLayer *>self.block(
            self.net.n_layers * sizeof(TurnedLayer) // sizeof(real))
        cdef Py_ssize_t l
        for l in range(self.net.n_layers):
            layers[l].n_in, layers[l].n_out = self.layers[l].n_in, self.layers[l].n_out
            layers[l].activation = self.layers[l].activation
            layers[l].parameter = self.layers[l].parameter
        describe(turned, layers, self.net.n_layers, self.net.capacity // self.net.slices)
        turned.loss, turned.loss_parameter = self.net.loss, self.net.loss_parameter
        for l in range(self.net.n_layers):  # packed in one panel
            layers[l].row = self.layers[l].vectors * LANES
        lay_out(turned, self.block(numbers_of(turned)))
        return 0

    cdef int set_matrix_unit(self, Desk *desk, bint apart) except -1:
        """What a thread needs for the matrix unit; apart from the first desk's."""
        cdef Py_ssize_t l, numbers = NV * blocks_of(self.net.capacity, CELL_DEPTH) * CELL
        cdef Layer *layer
        for l in range(self.net.n_layers):
            if self.layers[l].by_matrix_unit:
                layer = &desk.layers[l]
                numbers = max(numbers, cell_numbers(TASK_ROWS, max(layer.n_in, layer.n_out)))
                if apart:
                    layer.cells = self.block(cell_numbers(layer.rows, self.net.capacity))
                    layer.cells_phase = 0
        desk.matrix_unit = <MatrixUnit *>self.block(sizeof(MatrixUnit) // sizeof(real))
        desk.matrix_unit.prepared = self.block(numbers)
        desk.matrix_unit.fresh = self.block(4 * FRESH_CELLS * CELL)
        desk.matrix_unit.sums = self.block(TASK_ROWS * SQUARE)
        return 0

    # -- parameters in and out ------------------------------------------------------------------

    cdef void load(self, const real *flat) noexcept nogil:
        """The flat parameters into the first desk's weights, and their transposes where wanted."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.net.n_layers):
            layer = &self.layers[l]
            pack(0, layer.rows, layer.n_out, 0, panels_of(layer.vectors),
                 flat + layer.offset, layer.n_out, layer.weights, layer.rows)
            if self.net.transposing and layer.transposed != NULL:
                transpose_rows(0, layer.n_in, 0, layer.vectors, layer.n_in, layer.n_out,
                               layer.rows, layer.weights, layer.transposed, False)

    cdef void copy_own(self, const Desk *owner, const Desk *source,
                       const Desk *target) noexcept nogil:
        """The weights and moments that the owner has, from one desk to another, if they are apart:
        own columns of the first layer, own rows of the others."""
        cdef Py_ssize_t l, lo = 0, hi, first_panel, last_panel
        cdef const Layer *layer
        cdef Share below
        for l in range(self.net.n_layers):
            layer = &owner.layers[l]
            if source.layers[l].weights == target.layers[l].weights:
                return
            hi, first_panel, last_panel = layer.rows, layer.own.first_panel, layer.own.last_panel
            if l > 0:
                below = (layer - 1).own
                lo, hi = below.first_unit, below.last_unit + below.last
                first_panel, last_panel = 0, panels_of(layer.vectors)
            copy_block(&source.layers[l], &target.layers[l], lo, hi, first_panel, last_panel)
            renew_transposed(&self.net, &target.layers[l], lo, hi, first_panel, last_panel,
                             False)

    cdef bint save(self, real *flat) noexcept nogil:
        """The packed weights into the flat parameters, unless one is not finite."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.net.n_layers):
            if not all_finite(self.layers[l].size, self.layers[l].weights):
                return False
        for l in range(self.net.n_layers):
            layer = &self.layers[l]
            unpack(layer.rows, layer.n_out, layer.weights, flat + layer.offset)
        return True

    cdef void collect(self, Py_ssize_t team) noexcept nogil:
        """All weights and moments to the first desk, from those of a team that share units."""
        cdef Py_ssize_t rank
        for rank in range(1, team if self.net.sharing == BY_UNITS else 1):
            self.copy_own(&self.desks[rank], &self.desks[rank], self.desks)

    def get_moment(self, int which):
        """The velocity (1) or the second moment (2) as a flat array; None where there is none."""
        cdef Py_ssize_t l
        cdef Layer *layer
        if self.net.optimizer == NO_UPDATE or self.net.optimizer == SGD or (
                which == 2 and self.net.optimizer != ADAM):
            return None
        flat = np.empty(self.net.n_parameters, np.float32 if sizeof(real) == 4 else np.float64)
        for l in range(self.net.n_layers):
            layer = &self.layers[l]
            unpack(layer.rows, layer.n_out, layer.velocity if which == 1 else layer.second,
                   <real *>cnp.PyArray_DATA(flat) + layer.offset)
        return flat

    def set_moment(self, int which, cnp.ndarray flat not None):
        """The inverse of `get_moment`; `flat` is (n_parameters,), of the network's type."""
        cdef Py_ssize_t l
        cdef Layer *layer
        for l in range(self.net.n_layers):
            layer = &self.layers[l]
            pack(0, layer.rows, layer.n_out, 0, panels_of(layer.vectors),
                 <real *>cnp.PyArray_DATA(flat) + layer.offset, layer.n_out,
                 layer.velocity if which == 1 else layer.second, layer.rows)
