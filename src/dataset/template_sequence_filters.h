// The filters that work on sequences; template_filters.cc joins them to the others.
#ifndef LLMC_DATASET_TEMPLATE_SEQUENCE_FILTERS_H_
#define LLMC_DATASET_TEMPLATE_SEQUENCE_FILTERS_H_

#include <functional>
#include <map>
#include <string>

#include "dataset/template_builtins.h"

namespace llmc::dataset {

using Filter = std::function<absl::StatusOr<Value>(const Value& value,
                                                   const CallArguments& arguments, Meter* meter)>;
using FilterTable = std::map<std::string, Filter, std::less<>>;

// A filter with one of its parameters fixed.
template <typename Function, typename Bound>
Filter FixFilter(Function function, Bound bound) {
  return [=](const Value& value, const CallArguments& arguments, Meter* meter) {
    return function(value, arguments, bound, meter);
  };
}

const FilterTable& SequenceFilters();

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_SEQUENCE_FILTERS_H_
