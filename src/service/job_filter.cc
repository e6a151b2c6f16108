#include "service/job_filter.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "service/access.h"

namespace llmc {
namespace {

using Predicate = std::function<bool(const v1::Job&)>;

constexpr size_t kMaxFilterBytes = 2048;
constexpr size_t kSignatureBytes = 16;

struct Term {
  std::string field;
  std::string op;
  std::string value;
};

absl::Status BadTerm(absl::string_view term, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("filter: \"", term, "\": expected ", expected));
}

absl::StatusOr<Term> ParseTerm(const std::string& text) {
  const size_t begin = text.find_first_of("=!<>");
  const size_t end = begin == std::string::npos ? begin : text.find_first_not_of("=!<>", begin);
  if (end == std::string::npos) return BadTerm(text, "field, operator and value");
  Term term{std::string(absl::StripAsciiWhitespace(text.substr(0, begin))),
            text.substr(begin, end - begin),
            std::string(absl::StripAsciiWhitespace(text.substr(end)))};
  const std::string& value = term.value;
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    term.value = value.substr(1, value.size() - 2);
  }
  return term;
}

absl::StatusOr<Predicate> ParsePriority(const Term& term, const std::string& text) {
  int wanted = 0;
  if (!absl::SimpleAtoi(term.value, &wanted)) return BadTerm(text, "a number");
  static const std::map<std::string, std::function<bool(int, int)>> kOps = {
      {"=", std::equal_to<>()},    {"!=", std::not_equal_to<>()}, {"<", std::less<>()},
      {"<=", std::less_equal<>()}, {">", std::greater<>()},       {">=", std::greater_equal<>()}};
  const auto op = kOps.find(term.op);
  if (op == kOps.end()) return BadTerm(text, "=, !=, <, <=, > or >=");
  return Predicate([wanted, compare = op->second](const v1::Job& job) {
    return compare(job.has_priority() ? job.priority() : 50, wanted);
  });
}

absl::StatusOr<std::function<std::string(const v1::Job&)>> TextField(const std::string& field,
                                                                     const std::string& text) {
  using Getter = std::function<std::string(const v1::Job&)>;
  if (field == "state")
    return Getter([](auto& job) { return std::string(StateName(job.state())); });
  if (field == "submitter") return Getter([](auto& job) { return job.submitter(); });
  if (field == "pool") return Getter([](auto& job) { return job.pool(); });
  if (field == "name") return Getter([](auto& job) { return job.name(); });
  if (absl::StartsWith(field, "labels.") && field.size() > 7) {
    return Getter([key = field.substr(7)](auto& job) {
      const auto label = job.labels().find(key);
      return label == job.labels().end() ? std::string() : label->second;
    });
  }
  return BadTerm(text, "state, submitter, pool, name, priority or labels.KEY");
}

absl::StatusOr<Predicate> ParsePredicate(const std::string& text) {
  LLMC_ASSIGN_OR_RETURN(const Term term, ParseTerm(text));
  if (term.field == "priority") return ParsePriority(term, text);
  LLMC_ASSIGN_OR_RETURN(const auto get, TextField(term.field, text));
  if (term.op != "=" && term.op != "!=") return BadTerm(text, "= or !=");
  v1::JobState state;
  if (term.field == "state" && !v1::JobState_Parse("JOB_STATE_" + term.value, &state)) {
    return BadTerm(text, "a state such as RUNNING");
  }
  return Predicate([get, value = term.value, equal = term.op == "="](const v1::Job& job) {
    return (get(job) == value) == equal;
  });
}

}  // namespace

absl::StatusOr<Predicate> ParseJobFilter(const std::string& filter) {
  if (filter.size() > kMaxFilterBytes) {
    return absl::InvalidArgumentError("filter: more than 2048 bytes");
  }
  std::vector<Predicate> terms;
  for (const std::string& term :
       std::vector<std::string>(absl::StrSplit(filter, " AND ", absl::SkipWhitespace()))) {
    LLMC_ASSIGN_OR_RETURN(Predicate predicate, ParsePredicate(term));
    terms.push_back(std::move(predicate));
  }
  return Predicate([terms = std::move(terms)](const v1::Job& job) {
    for (const Predicate& term : terms) {
      if (!term(job)) return false;
    }
    return true;
  });
}

std::string SignToken(const std::string& secret, const std::string& scope,
                      const std::string& content) {
  const std::string signature =
      HmacSha256(secret, absl::StrCat(scope, "\n", content)).substr(0, kSignatureBytes);
  return absl::WebSafeBase64Escape(signature + content);
}

absl::StatusOr<std::string> ReadToken(const std::string& secret, const std::string& scope,
                                      const std::string& token) {
  std::string decoded;
  if (token.size() > 4096 || !absl::WebSafeBase64Unescape(token, &decoded) ||
      decoded.size() < kSignatureBytes) {
    return absl::InvalidArgumentError("the token was not given out by this server");
  }
  const std::string content = decoded.substr(kSignatureBytes);
  const std::string signature =
      HmacSha256(secret, absl::StrCat(scope, "\n", content)).substr(0, kSignatureBytes);
  if (EqualInConstantTime(signature, decoded.substr(0, kSignatureBytes))) return content;
  return absl::InvalidArgumentError("the token belongs to another request");
}

}  // namespace llmc
