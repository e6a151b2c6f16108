#include "checkpoint/strict_json.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/posix_file.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

// Follows the parser; throws what ParseStrictJson turns into a status.
class Guard {
 public:
  explicit Guard(int max_depth) : max_depth_(max_depth) {}

  bool operator()(Json::parse_event_t event, const Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        if (static_cast<int>(keys_.size()) >= max_depth_)
          throw absl::InvalidArgumentError(absl::StrCat("nested more than ", max_depth_, " deep"));
        keys_.emplace_back();
        break;
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end:
        keys_.pop_back();
        break;
      case Json::parse_event_t::key:
        if (!keys_.back().insert(parsed.get_ref<const std::string&>()).second)
          throw absl::InvalidArgumentError(
              absl::StrCat("key ", Quoted(parsed.get_ref<const std::string&>()), " given twice"));
        break;
      case Json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  int max_depth_;
  std::vector<std::set<std::string>> keys_;  // Of the open objects; empty sets for arrays.
};

absl::StatusOr<Json> Parse(absl::string_view text, int max_depth) {
  Guard guard(max_depth);
  try {
    return Json::parse(
        text.begin(), text.end(),
        [&guard](int, Json::parse_event_t event, Json& parsed) { return guard(event, parsed); });
  } catch (const absl::Status& status) {
    return status;
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not valid JSON: ", absl::CHexEscape(absl::string_view(e.what()).substr(0, 300))));
  }
}

}  // namespace

absl::StatusOr<Json> ParseStrictJson(absl::string_view text, absl::string_view where,
                                     const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", text.size(), " bytes, expected at most ", limits.max_bytes));
  }
  // The parser takes a NUL for the end of the text and would not see what follows.
  if (text.find('\0') != absl::string_view::npos)
    return absl::InvalidArgumentError(absl::StrCat(where, ": not valid JSON: a NUL byte"));
  absl::StatusOr<Json> parsed = Parse(text, limits.max_depth);
  if (!parsed.ok()) return At(where, parsed.status());
  return parsed;
}

absl::StatusOr<Json> ReadStrictJson(const std::filesystem::path& path, const JsonLimits& limits) {
  LLMC_ASSIGN_OR_RETURN(const PosixFile file, PosixFile::OpenForReading(path));
  LLMC_ASSIGN_OR_RETURN(const std::string text, file.ReadAll(limits.max_bytes));
  return ParseStrictJson(text, path.string(), limits);
}

std::string Quoted(absl::string_view text) {
  constexpr size_t kLimit = 200;
  const bool cut = text.size() > kLimit;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kLimit)), cut ? "...\"" : "\"");
}

}  // namespace llmc
