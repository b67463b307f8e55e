# Each kernel as a function of NumPy arrays, under the name and signature of its twin in
# fastrna/reference.py: for tests, lessons and curiosity. Arguments are checked, and strided or
# read-only ones copied into whole vectors.

cdef extern from "cpu.h" nogil:
    bint runs_avx2()
    bint runs_avx512()
    bint runs_amx()

DTYPE = np.dtype(np.float32 if sizeof(real) == 4 else np.float64)
VECTOR_LANES = LANES
DEFAULT_PARAMETERS = {"leaky_relu": 0.1, "elu": 1.0}


cdef inline real *numbers(cnp.ndarray array) noexcept:
    return <real *>cnp.PyArray_DATA(array)


cdef tuple named(specification):
    """A (name, parameter) pair from a name or a pair."""
    name, parameter = (specification, None) if isinstance(specification, str) else specification
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; expected one of {', '.join(ACTIVATIONS)}.")
    return name, DEFAULT_PARAMETERS.get(name, 0.0) if parameter is None else parameter


cdef cnp.ndarray block_of(matrix, Py_ssize_t spare=0):
    """A fresh copy of a matrix in rows of whole vectors, at least `spare` zeros after each."""
    matrix = np.asarray(matrix)
    rows, width = matrix.shape
    block = np.zeros((rows + 1, vectors_of(width + spare) * LANES), DTYPE)
    block[:rows, :width] = matrix
    return block


cdef matching(dict arguments):
    """Raise unless each (array, shape) pair is an array of this module's type and of that shape."""
    for name, (array, shape) in arguments.items():
        if not isinstance(array, np.ndarray) or array.dtype != DTYPE:
            raise TypeError(f"{name} is not an array of {DTYPE}, the type of these kernels.")
        if array.shape != tuple(shape):
            raise ValueError(f"{name} has shape {array.shape}; expected {tuple(shape)}.")


cdef columns_of(name, array):
    """The width of a matrix."""
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise ValueError(f"{name} has {np.ndim(array)} dimensions; expected 2.")
    return array.shape[1]


def activation(activation, Z):
    """A = g(Z), of Z's shape; softmax runs along the last axis."""
    cdef cnp.ndarray a, largest, totals
    cdef Py_ssize_t stride
    name, parameter = named(activation)
    Z = np.asarray(Z)
    matching(dict(Z=(Z, Z.shape)))
    if not Z.size:
        return Z.copy()
    matrix = Z.reshape(-1, Z.shape[Z.ndim - 1] if Z.ndim else 1)
    a = block_of(matrix)
    rows, stride = len(matrix), a.shape[1]
    if name == "softmax":
        largest, totals = np.empty(rows, DTYPE), np.empty(rows, DTYPE)
        softmax_rows(rows, matrix.shape[1], stride, numbers(a), numbers(a), numbers(largest),
                     numbers(totals))
    else:
        activate(ACTIVATIONS[name], parameter, rows, stride // LANES, stride, numbers(a),
                 numbers(a))
    return np.ascontiguousarray(a[:rows, :matrix.shape[1]]).reshape(Z.shape)


