# The float32 kernels for the baseline instruction set.
ctypedef float real

include "engine.pxi"
