#include <cmath>

#include "kernels/gptq_rows_loops.h"
#include "kernels/prune_rows_loops.h"

namespace llmc::kernels {
namespace {

// For CPUs without vector fused multiply-adds: slow, but the same bits.
struct GenericVector {
  using Type = float;
  static constexpr int kLanes = 1;
  static constexpr int kMaxVectors = 16;
  static Type Load(const float* from) { return *from; }
  static Type Broadcast(float value) { return value; }
  static void Store(float* to, Type value) { *to = value; }
  static Type NegativeMultiplyAdd(Type a, Type b, Type c) { return std::fma(-a, b, c); }
};

}  // namespace

void SolveGptqRowsGeneric(const GptqRows& rows) { SolveRows<GenericVector>(rows); }

void PruneRowsGeneric(const PruneRows& rows) { PruneBlocks<GenericVector>(rows); }

}  // namespace llmc::kernels
