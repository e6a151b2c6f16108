// Changes JSON so that it stays JSON: bytes changed at random seldom get past a
// parser, and what lies behind it is what is worth reaching.
#ifndef LLMC_TESTS_FUZZ_JSON_MUTATOR_H_
#define LLMC_TESTS_FUZZ_JSON_MUTATOR_H_

#include <cstddef>
#include <cstdint>

namespace llmc::fuzz {

// Changes one value of the JSON text in place; its new size, at most `max_size`. 0 when
// it is not JSON or the result does not fit.
size_t MutateJson(uint8_t* text, size_t size, size_t max_size, unsigned int seed);

}  // namespace llmc::fuzz

#endif  // LLMC_TESTS_FUZZ_JSON_MUTATOR_H_
