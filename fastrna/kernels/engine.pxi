# One step, one epoch, all epochs, all threads: the training loop, without Python.
#
# Design: the engine works in memory that was allocated once (workspace.pxi): nothing below a call
# allocates. A call trains any number of epochs and hands back the parameters at the end of each
# finite one. One parallel region spans all epochs of a call; small work runs on the caller's
# thread, with none. Each thread of the team has a desk (layers.pxi), and the team shares a mini-
# batch in one of three ways, by the network's sizes and the batch alone (sharing.pxi):
#   - by columns (`column_step`): each thread owns units, and the weights on both sides of them.
#     What crosses are sums and slopes, batch by units; a network with one hidden layer meets once.
#   - by rows (`sliced_step`), where a mini-batch has many rows and the network few weights: the
#     rows are cut in slices, by their number alone; each slice has a gradient of its own, summed
#     where its rows are, and every thread adds all of them up and updates a replica of the weights.
#     Of these two, whichever lets less cross between the cores. A network so narrow that rows of
#     units would leave lanes empty has one slice or more, an example a lane (turned.pxi). But
#   - by tasks (`tasks_step`), in place of columns, where the arithmetic of a mini-batch takes far
#     longer than meetings and crossings: phase by phase, each thread what is next (tasks.pxi).
# Whichever way, each sum has one order, and the result is the same bit for bit for any number of
# threads. What one thread reads and another writes again in the next mini-batch exists twice, in
# turn, so that a step has as few meetings as it has exchanges. A team that other programs keep
# waiting disbands between two mini-batches, and the first thread goes on alone (disbanding.pxi). A
# batch larger than `capacity` passes in chunks whose gradients add up before the update, which
# bounds the workspace and keeps a chunk's activations in cache.
# A mini-batch of one needs no gradient at all: dW = a^T dz is formed as it is applied, and the
# first layer's pass over its weights, which lie beyond L1, computes the next example's product as
# well: in the order of `tiles`, so to the same bits.
# While the engine runs, subnormal numbers count as zero on its threads, and there alone.
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
    double seconds_now()
    double seconds_running()

include "functions.pxi"
include "activations.pxi"
include "costs.pxi"
include "updates.pxi"
include "products.pxi"
include "random.pxi"
include "data.pxi"
include "turned.pxi"
include "layers.pxi"
include "tasks.pxi"
include "sharing.pxi"
include "disbanding.pxi"
include "workspace.pxi"

cnp.import_array()

cdef extern from "math.h" nogil:
    bint isfinite(double x)

cdef extern from *:
    """
    #define NEVER (~0ULL)
    """
    const unsigned long long NEVER


cdef enum:
    OPERATIONS_A_LOOK = 20_000_000  # between two at pending signals: some milliseconds


cdef enum Ending:
    EPOCHS, TARGET_COST, INTERRUPT, DIVERGENCE

ENDINGS = {EPOCHS: "epochs", TARGET_COST: "target_cost", INTERRUPT: "interrupt",
           DIVERGENCE: "divergence"}


cdef enum Taken:
    DONE, STOPPED, DISBANDED   # what became of a step; the last two before anything changed


