#include "llmc/scheme.h"

#include <cmath>

namespace llmc {

QuantizedRange RangeOf(const QuantizationArgs& args) {
  if (args.type == NumberType::kFloat)
    return args.num_bits == 4 ? QuantizedRange{-6, 6} : QuantizedRange{-448, 448};
  const double half = std::ldexp(1.0, args.num_bits - 1);
  return {-half, half - 1};
}

}  // namespace llmc
