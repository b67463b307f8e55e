# One epoch, all epochs, all threads: the training loop, without Python.
#
# Design: the engine works in memory that was allocated once (workspace.pxi): nothing below a call
# allocates. A call trains any number of epochs and hands back the parameters at the end of each
# finite one. One parallel region spans all epochs of a call; small work runs on the caller's
# thread, with none. What a thread does in a mini-batch is in steps.pxi. A team that other programs
# keep waiting disbands between two mini-batches, and the first thread goes on alone
# (disbanding.pxi).
# While epochs run, subnormal numbers count as zero on the engine's threads, and there alone: a
# signal's handler finds the mode of before. The state of a call is the engine's: one at a time.
# Rejected: a region a product (a microsecond each), fetching the next mini-batch's rows while this
# one is computed (the memory bus is as busy: 2 % slower).

cimport cython
from cython.parallel cimport parallel, prange, threadid
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdlib cimport getenv, strtol
from libc.string cimport memcpy, memset
cimport numpy as cnp

import numpy as np

cdef extern from "threads.h" nogil:
    int team_size()
    int team_limit()
    ctypedef struct place:
        pass
    void arrive(place *own)
    void offer(place *own, long long n)
    long long claim(place *team, int owner, int rank)
    double await_team(const place *team, int size, int rank)
    unsigned long long told(const unsigned long long *word)
    void tell(unsigned long long *word, unsigned long long value)
    double seconds_now()
    double seconds_running()

include "functions.pxi"
include "activations.pxi"
include "costs.pxi"
include "updates.pxi"
include "products.pxi"
include "packing.pxi"
include "dots.pxi"
include "random.pxi"
include "data.pxi"
include "crossing.pxi"
include "turning.pxi"
include "turned.pxi"
include "layers.pxi"
include "forward.pxi"
include "backward.pxi"
include "matrix_unit.pxi"
include "tasks.pxi"
include "sharing.pxi"
include "disbanding.pxi"
include "workspace.pxi"
include "steps.pxi"

cnp.import_array()

cdef enum:
    OPERATIONS_A_LOOK = 20_000_000  # between two at pending signals: some milliseconds

cdef extern from *:
    """
    #define MOST_SHUFFLED 0xFFFFFFFFLL  /* examples: numbers of 32 bits are drawn */
    """
    const long long MOST_SHUFFLED