@cython.final
cdef class Engine(Workspace):
    """Training, cost and gradient of a network in a workspace; see the top of the file.

    Parameters: those of Workspace.
    """

    cdef readonly Py_ssize_t team  # threads that the last training began with
    cdef public bint timed
    cdef double phase_times[N_PHASES]
    cdef double lap
    # The call under way.
    cdef Data data
    cdef object own_order
    cdef bint shuffled
    cdef const long long *order
    cdef bitgen_t *generator
    cdef real *flat
    cdef double *epoch_costs
    cdef double *epoch_seconds
    cdef const double *rates
    cdef Py_ssize_t count, epochs, epochs_done, batch_size, signal_period
    cdef double target_cost, momentum, beta_2, epsilon, l1, l2
    cdef double last_cost, clock
    cdef bint over_batch, stopping
    cdef bint regrouping        # whether the epochs that are left are another team's
    cdef unsigned long long stop_at     # the step that is not to be taken
    cdef unsigned long long disband_at  # the step from which on the first thread works alone
    cdef int ending
    cdef object error

    def phase_seconds(self):
        """Seconds of each phase on the first thread while `timed` was set; begins again at 0."""
        found = {name: self.phase_times[phase] for phase, name in PHASES.items()}
        memset(self.phase_times, 0, sizeof(self.phase_times))
        return found

    # -- one mini-batch --------------------------------------------------------------------------

    cdef inline void book(self, const Desk *desk, int phase) noexcept nogil:
        """The time since the last call goes to `phase`, where the first thread is timed."""
        cdef double now
        if self.timed and desk == self.desks:
            now = seconds_now()
            self.phase_times[phase] += now - self.lap
            self.lap = now

    cdef inline void wait(self, const Desk *desk, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """Until the whole team is here."""
        if team > 1:
            arrive(&self.places[rank])
            self.wait_for_others(desk, rank, team)

    cdef inline void wait_for_others(self, const Desk *desk, Py_ssize_t rank,
                                     Py_ssize_t team) noexcept nogil:
        """The other half of `wait`, after `arrive`."""
        cdef double waited = await_team(self.places, <int>team, <int>rank)
        if rank == 0:
            self.ledger.watch.waited += waited
            self.book(desk, WAIT)

    cdef void gather(self, Desk *desk, Py_ssize_t count, const long long *chunk) noexcept nogil:
        """All rows of the chunk into the desk's input, or together into the one they share."""
        cdef Py_ssize_t lo = 0, hi = count, stride = self.net.input_stride
        cdef bint together = desk.team > 1 and self.net.shared_input
        if self.net.sparse or desk.ahead:
            return
        if together:
            lo = count * desk.rank // desk.team
            hi = count * (desk.rank + 1) // desk.team
            self.wait(desk, desk.rank, desk.team)  # nobody reads the last mini-batch any more
        self.data.gather(chunk, lo, hi - lo, desk.input + lo * stride, stride)
        if together:
            self.book(desk, GATHER)
            self.wait(desk, desk.rank, desk.team)

    cdef void forward(self, Desk *desk, Py_ssize_t lo, Py_ssize_t hi, bint training,
                      const long long *chunk, Py_ssize_t first_row) noexcept nogil:
        """Z_l = A_{l-1} W_l + b_l, A_l = g_l(Z_l) of all layers for rows lo to hi of the chunk: the
        hidden ones' own columns; of the last the sums, or where they are shared this desk's part.
        """
        cdef Net *net = &self.net
        cdef Py_ssize_t l
        cdef Layer *layer
        first_layer(net, desk, self.data, lo, hi, chunk)
        for l in range(1, net.n_layers):
            layer = &desk.layers[l]
            activate_units(net, desk, l - 1, (layer - 1).own, lo, hi, training, first_row)
            if desk.team == 1:
                product_of_parts(desk, layer - 1, layer, hi - lo,
                                 (layer - 1).h + lo * (layer - 1).stride,
                                 layer.z + lo * layer.stride)
                continue
            product_of_parts(desk, layer - 1, layer, hi, (layer - 1).h,
                             self.sums_of(desk, layer) + desk.rank * net.capacity * layer.stride)
            self.book(desk, FORWARD)
            self.wait(desk, desk.rank, desk.team)
            if l < net.n_layers - 1:
                add_shares(desk, layer - 1, layer, self.sums_of(desk, layer), net.capacity, lo, hi,
                           layer.own.first_vector, layer.own.last_vector)

    cdef real *sums_of(self, const Desk *desk, const Layer *layer) noexcept nogil:
        """The shares of this step: where only they are exchanged they exist twice, in turn."""
        if self.net.n_layers == 2:
            return layer.sums + desk.turn * self.seats * self.net.capacity * layer.stride
        return layer.sums

    cdef Update update_of(self, const Desk *desk, double rate, double factor) noexcept nogil:
        """The settings of one step."""
        cdef Update u
        u.optimizer = self.net.optimizer
        u.learning_rate = <real>rate
        if u.optimizer == ADAM:
            u.learning_rate = adam_rate(rate, self.momentum, self.beta_2, desk.step + 1)
        u.momentum, u.beta_2 = <real>self.momentum, <real>self.beta_2
        u.epsilon = <real>self.epsilon
        u.l1 = <real>(self.l1 * factor if self.over_batch else self.l1)
        u.l2 = <real>(self.l2 * factor if self.over_batch else self.l2)
        u.penalised = u.l1 != 0 or u.l2 != 0
        return u

    cdef real *penalties_of(self, const Desk *desk, Py_ssize_t l) noexcept nogil:
        """Where this step's penalties of a layer go, in turn."""
        return desk.penalties + ((desk.step % 2) * self.n_penalties
                                 + self.layers[l].first_penalty) * LANES

    cdef int step(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t first,
                  Py_ssize_t count, double rate) noexcept nogil:
        """One mini-batch: `count` examples from place `first` of the order."""
        cdef double weight = 0, factor
        cdef Update u
        cdef Py_ssize_t s
        cdef int taken
        if self.data.weights == NULL:
            weight = count
        else:
            for s in range(first, first + count):
                weight += self.data.weights[self.order[s]]
        factor = 1 / weight if weight > 0 else 0
        u = self.update_of(desk, rate, factor)
        if self.net.sharing == BY_SLICES:
            taken = self.sliced_step(desk, rank, team, first, count, weight, factor, &u)
        elif self.net.sharing == BY_TASKS:
            taken = self.tasks_step(desk, first, count, weight, factor, &u)
        else:
            taken = self.column_step(desk, first, count, weight, factor, &u)
        if taken == DONE:
            desk.step += 1
        return taken

    cdef inline int decided(self, const Desk *desk, Py_ssize_t team) noexcept nogil:
        """What the first thread has decided of this step. All know it once they have met in it, and
        until then nothing has changed but blocks that are computed anew."""
        if desk.step >= self.stop_at:
            return STOPPED
        if desk.step >= self.disband_at and team > 1:
            return DISBANDED
        return DONE

    cdef int column_step(self, Desk *desk, Py_ssize_t first, Py_ssize_t count, double weight,
                         double factor, const Update *u) noexcept nogil:
        """One mini-batch, each desk its own units."""
        cdef int decision
        cdef Net *net = &self.net
        cdef Parts chunks = parts_of(count, net.capacity)
        cdef Py_ssize_t c, n, at = first, l, lo, hi
        cdef Layer *last = &desk.layers[net.n_layers - 1]
        cdef bint weighted = self.data.weights != NULL, ends
        cdef const long long *chunk
        for c in range(chunks.number):
            n = chunks.size + (c < chunks.larger)
            ends = c == chunks.number - 1
            chunk = self.order + at
            lo, hi = 0, n
            if desk.team > 1 and not net.alone:
                lo = n * desk.rank // desk.team
                hi = n * (desk.rank + 1) // desk.team
            self.gather(desk, n, chunk)
            gather_targets(self.data, desk, last, lo, hi, chunk)
            self.book(desk, GATHER)
            self.forward(desk, 0, n, True, chunk, at - first)
            if c == 0:
                decision = self.decided(desk, desk.team)
                if decision != DONE:
                    return decision
                if desk.rank == 0:
                    self.add_penalties(desk)
            if desk.team > 1:
                add_shares(desk, last - 1, last, self.sums_of(desk, last), net.capacity, lo, hi, 0,
                           last.vectors)
            self.book(desk, FORWARD)
            compare(net, desk, weighted, lo, hi, factor)
            self.book(desk, COST)
            if desk.team > 1 and not net.alone:
                self.wait(desk, desk.rank, desk.team)
            if desk.rank == 0:
                self.ledger.cost_sum += add_costs(0, desk, 0, n)
                if ends:
                    self.finish_step(desk, weight, u.penalised)
            self.book(desk, COST)
            for l in range(net.n_layers - 1, -1, -1):
                if l > 0:
                    backward(net, desk, l, desk.layers[l - 1].own, 0, n, at - first,
                             nowhere())
                    if l > 1 and desk.team > 1:
                        arrive(&self.places[desk.rank])
                    self.book(desk, BACKWARD)
                elif count == 1 and not net.sparse:
                    self.look_ahead(desk, at)
                descend(net, desk, self.data, l, n, chunk, c == 0, ends, u,
                        self.penalties_of(desk, l))
                self.book(desk, UPDATE)
                if l > 1 and desk.team > 1:
                    self.wait_for_others(desk, desk.rank, desk.team)
            if desk.ahead:
                memcpy(desk.input, desk.following, (net.n_x + 1) * sizeof(real))
            desk.turn ^= 1
            at += n
        return DONE

    cdef void begin_phase(self, const Desk *desk, Stage *stage, int phase,
                          Py_ssize_t l) noexcept nogil:
        """Offer the tasks of a phase, and wait until all have finished the one before."""
        stage.phase, stage.l = phase, l
        offer(&self.places[desk.rank],
              tasks_of(&self.net, desk.layers, stage, desk.rank, desk.team))
        self.wait(desk, desk.rank, desk.team)

    cdef void finish_phase(self, const Desk *desk, const Stage *stage) noexcept nogil:
        """Own tasks, then what others have left."""
        cdef Py_ssize_t other, owner
        cdef long long task
        for other in range(desk.team):
            owner = (desk.rank + other) % desk.team
            task = claim(self.places, <int>owner, <int>desk.rank)
            while task >= 0:
                do_task(&self.net, desk, self.data, stage, owner, desk.team, task)
                task = claim(self.places, <int>owner, <int>desk.rank)
        self.book(desk, stage.phase)

    cdef void perform(self, const Desk *desk, Stage *stage, int phase, Py_ssize_t l) noexcept nogil:
        """A whole phase: of one layer, where it has one."""
        self.begin_phase(desk, stage, phase, l)
        self.finish_phase(desk, stage)

    cdef int tasks_step(self, Desk *desk, Py_ssize_t first, Py_ssize_t count, double weight,
                        double factor, const Update *u) noexcept nogil:
        """One mini-batch, phase by phase."""
        cdef Net *net = &self.net
        cdef Parts chunks = parts_of(count, net.capacity)
        cdef Py_ssize_t c, l, at = first
        cdef int decision
        cdef Stage stage
        stage.update, stage.factor, stage.weighted = u[0], factor, self.data.weights != NULL
        stage.penalties = self.penalties_of(desk, 0)
        for c in range(chunks.number):
            stage.rows = chunks.size + (c < chunks.larger)
            stage.chunk, stage.first_row = self.order + at, at - first
            stage.first, stage.last = c == 0, c == chunks.number - 1
            self.begin_phase(desk, &stage, GATHER, 0)
            if c == 0:
                decision = self.decided(desk, desk.team)
                if decision != DONE:  # nobody has a task in hand yet
                    return decision
                if desk.rank == 0:
                    self.add_penalties(desk)
            self.finish_phase(desk, &stage)
            for l in range(net.n_layers):
                self.perform(desk, &stage, FORWARD, l)
            self.perform(desk, &stage, COST, 0)
            for l in range(net.n_layers - 1, 0, -1):
                self.perform(desk, &stage, BACKWARD, l)
            self.perform(desk, &stage, UPDATE, 0)
            if desk.rank == 0:
                self.ledger.cost_sum += add_costs(0, desk, 0, stage.rows)
                if stage.last:
                    self.finish_step(desk, weight, u.penalised)
            at += stage.rows
        return DONE

    cdef void look_ahead(self, Desk *desk, Py_ssize_t at) noexcept nogil:
        """Gather the example after a mini-batch of one, if that is one as well."""
        desk.ahead = (self.batch_size == 1 and at + 1 < self.count
                      and not (desk.team > 1 and self.net.shared_input))
        if desk.ahead:
            self.data.gather(self.order, at + 1, 1, desk.following, self.net.input_stride)

    cdef void slice_of_rows(self, Desk *desk, Py_ssize_t at, Py_ssize_t end, Py_ssize_t first,
                            Py_ssize_t lo, Py_ssize_t room, double factor, const Update *u,
                            Py_ssize_t slice, Py_ssize_t wanted_slice) noexcept nogil:
        """The cost of the examples from place `at` to `end` of the order, in a mini-batch that
        begins at `first`, and their gradient, as those of a slice; in `room` rows of the blocks,
        from `lo` on. The gradient of the wanted slice, if any, is fetched meanwhile."""
        cdef Net *net = &self.net
        cdef Py_ssize_t c, n, l
        cdef double *cost = &self.slice_costs[slice * 8]
        cdef Parts chunks = parts_of(end - at, room)
        cdef Layer *layer
        cdef const Layer *last = &desk.layers[net.n_layers - 1]
        cdef const long long *chunk
        cdef Region wanted
        cost[0] = 0
        for c in range(chunks.number):
            n = chunks.size + (c < chunks.larger)
            chunk = self.order + at - lo
            self.data.gather(chunk, lo, n, desk.input + lo * net.input_stride, net.input_stride)
            gather_targets(self.data, desk, last, lo, lo + n, chunk)
            self.book(desk, GATHER)
            self.forward(desk, lo, lo + n, True, chunk, at - first - lo)
            self.book(desk, FORWARD)
            compare(net, desk, self.data.weights != NULL, lo, lo + n, factor)
            cost[0] = add_costs(cost[0], desk, lo, lo + n)
            self.book(desk, COST)
            for l in range(net.n_layers - 1, -1, -1):
                layer = &desk.layers[l]
                gradient_tiles(net, layer, 0, layer.rows, 0, panels_of(layer.vectors), lo, n,
                               desk.input if l == 0 else (layer - 1).h,
                               net.input_stride if l == 0 else (layer - 1).stride,
                               layer.gradient + slice * layer.size, c == 0, False, u, NULL)
                self.book(desk, UPDATE)
                if l > 0:
                    wanted = nowhere()
                    if wanted_slice >= 0 and c == chunks.number - 1:
                        wanted.at = <const char *>(layer.gradient + wanted_slice * layer.size)
                        wanted.bytes = layer.size * sizeof(real)
                    backward(net, desk, l, desk.layers[l - 1].own, lo, lo + n, at - first - lo,
                             wanted)
                    self.book(desk, BACKWARD)
            at += n

    cdef void turned_slice(self, Desk *desk, Py_ssize_t at, Py_ssize_t end, double factor,
                           Py_ssize_t slice) noexcept nogil:
        """`slice_of_rows` with an example a lane."""
        cdef Turned *turned = &desk.turned
        cdef Parts blocks = parts_of(end - at, turned.rows)
        cdef Py_ssize_t c, n, l
        cdef double *cost = &self.slice_costs[slice * 8]
        cost[0] = 0
        for l in range(turned.n_layers):
            turned.layers[l].weights = desk.layers[l].weights
        for c in range(blocks.number):
            n = blocks.size + (c < blocks.larger)
            turn_examples(turned, self.data, self.order, at, n)
            self.book(desk, GATHER)
            forward_turned(turned, vectors_of(n))
            self.book(desk, FORWARD)
            cost[0] += compare_turned(turned, n, self.data.weights != NULL, factor)
            self.book(desk, COST)
            for l in range(turned.n_layers - 1, -1, -1):
                add_gradient(turned, l, vectors_of(n), c > 0, turned.gradient)
                self.book(desk, UPDATE)
                if l > 0:
                    backward_turned(turned, l, vectors_of(n))
                    self.book(desk, BACKWARD)
            at += n
        for l in range(turned.n_layers):
            spread(turned, l, desk.layers[l].gradient + slice * desk.layers[l].size)

    cdef int sliced_step(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t first,
                         Py_ssize_t count, double weight, double factor,
                         const Update *u) noexcept nogil:
        """One mini-batch, each desk its slices of the rows and its replica of the weights."""
        cdef Net *net = &self.net
        cdef Py_ssize_t slices = min(slices_of(count), self.net.slices), q, l, lo, hi
        cdef Py_ssize_t room = net.capacity // slices
        cdef Py_ssize_t turn = desk.turn * self.net.slices
        cdef int decision
        cdef Layer *layer
        # The slice that the next thread computes meanwhile: its gradient is wanted soon.
        cdef Py_ssize_t others = slices * ((rank + 1) % team) // team - slices * rank // team
        for q in range(slices * rank // team, slices * (rank + 1) // team):
            lo = first + count * q // slices
            hi = first + count * (q + 1) // slices
            if net.turned:
                self.turned_slice(desk, lo, hi, factor, turn + q)
            else:
                self.slice_of_rows(desk, lo, hi, first, q * room, room, factor, u, turn + q,
                                   turn + q + others if team > 1 else -1)
        self.wait(desk, rank, team)
        decision = self.decided(desk, team)
        if decision != DONE:
            return decision
        if rank == 0:
            self.add_penalties(desk)
            for q in range(slices):
                self.ledger.cost_sum += self.slice_costs[(turn + q) * 8]
            self.finish_step(desk, weight, u.penalised)
        if rank == 0 or net.optimizer != NO_UPDATE:
            for l in range(net.n_layers):
                layer = &desk.layers[l]
                add_slices(net, desk, layer, layer.gradient + turn * layer.size, slices, u,
                           self.penalties_of(desk, l))
                renew_transposed(net, layer, 0, layer.rows, 0, panels_of(layer.vectors))
        desk.turn ^= 1
        self.book(desk, UPDATE)
        return DONE

    cdef void add_penalties(self, const Desk *desk) noexcept nogil:
        """The penalty of the step before, whose parts are now all written."""
        cdef Py_ssize_t i
        cdef vec total = splat(0)
        cdef const real *before = desk.penalties + (desk.step + 1) % 2 * self.n_penalties * LANES
        if self.ledger.pending_weight > 0:
            for i in range(self.n_penalties):
                total = total + load(before + i * LANES)
            self.ledger.cost_sum += sum_of(total) * self.ledger.pending_weight
            self.ledger.pending_weight = 0

    cdef void finish_step(self, const Desk *desk, double weight, bint penalised) noexcept nogil:
        """Book-keeping of one thread: what it decides the others heed in the next step."""
        self.ledger.weight_sum += weight
        self.ledger.pending_weight = weight if penalised else 0
        self.ledger.n_steps += 1
        if not isfinite(self.ledger.cost_sum):
            self.ending = DIVERGENCE
            self.stop_at = desk.step + 1
        elif self.ledger.n_steps % self.signal_period == 0 and self.signalled():
            self.ending = INTERRUPT
            self.stop_at = desk.step + 1
        elif (self.ledger.watch.waited > 0 and self.disband_at == NEVER
              and hindered(&self.ledger.watch, seconds_now(), self.ledger.watch.waited)):
            self.disband_at = desk.step + 1  # once and for all: others may read it much later

    cdef bint signalled(self) noexcept with gil:
        """Whether a signal's Python handler raised: Ctrl-C between two mini-batches."""
        try:
            PyErr_CheckSignals()
        except KeyboardInterrupt:
            return True
        except BaseException as error:
            self.error = error
            return True
        return False

    # -- all mini-batches ------------------------------------------------------------------------

    cdef void begin_epoch(self) noexcept nogil:
        self.clock = seconds_now()
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
            lo = n * rank // team
            hi = n * (rank + 1) // team
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
                    total = add_costs(total, &self.desks[other], n * other // team,
                                      n * (other + 1) // team)
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
            self.disband_at = NEVER
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
        self.data = data
        self.generator = NULL
        self.stopping = False
        self.ending = EPOCHS
        self.error = None
        self.stop_at = NEVER
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
        Returns (costs, seconds, ending, last cost): arrays of the finished epochs, one of ENDINGS.
        """
        cdef Py_ssize_t team = most_useful(&self.net, self.layers, n_threads)
        cdef cnp.npy_intp epochs = len(rates)
        costs = cnp.PyArray_EMPTY(1, &epochs, cnp.NPY_DOUBLE, 0)
        seconds = cnp.PyArray_EMPTY(1, &epochs, cnp.NPY_DOUBLE, 0)
        self.begin(data, order, generator)
        if fewer:
            team = worthwhile(&self.net, self.layers, batch_size,
                              epochs * ((self.count + batch_size - 1) // batch_size), team,
                              data.plain)
        else:
            self.ledger.watch.alone_until = 0
        self.team = team
        self.seat(team)
        self.net.shared_input = shares_input(&self.net, team, data.plain)
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
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        n = self.epochs_done
        if n < epochs:
            costs, seconds = costs[:n], seconds[:n]
        return costs, seconds, ENDINGS[self.ending], self.last_cost

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
        cdef Py_ssize_t team = n_threads
        self.begin(data, None, None)
        self.seat(team)
        self.net.transposing, self.net.shared_input = False, True
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
        net.transposing, net.shared_input = True, False
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
                            self.layers[0].n_out, self.layers[0].d, self.layers[0].stride, 1,
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