def activation_derivative(activation, Z):
    """g'(Z), of Z's shape; softmax, whose outputs are coupled, has none elementwise."""
    cdef cnp.ndarray z, a, d
    name, parameter = named(activation)
    if name == "softmax":
        raise ValueError("activation 'softmax' has no elementwise derivative: its outputs are "
                         "coupled; expected one of the other activations")
    Z = np.asarray(Z)
    matching(dict(Z=(Z, Z.shape)))
    if not Z.size:
        return Z.copy()
    matrix = Z.reshape(-1, Z.shape[Z.ndim - 1] if Z.ndim else 1)
    z, d = block_of(matrix), block_of(np.ones(matrix.shape, DTYPE))
    a = z.copy()
    rows, stride = len(matrix), z.shape[1]
    activate(ACTIVATIONS[name], parameter, rows, stride // LANES, stride, numbers(z), numbers(a))
    differentiate(ACTIVATIONS[name], parameter, rows, stride // LANES, stride, numbers(z),
                  numbers(a), numbers(d))
    return np.ascontiguousarray(d[:rows, :matrix.shape[1]]).reshape(Z.shape)


def layer_forward(A, W, b, activation="identity"):
    """g(A W + b): (m, n_in), (n_in, n_out), (n_out,) -> (m, n_out)."""
    cdef cnp.ndarray inputs, weights, z
    n_in, n_out, m = columns_of("A", A), columns_of("W", W), len(A)
    matching(dict(A=(A, (m, n_in)), W=(W, (n_in, n_out)), b=(b, (n_out,))))
    inputs, weights = block_of(A), block_of(np.vstack([W, b]))
    z = np.zeros((m, weights.shape[1]), DTYPE)
    vectors = weights.shape[1] // LANES
    product(m, vectors, 0, panels_of(vectors), n_in, numbers(inputs), inputs.shape[1],
            numbers(weights), weights.shape[1], n_in + 1, 0, FROM_BIAS, False, numbers(z),
            z.shape[1], nowhere())
    return globals()["activation"](activation, z[:, :n_out])


def weight_gradient(A, dZ):
    """(A^T dZ, sum of dZ over examples): (m, n_in), (m, n_out) -> (n_in, n_out), (n_out,)."""
    cdef cnp.ndarray inputs, slopes, gradient
    n_in, n_out, m = columns_of("A", A), columns_of("dZ", dZ), len(A)
    matching(dict(A=(A, (m, n_in)), dZ=(dZ, (m, n_out))))
    inputs, slopes = block_of(A, 1), block_of(dZ)
    inputs[:m, n_in] = 1
    gradient = np.zeros((n_in + 1, slopes.shape[1]), DTYPE)
    vectors = slopes.shape[1] // LANES
    product_of_units(n_in + 1, vectors, m, numbers(inputs), inputs.shape[1], &ZEROS[0], 0,
                     numbers(slopes), slopes.shape[1], numbers(gradient), gradient.shape[1])
    return (np.ascontiguousarray(gradient[:n_in, :n_out]),
            np.ascontiguousarray(gradient[n_in, :n_out]))


def input_gradient(dZ, W, Z=None, activation="identity"):
    """(dZ W^T) g'(Z), or dZ W^T where Z is None: (m, n_out), (n_in, n_out) -> (m, n_in)."""
    cdef cnp.ndarray slopes, flat, packed, across, d, z, a
    n_out, m = columns_of("dZ", dZ), len(dZ)
    columns_of("W", W)
    n_in = len(W)
    matching(dict(dZ=(dZ, (m, n_out)), W=(W, (n_in, n_out))))
    if Z is not None:
        matching(dict(Z=(Z, (m, n_in))))
    slopes, flat = block_of(dZ), np.ascontiguousarray(W)
    in_vectors = vectors_of(n_in)
    packed = np.zeros(n_in * vectors_of(n_out) * LANES, DTYPE)
    across = np.zeros(n_out * in_vectors * LANES, DTYPE)
    d = np.zeros((m, in_vectors * LANES), DTYPE)
    pack(0, n_in, n_out, 0, panels_of(vectors_of(n_out)), numbers(flat), n_out,
         numbers(packed), n_in)
    transpose_rows(0, n_in, 0, vectors_of(n_out), n_in, n_out, n_in, numbers(packed),
                   numbers(across), False)
    product(m, in_vectors, 0, panels_of(in_vectors), n_out, numbers(slopes),
            slopes.shape[1], numbers(across), 0, n_out, 0, FROM_ZERO, False, numbers(d),
            d.shape[1], nowhere())
    if Z is not None:
        name, parameter = named(activation)
        z = block_of(Z)
        a = z.copy()
        activate(ACTIVATIONS[name], parameter, m, in_vectors, z.shape[1], numbers(z), numbers(a))
        differentiate(ACTIVATIONS[name], parameter, m, in_vectors, z.shape[1], numbers(z),
                      numbers(a), numbers(d))
    return np.ascontiguousarray(d[:, :n_in])


def cost_and_gradient(loss, output, Z, Y, sample_weight=None):
    """(J, dJ/dZ) of the output layer: the weighted mean over examples of the summed costs."""
    cdef cnp.ndarray z, y, a, d, costs, totals, masses, weights
    from fastrna.validation import cost

    output_name, output_parameter = named(output)
    name, parameter = cost(loss, output_name)
    parameter = parameter or 0.0
    width, m = columns_of("Z", Z), len(Z)
    matching(dict(Z=(Z, (m, width)), Y=(Y, (m, width))))
    if sample_weight is not None and np.shape(sample_weight) != (m,):
        raise ValueError(f"sample_weight has shape {np.shape(sample_weight)}; expected ({m},).")
    z, y = block_of(Z), block_of(Y)
    a, d = z.copy(), np.zeros_like(z)
    costs, totals, masses = (np.zeros(m + LANES, DTYPE) for _ in range(3))
    weights = np.ones(m) if sample_weight is None else np.array(sample_weight, np.float64)
    total = weights.sum()
    factor = 1 / total if total > 0 else 0.0
    if output_name != "softmax":
        activate(ACTIVATIONS[output_name], output_parameter, m, z.shape[1] // LANES, z.shape[1],
                 numbers(z), numbers(a))
    cost_and_slope(LOSSES[name], parameter, ACTIVATIONS[output_name], output_parameter, m, width,
                   z.shape[1], numbers(z), numbers(a), numbers(y), numbers(d), numbers(costs),
                   numbers(totals), numbers(masses))
    scale_rows(m, width, z.shape[1], numbers(d), <double *>cnp.PyArray_DATA(weights),
               factor)
    J = float(np.dot(costs[:m].astype(np.float64), weights) * factor)
    return J, np.ascontiguousarray(d[:m, :width])


cdef update_array(Update u, w, v, s, g):
    """One update of contiguous arrays in place; what is left of whole vectors passes by copies."""
    for name, array in (("w", w), ("the first moment", v), ("the second moment", s)):
        if array is not None:
            matching({name: (array, np.shape(w))})
            if not array.flags.c_contiguous or not array.flags.writeable:
                raise ValueError(f"{name} is read-only or strided; expected a contiguous array, "
                                 "which is updated in place.")
    matching(dict(g=(g, w.shape)))
    if not len(w):
        return
    cdef cnp.ndarray wa = w.reshape(-1), ga = np.ascontiguousarray(g).reshape(-1)
    cdef cnp.ndarray va = wa if v is None else v.reshape(-1)
    cdef cnp.ndarray sa = wa if s is None else s.reshape(-1)
    cdef Py_ssize_t whole = len(wa) // LANES * LANES, rest = len(wa) - whole, i
    cdef real one = 1
    cdef real ends[4][LANES]
    if whole > 0:
        update(&u, False, 1, whole, &one, 0, numbers(ga), 0, numbers(wa), numbers(va),
               numbers(sa), NULL, NULL, False, NULL, NULL)
    for i in range(rest):
        ends[0][i], ends[1][i] = numbers(ga)[whole + i], numbers(wa)[whole + i]
        ends[2][i], ends[3][i] = numbers(va)[whole + i], numbers(sa)[whole + i]
    for i in range(rest, LANES):
        ends[0][i] = ends[1][i] = ends[2][i] = ends[3][i] = 0
    if rest > 0:
        update(&u, False, 1, LANES, &one, 0, ends[0], 0, ends[1], ends[2], ends[3], NULL,
               NULL, False, NULL, NULL)
    for i in range(rest):
        if s is not None:
            numbers(sa)[whole + i] = ends[3][i]
        if v is not None:
            numbers(va)[whole + i] = ends[2][i]
        numbers(wa)[whole + i] = ends[1][i]


def sgd_update(w, g, double learning_rate):
    """w = w - alpha g, in place."""
    cdef Update u
    u.optimizer, u.learning_rate = SGD, <real>learning_rate
    update_array(u, w, None, None, g)


def momentum_update(w, v, g, double learning_rate, double momentum):
    """v = beta v - alpha g, w = w + v, in place."""
    cdef Update u
    u.optimizer, u.learning_rate, u.momentum = MOMENTUM, <real>learning_rate, <real>momentum
    update_array(u, w, v, None, g)


def nesterov_update(w, v, g, double learning_rate, double momentum):
    """v = beta v - alpha g, w = w + beta v - alpha g, in place."""
    cdef Update u
    u.optimizer, u.learning_rate, u.momentum = NESTEROV, <real>learning_rate, <real>momentum
    update_array(u, w, v, None, g)


def adam_update(w, m, v, g, double learning_rate, double beta_1, double beta_2, double epsilon, t):
    """Adam's step number t (from 1), in place: m and v are the moments."""
    cdef Update u
    u.optimizer = ADAM
    u.learning_rate = adam_rate(learning_rate, beta_1, beta_2, t)
    set_decays(&u, beta_1, beta_2, epsilon)
    update_array(u, w, m, v, g)


def dropout(A, double rate, seed, step, layer, first_row=0):
    """A with entries dropped at `rate` and the others divided by 1 - rate."""
    columns_of("A", A)
    matching(dict(A=(A, A.shape)))
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; expected at least 0 and below 1.")
    cdef cnp.ndarray a = np.ascontiguousarray(A), h = np.empty_like(a)
    cdef Py_ssize_t width = a.shape[1]
    drop(len(a), width, width, dropout_key(seed, step, layer), first_row, 0,
         <unsigned int>(rate * 4294967296.0), <real>(1 / (1 - rate)), numbers(a), numbers(h))
    return h


def first_nonfinite(array):
    """Place of the first NaN or infinity of a contiguous array of this type; -1 without any."""
    cdef cnp.ndarray x = array
    cdef Py_ssize_t i, block, count = x.size
    cdef const real *p = numbers(x)
    with nogil:
        for block in range(0, count, 1024):
            if not all_finite(min(1024, count - block), p + block):
                for i in range(block, min(block + 1024, count)):
                    if not isfinite(p[i]):
                        with gil:
                            return i
    return -1


def thread_limit():
    """Threads OpenMP would start now: OMP_NUM_THREADS and threadpoolctl are honoured."""
    return team_limit()


def integer_in_environment(const char *name):
    """The positive integer that an environment variable holds; 0 where it holds something else,
    None where it is not set or empty. Takes a tenth of the time of os.environ."""
    cdef const char *value = getenv(name)
    cdef char *end = NULL
    cdef long number
    if value == NULL or value[0] == 0:
        return None
    number = strtol(value, &end, 10)
    return number if b"0"[0] <= value[0] <= b"9"[0] and end[0] == 0 else 0


def instruction_sets():
    """Names of the variants that this processor and operating system can run."""
    found = ["baseline"]
    if runs_avx2():
        found.append("avx2")
    if runs_avx512():
        found.append("avx512")
    if runs_amx():
        found.append("amx")
    return found


cdef double peak_loop(Py_ssize_t rounds) noexcept nogil:
    """rounds x MR x NV independent chains of one multiply-add, all in registers."""
    cdef vec sums[MR][NV]
    cdef vec x = splat(<real>0.999), y = splat(<real>0.001)
    cdef Py_ssize_t r
    cdef int i, j
    for i in range(MR):
        for j in range(NV):
            # Of equal chains the compiler would keep one, and drop that of 1, which stays 1.
            sums[i][j] = splat(<real>(2 + i * NV + j))
    for r in range(rounds):
        for i in range(MR):
            for j in range(NV):
                sums[i][j] = sums[i][j] * x + y
    for i in range(MR):
        for j in range(NV):
            y = y + sums[i][j]
    return sum_of(y)


cdef enum:
    PEAK_ROUNDS = 200000  # of a burst: about a millisecond
    RUN_ROUNDS = 10000    # between two looks at the clock


def fma_peak(double seconds=0.05, int n_threads=1):
    """The machine's floating-point peak in operations a second: multiply-adds on registers alone.

    The best of several short runs on n_threads threads at once, over about `seconds` in all.
    """
    cdef double start, best = 0, used = 0, took, total = 0
    cdef int i
    while used < seconds:
        with nogil:
            start = seconds_now()
            if n_threads == 1:
                total += peak_loop(PEAK_ROUNDS)
            else:
                for i in prange(n_threads, num_threads=n_threads, schedule="static"):
                    total += peak_loop(PEAK_ROUNDS)
            took = seconds_now() - start
        used += took
        best = max(best, 2.0 * MR * NV * LANES * PEAK_ROUNDS * n_threads / took)
    # The sums are part of the result, or the compiler would drop the loop.
    return best + 1e-300 * total


def fma_sustained(double seconds=0.5, int n_threads=1):
    """What `fma_peak` finds at best, as it is kept up: operations a second over all of `seconds`,
    which other work on the cores and the clock under load make less."""
    cdef double start = seconds_now(), total = 0, operations = 0
    cdef int i
    for i in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        while seconds_now() - start < seconds:
            total += peak_loop(RUN_ROUNDS)
            operations += 2.0 * MR * NV * LANES * RUN_ROUNDS
    return operations / (seconds_now() - start) + 1e-300 * total


cdef double meet(place *places, Py_ssize_t rank, Py_ssize_t team,
                 Py_ssize_t meetings) noexcept nogil:
    """Seconds of so many meetings of a team, after a first one."""
    cdef double start = 0
    cdef Py_ssize_t i
    for i in range(1 + meetings):
        arrive(&places[rank])
        await_team(places, <int>team, <int>rank)
        if i == 0:
            start = seconds_now()
    return seconds_now() - start


cdef size_t aligned(cnp.ndarray memory, size_t bytes):
    """The first address in an array that is a multiple of so many bytes."""
    return (<size_t>cnp.PyArray_DATA(memory) + bytes - 1) // bytes * bytes


def meeting_seconds(int n_threads=2, Py_ssize_t meetings=10000):
    """Seconds that a team takes to meet once, on average: the longer, the farther apart its cores
    are, which on a virtual machine may change."""
    cdef Py_ssize_t rank
    took = np.zeros(n_threads)
    memory = np.zeros((n_threads + 1) * sizeof(place), np.uint8)
    cdef double *seconds = <double *>cnp.PyArray_DATA(took)
    cdef place *places = <place *>aligned(memory, sizeof(place))
    with nogil, parallel(num_threads=n_threads):
        rank = threadid()
        seconds[rank] = meet(places, rank, team_size(), meetings)
    return took[0] / meetings


def rewriting_seconds(int n_threads=2):
    """Seconds that a thread of a team takes to write a line of memory that another has read, on
    average of some hundred: see crossing.pxi."""
    cdef Py_ssize_t rank
    took = np.zeros(n_threads)
    memory = np.zeros((n_threads + 1) * sizeof(place), np.uint8)
    probes = np.zeros(n_threads * probe_numbers() * sizeof(real) + CACHE_LINE, np.uint8)
    cdef double *seconds = <double *>cnp.PyArray_DATA(took)
    cdef place *places = <place *>aligned(memory, sizeof(place))
    cdef real *lines = <real *>aligned(probes, CACHE_LINE)
    with nogil, parallel(num_threads=n_threads):
        rank = threadid()
        seconds[rank] = line_seconds(places, rank, team_size(), lines)
    return took[0]
