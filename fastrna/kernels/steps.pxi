# One mini-batch, in one of three ways.
#
# Design: each thread of a team has a desk (layers.pxi), and the team shares a mini-batch, by the
# network's sizes and the batch alone (sharing.pxi):
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
# turn, so that a step has as few meetings as it has exchanges. A batch larger than `capacity`
# passes in chunks whose gradients add up before the update, which bounds the workspace and keeps a
# chunk's activations in cache.
# A mini-batch of one needs no gradient at all: dW = a^T dz is formed as it is applied, and the
# first layer's pass over its weights, which lie beyond L1, computes the next example's product as
# well: in the order of `tiles`, so to the same bits.

cdef extern from "math.h" nogil:
    bint isfinite(double x)

cdef extern from *:
    """
    #define NEVER (~0ULL)
    """
    const unsigned long long NEVER


cdef enum Ending:
    EPOCHS, TARGET_COST, INTERRUPT, DIVERGENCE

ENDINGS = {EPOCHS: "epochs", TARGET_COST: "target_cost", INTERRUPT: "interrupt",
           DIVERGENCE: "divergence"}


cdef enum Taken:
    DONE, STOPPED, DISBANDED   # what became of a step; the last two before anything changed


cdef class Steps(Workspace):
    """The steps of an Engine; see the top of the file.

    Parameters: those of Workspace.
    """
    # All methods are final, and so called directly: through the table of a class that has others
    # below it a step of a narrow network takes 1.01 times as long.

    cdef public bint timed
    cdef double phase_times[N_PHASES]
    cdef double lap
    # The call under way.
    cdef Data data
    cdef const long long *order
    cdef Py_ssize_t count, batch_size, signal_period
    cdef double momentum, beta_2, epsilon, l1, l2
    cdef bint over_batch
    cdef unsigned long long stop_at     # the step that is not to be taken
    cdef unsigned long long disband_at  # the step from which on the first thread works alone
    cdef unsigned long long mode        # of subnormals, on the caller's thread
    cdef int ending
    cdef object error

    def phase_seconds(self):
        """Seconds of each phase on the first thread while `timed` was set; begins again at 0."""
        found = {name: self.phase_times[phase] for phase, name in PHASES.items()}
        memset(self.phase_times, 0, sizeof(self.phase_times))
        return found

    @cython.final
    cdef inline void book(self, const Desk *desk, int phase) noexcept nogil:
        """The time since the last call goes to `phase`, where the first thread is timed."""
        cdef double now
        if self.timed and desk == self.desks:
            now = seconds_now()
            self.phase_times[phase] += now - self.lap
            self.lap = now

    @cython.final
    cdef inline void wait(self, const Desk *desk, Py_ssize_t rank, Py_ssize_t team) noexcept nogil:
        """Until the whole team is here."""
        if team > 1:
            arrive(&self.places[rank])
            self.wait_for_others(desk, rank, team)

    @cython.final
    cdef inline void wait_for_others(self, const Desk *desk, Py_ssize_t rank,
                                     Py_ssize_t team) noexcept nogil:
        """The other half of `wait`, after `arrive`."""
        cdef double waited = await_team(self.places, <int>team, <int>rank)
        if rank == 0:
            self.ledger.watch.waited += waited
            self.book(desk, WAIT)

    @cython.final
    cdef void gather(self, Desk *desk, Py_ssize_t count, const long long *chunk) noexcept nogil:
        """All rows of the chunk into the desk's input, or together into the one they share; unless
        the first layer does so. Where each gathers all, it begins with its part, and then finds
        what others have brought along."""
        cdef Py_ssize_t lo = part_of(count, desk.rank, desk.team), hi = count
        cdef Py_ssize_t stride = self.net.input_stride
        cdef bint together = desk.team > 1 and self.net.shared_input
        if self.net.sparse or desk.ahead or gathers_inputs(&self.net, desk):
            return
        if together:
            hi = part_of(count, desk.rank + 1, desk.team)
            self.wait(desk, desk.rank, desk.team)  # nobody reads the last mini-batch any more
        self.data.gather(chunk, lo, hi - lo, desk.input + lo * stride, stride)
        if together:
            self.book(desk, GATHER)
            self.wait(desk, desk.rank, desk.team)
        elif lo > 0:
            self.data.gather(chunk, 0, lo, desk.input, stride)

    @cython.final
    cdef void forward(self, Desk *desk, Py_ssize_t lo, Py_ssize_t hi, bint training,
                      const long long *chunk, Py_ssize_t first_row) noexcept nogil:
        """Z_l = A_{l-1} W_l + b_l, A_l = g_l(Z_l) of all layers for rows lo to hi of the chunk: the
        hidden ones' own columns; of the last the sums, or where they are shared this desk's part.
        """
        cdef Net *net = &self.net
        cdef Py_ssize_t l
        cdef Layer *layer
        cdef real *share
        # Of a few rows, a line or two cross, which come from memory later than from the other core.
        cdef bint handing = self.net.past_caches and hi > FEW_ROWS
        first_layer(net, desk, self.data, lo, hi, chunk)
        for l in range(1, net.n_layers):
            layer = &desk.layers[l]
            activate_units(net, desk, l - 1, (layer - 1).own, lo, hi, training, first_row)
            if desk.team == 1:
                product_of_parts(desk, layer - 1, layer, hi - lo,
                                 (layer - 1).h + lo * (layer - 1).stride,
                                 layer.z + lo * layer.stride)
                continue
            share = self.sums_of(desk, layer) + desk.rank * net.capacity * layer.stride
            product_of_parts(desk, layer - 1, layer, hi, (layer - 1).h,
                             desk.draft if handing else share)
            if handing:
                hand_over(hi * layer.stride // LANES, desk.draft, share)
            self.book(desk, FORWARD)
            self.wait(desk, desk.rank, desk.team)
            if l < net.n_layers - 1:
                add_shares(desk, layer - 1, layer, self.sums_of(desk, layer), net.capacity, lo, hi,
                           layer.own.first_vector, layer.own.last_vector)

    @cython.final
    cdef real *sums_of(self, const Desk *desk, const Layer *layer) noexcept nogil:
        """The shares of this step: where only they are exchanged they exist twice, in turn."""
        if self.net.n_layers == 2:
            return layer.sums + desk.turn * self.seats * self.net.capacity * layer.stride
        return layer.sums

    @cython.final
    cdef Update update_of(self, const Desk *desk, double rate, double factor) noexcept nogil:
        """The settings of one step."""
        cdef Update u
        u.optimizer = self.net.optimizer
        u.learning_rate = <real>rate
        if u.optimizer == ADAM:
            u.learning_rate = adam_rate(rate, self.momentum, self.beta_2, desk.step + 1)
        set_decays(&u, self.momentum, self.beta_2, self.epsilon)
        u.l1 = <real>(self.l1 * factor if self.over_batch else self.l1)
        u.l2 = <real>(self.l2 * factor if self.over_batch else self.l2)
        u.penalised = u.l1 != 0 or u.l2 != 0
        return u

    @cython.final
    cdef real *penalties_of(self, const Desk *desk, Py_ssize_t l) noexcept nogil:
        """Where this step's penalties of a layer go, in turn."""
        return desk.penalties + ((desk.step % 2) * self.n_penalties
                                 + self.layers[l].first_penalty) * LANES

    @cython.final
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

    @cython.final
    cdef inline int decided(self, const Desk *desk, Py_ssize_t team) noexcept nogil:
        """What the first thread has decided of this step. All know it once they have met in it, and
        until then nothing has changed but blocks that are computed anew. Whoever reads what is
        decided of the next step already goes on as well."""
        if desk.step >= told(&self.stop_at):
            return STOPPED
        if desk.step >= told(&self.disband_at) and team > 1:
            return DISBANDED
        return DONE

    @cython.final
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
            n = size_of(chunks, c)
            ends = c == chunks.number - 1
            chunk = self.order + at
            desk.to_come = self.count - at
            lo, hi = 0, n
            if desk.team > 1 and not net.alone:
                lo = part_of(n, desk.rank, desk.team)
                hi = part_of(n, desk.rank + 1, desk.team)
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

    @cython.final
    cdef void begin_phase(self, const Desk *desk, Stage *stage, int phase,
                          Py_ssize_t l) noexcept nogil:
        """Offer the tasks of a phase, and wait until all have finished the one before."""
        stage.phase, stage.l = phase, l
        if desk.matrix_unit != NULL:
            desk.matrix_unit.phase += 1
        offer(&self.places[desk.rank],
              tasks_of(&self.net, desk.layers, stage, desk.rank, desk.team))
        self.wait(desk, desk.rank, desk.team)

    @cython.final
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

    @cython.final
    cdef void perform(self, const Desk *desk, Stage *stage, int phase, Py_ssize_t l) noexcept nogil:
        """A whole phase: of one layer, where it has one."""
        self.begin_phase(desk, stage, phase, l)
        self.finish_phase(desk, stage)

    @cython.final
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
        stage.handing = net.past_caches and desk.team > 1
        for c in range(chunks.number):
            stage.rows = size_of(chunks, c)
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

    @cython.final
    cdef void look_ahead(self, Desk *desk, Py_ssize_t at) noexcept nogil:
        """Gather the example after a mini-batch of one, if that is one as well."""
        desk.ahead = (self.batch_size == 1 and at + 1 < self.count
                      and not (desk.team > 1 and self.net.shared_input))
        if desk.ahead:
            self.data.gather(self.order, at + 1, 1, desk.following, self.net.input_stride)

    @cython.final
    cdef inline double *cost_of_slice(self, const Slices *slices, Py_ssize_t q) noexcept nogil:
        return self.slice_costs + (slices.turn * self.net.slices + q) * SLICE_COSTS

    @cython.final
    cdef void slice_of_rows(self, Desk *desk, Py_ssize_t at, Py_ssize_t end, Py_ssize_t first,
                            Py_ssize_t room, double factor, const Slices *slices,
                            Py_ssize_t q) noexcept nogil:
        """The cost of the examples from place `at` to `end` of the order, in a mini-batch that
        begins at `first`, and their gradient, as those of slice q; in `room` rows of the blocks.
        That of the slice which the next thread computes meanwhile, if any, is fetched."""
        cdef Net *net = &self.net
        cdef Py_ssize_t c, n, l
        cdef double *cost = self.cost_of_slice(slices, q)
        cdef Parts chunks = parts_of(end - at, room)
        cdef Layer *layer
        cdef const Layer *last = &desk.layers[net.n_layers - 1]
        cdef const long long *chunk
        cdef Region wanted
        cost[0] = 0
        for c in range(chunks.number):
            n = size_of(chunks, c)
            chunk = self.order + at
            self.data.gather(chunk, 0, n, desk.input, net.input_stride)
            gather_targets(self.data, desk, last, 0, n, chunk)
            self.book(desk, GATHER)
            self.forward(desk, 0, n, True, chunk, at - first)
            self.book(desk, FORWARD)
            compare(net, desk, self.data.weights != NULL, 0, n, factor)
            cost[0] = add_costs(cost[0], desk, 0, n)
            self.book(desk, COST)
            for l in range(net.n_layers - 1, -1, -1):
                layer = &desk.layers[l]
                gradient_tiles(net, layer, 0, layer.rows, 0, panels_of(layer.vectors), 0, n,
                               rows_read_by(net, desk, l), slice_gradient(net, layer, slices, q),
                               c == 0, False, NULL, NULL)
                if c == chunks.number - 1:
                    finish_slice(net, layer, slices, q)
                self.book(desk, UPDATE)
                if l > 0:
                    wanted = nowhere()
                    if c == chunks.number - 1 and slices.following != slices.first:
                        wanted.at = <const char *>shared_gradient(
                            net, layer, slices, q + slices.following - slices.first)
                        wanted.bytes = layer.size * sizeof(real)
                    backward(net, desk, l, desk.layers[l - 1].own, 0, n, at - first, wanted)
                    self.book(desk, BACKWARD)
            at += n

    @cython.final
    cdef void turned_slice(self, Desk *desk, Py_ssize_t at, Py_ssize_t end, double factor,
                           const Slices *slices, Py_ssize_t q) noexcept nogil:
        """`slice_of_rows` with an example a lane."""
        cdef Turned *turned = &desk.turned
        cdef Parts blocks = parts_of(end - at, turned.rows)
        cdef Py_ssize_t c, n, l
        cdef double *cost = self.cost_of_slice(slices, q)
        cdef const Layer *layer
        cost[0] = 0
        for l in range(turned.n_layers):
            turned.layers[l].weights = desk.layers[l].weights
        for c in range(blocks.number):
            n = size_of(blocks, c)
            take_examples(turned, self.data, self.order, at, n)
            self.book(desk, GATHER)
            forward_turned(turned, vectors_of(n))
            self.book(desk, FORWARD)
            cost[0] += compare_turned(turned, n, self.data.weights != NULL, factor)
            self.book(desk, COST)
            for l in range(turned.n_layers - 1, -1, -1):
                add_gradient(turned, l, n, c > 0, turned.gradient)
                self.book(desk, UPDATE)
                if l > 0:
                    backward_turned(turned, l, vectors_of(n))
                    self.book(desk, BACKWARD)
            at += n
        for l in range(turned.n_layers):
            layer = &desk.layers[l]
            spread(turned, l, slice_gradient(&self.net, layer, slices, q))
            finish_slice(&self.net, layer, slices, q)

    @cython.final
    cdef int sliced_step(self, Desk *desk, Py_ssize_t rank, Py_ssize_t team, Py_ssize_t first,
                         Py_ssize_t count, double weight, double factor,
                         const Update *u) noexcept nogil:
        """One mini-batch, each desk its slices of the rows and its replica of the weights."""
        cdef Net *net = &self.net
        cdef Slices slices = slices_at(net, min(slices_of(count), net.slices), rank, team,
                                       desk.turn)
        cdef Py_ssize_t q, l, lo, hi, room = net.capacity // slices.number
        cdef int decision
        cdef Layer *layer
        for q in range(slices.first, slices.last):
            lo = first + part_of(count, q, slices.number)
            hi = first + part_of(count, q + 1, slices.number)
            if net.turned:
                self.turned_slice(desk, lo, hi, factor, &slices, q)
            else:
                self.slice_of_rows(desk, lo, hi, first, room, factor, &slices, q)
        self.wait(desk, rank, team)
        decision = self.decided(desk, team)
        if decision != DONE:
            return decision
        if rank == 0:
            self.add_penalties(desk)
            for q in range(slices.number):
                self.ledger.cost_sum += self.cost_of_slice(&slices, q)[0]
            self.finish_step(desk, weight, u.penalised)
        if rank == 0 or net.optimizer != NO_UPDATE:
            for l in range(net.n_layers):
                layer = &desk.layers[l]
                add_slices(net, desk, layer, &slices, u, self.penalties_of(desk, l))
                renew_transposed(net, layer, 0, layer.rows, 0, panels_of(layer.vectors), False)
        desk.turn ^= 1
        self.book(desk, UPDATE)
        return DONE

    @cython.final
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

    @cython.final
    cdef void finish_step(self, const Desk *desk, double weight, bint penalised) noexcept nogil:
        """Book-keeping of one thread: what it decides the others heed in the next step."""
        self.ledger.weight_sum += weight
        self.ledger.pending_weight = weight if penalised else 0
        self.ledger.n_steps += 1
        if not isfinite(self.ledger.cost_sum):
            self.ending = DIVERGENCE
            tell(&self.stop_at, desk.step + 1)
        elif self.ledger.n_steps % self.signal_period == 0 and self.signalled():
            self.ending = INTERRUPT
            tell(&self.stop_at, desk.step + 1)
        elif (self.ledger.watch.waited > 0 and self.disband_at == NEVER
              and hindered(&self.ledger.watch, seconds_now(), self.ledger.watch.waited)):
            tell(&self.disband_at, desk.step + 1)  # once and for all: others may read it much later

    @cython.final
    cdef bint signalled(self) noexcept with gil:
        """Whether a signal's Python handler raised: Ctrl-C between two mini-batches."""
        restore_subnormals(self.mode)
        try:
            PyErr_CheckSignals()
        except KeyboardInterrupt:
            return True
        except BaseException as error:
            self.error = error
            return True
        finally:
            flush_subnormals()
        return False
