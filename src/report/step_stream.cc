#include "report/step_stream.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxLineBytes = 64 << 10;
constexpr int64_t kMaxRank = 1 << 20;
constexpr int64_t kMaxLayer = int64_t{1} << 40;
constexpr double kMaxTime = 1e12;

constexpr std::array<const char*, 5> kKinds = {"begin", "progress", "end", "linear", "warning"};

absl::Status Bad(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("step event: ", what));
}

// A whole number in [low, high]; `out` keeps its default when the key is absent.
absl::Status ReadInteger(const Json& json, const char* key, std::pair<int64_t, int64_t> range,
                         int64_t* out) {
  const auto found = json.find(key);
  if (found == json.end()) return absl::OkStatus();
  const bool fits = found->is_number_integer() &&
                    !(found->is_number_unsigned() &&
                      found->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
  if (!fits) return Bad(absl::StrCat(key, ": expected a whole number"));
  *out = found->get<int64_t>();
  if (*out < range.first || *out > range.second) {
    return Bad(absl::StrCat(key, ": ", *out, " is out of range"));
  }
  return absl::OkStatus();
}

absl::Status ReadNumber(const Json& json, const char* key, double* out) {
  const auto found = json.find(key);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_number() && !found->is_null()) {
    return Bad(absl::StrCat(key, ": expected a number"));
  }
  *out = found->is_null() ? std::numeric_limits<double>::quiet_NaN() : found->get<double>();
  return absl::OkStatus();
}

absl::Status ReadText(const Json& json, const char* key, std::string* out) {
  const auto found = json.find(key);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_string()) return Bad(absl::StrCat(key, ": expected a string"));
  *out = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadKindAndStep(const Json& json, StepEvent* event) {
  std::string kind, step;
  LLMC_RETURN_IF_ERROR(ReadText(json, "kind", &kind));
  LLMC_RETURN_IF_ERROR(ReadText(json, "step", &step));
  size_t k = 0;
  while (k < kKinds.size() && kind != kKinds[k]) ++k;
  if (k == kKinds.size()) return Bad("kind: expected begin, progress, end, linear or warning");
  event->kind = static_cast<StepEvent::Kind>(k);
  for (int s = 0; s <= static_cast<int>(Step::kVerify); ++s) {
    event->step = static_cast<Step>(s);
    if (StepName(event->step) == absl::string_view(step)) return absl::OkStatus();
  }
  return Bad("step: expected the name of a step");
}

absl::Status ReadFields(const Json& json, StepEvent* event) {
  int64_t rank = 0;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  LLMC_RETURN_IF_ERROR(ReadInteger(json, "rank", {0, kMaxRank}, &rank));
  event->rank = static_cast<int>(rank);
  LLMC_RETURN_IF_ERROR(ReadInteger(json, "layer", {-1, kMaxLayer}, &event->layer));
  LLMC_RETURN_IF_ERROR(ReadInteger(json, "num_layers", {0, kMaxLayer}, &event->num_layers));
  LLMC_RETURN_IF_ERROR(ReadInteger(json, "rss_bytes", {0, kMax}, &event->rss_bytes));
  LLMC_RETURN_IF_ERROR(ReadNumber(json, "time_s", &event->time_s));
  LLMC_RETURN_IF_ERROR(ReadNumber(json, "done_frac", &event->done_frac));
  LLMC_RETURN_IF_ERROR(ReadNumber(json, "output_error", &event->output_error));
  LLMC_RETURN_IF_ERROR(ReadText(json, "module", &event->module));
  LLMC_RETURN_IF_ERROR(ReadText(json, "message", &event->message));
  if (!(event->time_s >= 0 && event->time_s <= kMaxTime)) return Bad("time_s: out of range");
  if (!(event->done_frac >= 0 && event->done_frac <= 1)) return Bad("done_frac: not in [0, 1]");
  return absl::OkStatus();
}

}  // namespace

std::string ToJsonLine(const StepEvent& event) {
  Json json;
  json["kind"] = kKinds[static_cast<size_t>(event.kind)];
  json["step"] = std::string(StepName(event.step));
  json["rank"] = event.rank;
  if (event.layer != -1) json["layer"] = event.layer;
  if (event.num_layers != 0) json["num_layers"] = event.num_layers;
  json["time_s"] = event.time_s;
  if (event.done_frac != 0) json["done_frac"] = event.done_frac;
  if (event.rss_bytes != 0) json["rss_bytes"] = event.rss_bytes;
  if (!event.module.empty()) json["module"] = event.module;
  if (event.output_error != 0) json["output_error"] = event.output_error;
  if (!event.message.empty()) json["message"] = event.message;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<StepEvent> StepEventFromJsonLine(absl::string_view line) {
  if (line.size() > kMaxLineBytes) return Bad("line: longer than 64 KiB");
  const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Bad("line: expected a JSON object");
  StepEvent event;
  LLMC_RETURN_IF_ERROR(ReadKindAndStep(json, &event));
  LLMC_RETURN_IF_ERROR(ReadFields(json, &event));
  return event;
}

StepSink FanOut(std::vector<StepSink> sinks) {
  return [sinks = std::move(sinks)](const StepEvent& event) {
    for (const StepSink& sink : sinks) {
      if (sink) sink(event);
    }
  };
}

std::string ToString(const SolveNote& note) {
  std::string text = note.method;
  if (note.is_fallback) absl::StrAppend(&text, " fallback");
  if (note.damping_frac) absl::StrAppend(&text, " damping=", *note.damping_frac);
  if (note.num_tokens) absl::StrAppend(&text, " tokens=", *note.num_tokens);
  if (note.sparsity) absl::StrAppend(&text, " sparsity=", *note.sparsity);
  if (!note.reason.empty()) absl::StrAppend(&text, ": ", note.reason);
  return text;
}

SolveNote ParseSolveNote(absl::string_view message) {
  SolveNote note;
  const size_t colon = message.find(": ");
  const absl::string_view head = message.substr(0, colon);
  if (colon != absl::string_view::npos) note.reason = std::string(message.substr(colon + 2));
  for (absl::string_view word : absl::StrSplit(head, ' ', absl::SkipEmpty())) {
    double damping = 0;
    double sparsity = 0;
    int64_t tokens = 0;
    absl::string_view value = word;
    if (absl::ConsumePrefix(&value, "damping=") && absl::SimpleAtod(value, &damping)) {
      note.damping_frac = damping;
    } else if (value = word;
               absl::ConsumePrefix(&value, "tokens=") && absl::SimpleAtoi(value, &tokens)) {
      note.num_tokens = tokens;
    } else if (value = word;
               absl::ConsumePrefix(&value, "sparsity=") && absl::SimpleAtod(value, &sparsity)) {
      note.sparsity = sparsity;
    } else if (word == "fallback" && !note.method.empty()) {
      note.is_fallback = true;
    } else {
      absl::StrAppend(&note.method, note.method.empty() ? "" : " ", word);
    }
  }
  return note;
}

}  // namespace llmc