@cython.final
cdef class Engine(Steps):
    """Training, cost and gradient of a network in a workspace; see the top of the file.

    Parameters: those of Workspace.
    """

    cdef readonly Py_ssize_t team  # threads that the last training began with
    # The call under way.
    cdef object own_order
    cdef bint shuffled
    cdef bitgen_t *generator
    cdef real *flat
    cdef double *epoch_costs
    cdef double *epoch_seconds
    cdef const double *rates
    cdef Py_ssize_t epochs, epochs_done
    cdef double target_cost, last_cost, clock
    cdef double looked          # when a team last measured how far apart its cores are
    cdef bint looking           # whether it does before this epoch
    cdef bint stopping
    cdef bint regrouping        # whether the epochs that are left are another team's

    @property
    def past_caches(self):
        """Whether what other threads read is stored past the caches: as a team has measured, or as
        was set."""
        return self.net.past_caches

    @past_caches.setter
    def past_caches(self, bint chosen):
        self.net.past_caches = chosen
        self.looked = INFINITY  # and never again

    # -- all mini-batches ------------------------------------------------------------------------

    cdef void begin_epoch(self) noexcept nogil:
        self.clock = seconds_now()
        self.looking = STORES_PAST_CACHES and self.clock - self.looked > LOOK_SECONDS
        self.ledger.cost_sum = self.ledger.weight_sum = self.ledger.pending_weight = 0
        if self.generator != NULL:
            shuffle(self.generator, self.count, <long long *>self.order)
        self.lap = self.clock
        self.book(self.desks, ORDER)

    cdef void end_epoch(self, const Desk *desk, Py_ssize_t team) noexcept nogil:
        cdef double now
        cdef Watch *watch = &self.ledger.watch
        self.collect(team)
        self.add_penalties(desk)
        if self.ending == INTERRUPT:
            self.save(self.flat)
            self.stopping = True
            return
        self.last_cost = 0
        if self.ledger.weight_sum > 0:
            self.last_cost = self.ledger.cost_sum / self.ledger.weight_sum
        if self.net.optimizer != NO_UPDATE and self.ending != DIVERGENCE and not (
                isfinite(self.last_cost) and self.save(self.flat)):
            self.ending = DIVERGENCE
        if self.ending == DIVERGENCE:
            self.stopping = True
            return
        now = seconds_now()
        if team > 1:
            # A thread that others keep from its processor neither works nor waits.
            if hindered(watch, now, idle(watch, now)):
                disband(watch, now)
                self.regrouping = True
            elif now - watch.began > WINDOW:
                look_anew(watch, now)
        elif self.team > 1:
            self.regrouping = 0 < watch.alone_until <= now
        self.epoch_costs[self.epochs_done] = self.last_cost
        self.epoch_seconds[self.epochs_done] = now - self.clock
        self.epochs_done += 1
        if self.last_cost <= self.target_cost:
            self.ending = TARGET_COST
            self.stopping = True
        elif self.epochs_done == self.epochs:
            self.stopping = True

    cdef void look_at_distance(self, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """Choose how to store what others read."""
        cdef double took = line_seconds(self.places, rank, team, self.probes)
        if rank == 0:
            self.net.past_caches = took > FAR_LINE_SECONDS
            self.looked = self.clock
        self.wait(&self.desks[rank], rank, team)

    cdef void train_team(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """Epochs of a call, on one thread of a team, until it is to be another team's turn."""
        cdef Py_ssize_t at
        cdef int taken
        desk.step = self.ledger.n_steps
        desk.turn = 0
        if rank == 0:
            self.begin_epoch()
        self.wait(desk, rank, team)
        while True:
            if self.looking and team > 1:
                self.look_at_distance(rank, team)
            at = 0
            while at < self.count:
                taken = self.step(desk, rank, team, at, min(self.batch_size, self.count - at),
                                  self.rates[self.epochs_done])
                if taken == STOPPED:
                    break
                elif taken == DONE:
                    at += self.batch_size
                elif rank > 0:
                    return
                else:  # alone from here on, this step once more
                    self.collect(team)
                    team = 1
                    disband(&self.ledger.watch, seconds_now())
                    self.take_place(desk, 0, 1)
            self.wait(desk, rank, team)
            if rank == 0:
                self.end_epoch(desk, team)
                if not (self.stopping or self.regrouping):
                    self.begin_epoch()
            self.wait(desk, rank, team)
            if self.stopping or self.regrouping:
                return

    cdef void evaluate_team(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """The costs of all examples, without dropout, penalty or update."""
        cdef Py_ssize_t at = 0, n, lo, hi, other
        cdef double total
        cdef bint weighted = self.data.weights != NULL
        cdef const long long *chunk
        cdef const Layer *last = &desk.layers[self.net.n_layers - 1]
        while at < self.count:
            n = min(self.net.capacity, self.count - at)
            lo = part_of(n, rank, team)
            hi = part_of(n, rank + 1, team)
            chunk = self.order + at
            if not self.net.sparse:
                self.data.gather(chunk, lo, hi - lo, desk.input + lo * self.net.input_stride,
                                 self.net.input_stride)
            gather_targets(self.data, desk, last, lo, hi, chunk)
            self.forward(desk, lo, hi, False, chunk, 0)
            compare(&self.net, desk, weighted, lo, hi, 0)
            self.wait(desk, rank, team)
            if rank == 0:
                total = 0
                for other in range(team):
                    total = add_costs(total, &self.desks[other], part_of(n, other, team),
                                      part_of(n, other + 1, team))
                self.ledger.cost_sum += total
            self.wait(desk, rank, team)
            at += n

    cdef void take_place(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """One of a team that shares the columns, or with all of them."""
        cdef Py_ssize_t l
        desk.rank, desk.team, desk.ahead = rank, team, False
        desk.input = self.desks[0].own_input if self.net.shared_input else desk.own_input
        for l in range(self.net.n_layers):
            desk.layers[l].own = share_of(&desk.layers[l], rank, team)
            desk.layers[l].dotted = desk.layers[l].slight and l > 0 and self.net.transposing

    cdef void work(self, bint training, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """One thread's part of a call; a team smaller than was asked for is as good."""
        cdef unsigned long long mode = flush_subnormals()
        cdef Desk *desk = &self.desks[rank]
        if rank == 0:
            self.mode = mode
        if training and self.net.sharing != BY_SLICES:
            self.take_place(desk, rank, team)
        else:
            self.take_place(desk, 0, 1)
        self.copy_own(desk, self.desks, desk)
        if training:
            self.train_team(desk, rank, team)
        else:
            self.evaluate_team(desk, rank, team)
        restore_subnormals(mode)
        if rank == 0:
            self.ledger.watch.left = seconds_now()

    cdef void run(self, bint training, Py_ssize_t team) noexcept nogil:
        """A call on a team; after one that disbanded, alone for a while, then together again."""
        cdef int before
        cdef double now
        cdef Watch *watch = &self.ledger.watch
        while True:
            memset(self.places, 0, self.seats * sizeof(place))
            before = watch.disbandings
            tell(&self.disband_at, NEVER)
            self.regrouping = False
            now = seconds_now()
            if team == 1 or now < watch.alone_until:
                self.work(training, 0, 1)
            else:
                look_anew(watch, now)
                with parallel(num_threads=<int>team):
                    self.work(training, threadid(), team_size())
                now = seconds_now()
                if watch.disbandings == before and lost_much(watch, now):
                    disband(watch, now)
                elif watch.disbandings == before:
                    watch.disbandings = 0
                    watch.alone_until = 0
            if self.stopping or not training:
                return

    # -- what Python calls ----------------------------------------------------------------------

    cdef int begin(self, Data data, order, generator) except -1:
        """The examples to visit: `order`, or all of them, shuffled afresh each epoch by `generator`
        where it is given."""
        cdef Py_ssize_t i
        cdef long long *own
        if generator is not None and data.m > MOST_SHUFFLED:
            raise ValueError(f"X has {data.m} examples; expected at most {MOST_SHUFFLED}, or "
                             "shuffle=False.")
        self.data = data
        self.generator = NULL
        self.stopping = False
        self.ending = EPOCHS
        self.error = None
        tell(&self.stop_at, NEVER)
        self.ledger.cost_sum = self.ledger.weight_sum = self.ledger.pending_weight = 0
        self.epochs_done = 0
        if order is None:
            if self.own_order is None or cnp.PyArray_DIM(self.own_order, 0) != data.m:
                self.own_order = np.empty(data.m, np.int64)
                self.shuffled = True
            if generator is None and self.shuffled:
                own = <long long *>cnp.PyArray_DATA(self.own_order)
                for i in range(data.m):
                    own[i] = i
            self.shuffled = generator is not None
            if generator is not None:
                self.generator = <bitgen_t *>PyCapsule_GetPointer(generator.capsule,
                                                                  "BitGenerator")
            order = self.own_order
        else:
            self.own_order = None
        self.count = len(order)
        self.order = <const long long *>cnp.PyArray_DATA(order)
        return 0

    def train(self, cnp.ndarray parameters not None, Data data not None, Py_ssize_t batch_size,
              cnp.ndarray rates not None, *, order=None, generator=None, double target_cost=-1,
              double momentum=0, double beta_2=0, double epsilon=0, double l1=0, double l2=0,
              bint over_batch=False, unsigned long long dropout_seed=0, int n_threads=1,
              bint fewer=False):
        """Train len(rates) epochs at those learning rates; `parameters` holds those after each.

        On `n_threads`, or on fewer where `fewer` allows it and they are expected to be as quick.
        Returns (costs, seconds, ending, last cost, error): arrays of the finished epochs, one of
        ENDINGS, and what a signal's handler raised, if that is not a KeyboardInterrupt.
        """
        cdef Py_ssize_t team = most_useful(&self.net, self.layers, n_threads)
        cdef cnp.npy_intp epochs = len(rates)
        costs = cnp.PyArray_EMPTY(1, &epochs, cnp.NPY_DOUBLE, 0)
        seconds = cnp.PyArray_EMPTY(1, &epochs, cnp.NPY_DOUBLE, 0)
        self.begin(data, order, generator)
        if fewer:
            team = worthwhile(&self.net, self.layers, batch_size,
                              epochs * blocks_of(self.count, batch_size), team, data.plain)
        else:
            self.ledger.watch.alone_until = 0
        self.team = team
        self.seat(team)
        self.net.shared_input = shares_input(&self.net, team, data.plain)
        self.net.long_rows = has_long_rows(&self.net)
        self.net.transposing = not self.net.turned and (
            self.input_gradient or batch_size > FEW_ROWS)
        self.flat = <real *>cnp.PyArray_DATA(parameters)
        self.epoch_costs = <double *>cnp.PyArray_DATA(costs)
        self.epoch_seconds = <double *>cnp.PyArray_DATA(seconds)
        self.rates = <const double *>cnp.PyArray_DATA(rates)
        self.epochs, self.batch_size = epochs, batch_size
        self.target_cost, self.momentum, self.beta_2 = target_cost, momentum, beta_2
        self.epsilon, self.l1, self.l2, self.over_batch = epsilon, l1, l2, over_batch
        self.net.dropout_seed = dropout_seed
        self.signal_period = max(1, min(64, OPERATIONS_A_LOOK
                                        // (6 * self.net.n_parameters * batch_size)))
        with nogil:
            self.load(self.flat)
            self.run(True, team)
        self.data = None
        error, self.error = self.error, None
        n = self.epochs_done
        if n < epochs:
            costs, seconds = costs[:n], seconds[:n]
        return costs, seconds, ENDINGS[self.ending], self.last_cost, error

    def gradient(self, cnp.ndarray parameters not None, Data data not None,
                 cnp.ndarray gradient not None, *, double l1=0, double l2=0, int n_threads=1):
        """The mean cost plus penalty of all examples; its gradient goes into `gradient`."""
        cdef double rate = 0, cost, seconds
        cdef Py_ssize_t l, team
        cdef Layer *layer
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        cdef real *out = <real *>cnp.PyArray_DATA(gradient)
        team = most_useful(&self.net, self.layers, n_threads)
        self.begin(data, None, None)
        self.team = team
        self.seat(team)
        self.net.shared_input = shares_input(&self.net, team, data.plain)
        self.net.long_rows = has_long_rows(&self.net)
        self.net.transposing = self.input_gradient or data.m > FEW_ROWS
        self.epoch_costs, self.epoch_seconds, self.rates = &cost, &seconds, &rate
        self.epochs, self.batch_size, self.target_cost = 1, data.m, -1
        self.l1, self.l2, self.over_batch, self.signal_period = l1, l2, False, 1 << 62
        with nogil:
            if self.net.sparse:
                memset(self.layers[0].gradient, 0, self.layers[0].size * sizeof(real))
            self.load(flat)
            self.run(True, team)
            for l in range(self.net.n_layers):
                layer = &self.layers[l]
                unpack(layer.rows, layer.n_out, layer.gradient, out + layer.offset)
        self.data = None
        return self.last_cost

    def evaluate(self, cnp.ndarray parameters not None, Data data not None, int n_threads=1):
        """The mean cost of all examples, without penalty."""
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        cdef Py_ssize_t team
        self.begin(data, None, None)
        team = min(n_threads, self.count)
        self.seat(team)
        self.net.transposing, self.net.shared_input, self.net.long_rows = False, True, False
        with nogil:
            self.load(flat)
            self.run(False, team)
        self.data = None
        return self.ledger.cost_sum / data.total_weight if data.total_weight > 0 else 0.0

    def jacobian(self, cnp.ndarray parameters not None, Data data not None,
                 cnp.ndarray out not None):
        """dA_L/dX of every example into `out` (m, n_y, n_x): one backward pass an output."""
        cdef Net *net = &self.net
        cdef Desk *desk
        cdef Layer *last = &self.layers[net.n_layers - 1]
        cdef Py_ssize_t at = 0, n, s, k, j, l
        cdef real *flat = <real *>cnp.PyArray_DATA(parameters)
        cdef real *jacobian = <real *>cnp.PyArray_DATA(out)
        cdef real *d
        cdef const real *a
        self.begin(data, None, None)
        net.transposing, net.shared_input, net.long_rows = True, False, False
        desk = self.desks
        self.take_place(desk, 0, 1)
        with nogil:
            self.load(flat)
            while at < self.count:
                n = min(net.capacity, self.count - at)
                self.data.gather(NULL, at, n, desk.input, net.input_stride)
                self.forward(desk, 0, n, False, NULL, 0)
                if last.activation == SOFTMAX:
                    softmax_rows(n, last.n_out, last.stride, last.z, last.a, desk.costs,
                                 desk.totals)
                else:
                    activate(last.activation, last.parameter, n, last.vectors, last.stride, last.z,
                             last.a)
                for k in range(last.n_out):
                    for s in range(n):
                        d = last.d + s * last.stride
                        a = last.a + s * last.stride
                        for j in range(last.n_out):
                            if last.activation == SOFTMAX:
                                d[j] = a[k] * ((j == k) - a[j])
                            else:
                                d[j] = j == k
                    if last.activation != SOFTMAX:
                        differentiate(last.activation, last.parameter, n, last.vectors,
                                      last.stride, last.z, last.a, last.d)
                    for l in range(net.n_layers - 1, 0, -1):
                        backward(net, desk, l, desk.layers[l - 1].own, 0, n, 0, nowhere())
                    product(n, vectors_of(net.n_x), 0, panels_of(vectors_of(net.n_x)),
                            self.layers[0].n_out, self.layers[0].d, self.layers[0].stride,
                            self.layers[0].transposed, 0, self.layers[0].n_out, 0, FROM_ZERO, False,
                            desk.input, net.input_stride, nowhere())
                    for s in range(n):
                        memcpy(jacobian + ((at + s) * last.n_out + k) * net.n_x,
                               desk.input + s * net.input_stride, net.n_x * sizeof(real))
                at += n
        self.data = None


include "narrow.pxi"
include "inference.pxi"
include "functions_of_arrays.pxi"
