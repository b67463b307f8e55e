# The float64 kernels for the baseline instruction set.
ctypedef double real

include "engine.pxi"
