// What libtorch has no kernel for, or only many small ones: the pieces of a
// decode step beside its matrix products, and the unpacking of packed weights.
//
// Compiled once for each level of x86-64, with LEVEL as the name's end; the
// caller picks one at run time. Plain loops over plain memory: shapes, number
// formats and sizes are checked by the caller (engine/src/kernels.rs). Nothing
// here has external linkage but the table, so that no level's code can stand in
// for another's.

#include <stddef.h>
#include <stdint.h>

namespace {
#include "kernels/number.h"
#include "kernels/attention.h"
#include "kernels/gate.h"
#include "kernels/multiply.h"
#include "kernels/norm.h"
#include "kernels/rotate.h"
#include "kernels/unpack.h"
}  // namespace

#define JOIN(a, b) a##b
#define NAMED(level) JOIN(infernet_kernels_, level)

// As in engine/src/kernels.rs.
struct Kernels {
  decltype(&rms_norm) norm;
  decltype(&rotate_and_keep) rotate;
  decltype(&attend) attention;
  decltype(&gate) gating;
  decltype(&unpack_four_bit) unpacking;
  decltype(&multiply) product;
};

extern "C" const Kernels NAMED(LEVEL) = {
    rms_norm, rotate_and_keep, attend, gate, unpack_four_bit, multiply,
};
