#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

template <typename T>
using Owned = std::unique_ptr<T, Free>;

constexpr size_t kJitStackStart = size_t{32} << 10;
constexpr uint32_t kMatchHeapKib = 64 << 10;
constexpr size_t kJitStackMax = size_t{16} << 20;
// Far above any tokenizer's pattern; keeps a hostile one from growing in PCRE2.
constexpr size_t kMaxPatternBytes = size_t{1} << 16;

// What one thread needs to match, whatever the pattern.
struct Matcher {
  Owned<pcre2_match_data> data{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_match_context> limits{pcre2_match_context_create(nullptr)};
  Owned<pcre2_jit_stack> stack{pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)};

  Matcher() {
    pcre2_jit_stack_assign(limits.get(), nullptr, stack.get());
    pcre2_set_heap_limit(limits.get(), kMatchHeapKib);
  }
};

std::string Pcre2Message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer;
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Program {
  Owned<pcre2_code> code;
  bool jit = false;
  bool literal = false;

  // The result of pcre2_match at or after `offset`: >= 0, PCRE2_ERROR_NOMATCH or
  // another error.
  int Match(absl::string_view text, size_t offset, Matcher* matcher) const;
};

int Regex::Program::Match(absl::string_view text, size_t offset, Matcher* matcher) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  if (jit) {
    const int result = pcre2_jit_match(code.get(), subject, text.size(), offset, PCRE2_NO_UTF_CHECK,
                                       matcher->data.get(), matcher->limits.get());
    if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
  }
  return pcre2_match(code.get(), subject, text.size(), offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     matcher->data.get(), matcher->limits.get());
}

Regex::Regex(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

namespace {

absl::StatusOr<Owned<pcre2_code>> CompilePcre2(absl::string_view pattern, uint32_t options) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pattern.size(), " bytes, expected at most ", kMaxPatternBytes));
  }
  Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Owned<pcre2_code> code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       options, &error, &offset, context.get()));
  if (!code) return absl::InvalidArgumentError(Pcre2Message(error));
  return code;
}

}  // namespace

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  auto program = std::make_unique<Program>();
  absl::StatusOr<std::string> translated = PatternFromOniguruma(pattern);
  if (translated.ok()) {
    auto code = CompilePcre2(*translated, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE);
    if (code.ok()) {
      program->code = *std::move(code);
    } else {
      translated = std::move(code).status();
    }
  }
  if (!translated.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression \"", pattern.substr(0, 200),
                                                   "\": ", translated.status().message()));
  }
  program->jit = pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE) == 0;
  // A pattern that spells out a newer character must see it in the text.
  program->literal = HasNewerCharacters(pattern);
  return Regex(std::move(program));
}

absl::StatusOr<Regex> Regex::CompileLiteral(absl::string_view text) {
  auto program = std::make_unique<Program>();
  const uint32_t options = PCRE2_UTF | (text.empty() ? 0 : PCRE2_LITERAL);
  LLMC_ASSIGN_OR_RETURN(program->code, CompilePcre2(text, options));
  program->jit = pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE) == 0;
  program->literal = true;
  return Regex(std::move(program));
}

absl::Status Regex::FindAll(absl::string_view text, std::vector<Span>* matches) const {
  thread_local Matcher matcher;
  std::string older;
  if (!program_->literal && HasNewerCharacters(text)) {
    older = WithOlderCharacters(text);
    text = older;
  }
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(matcher.data.get());
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t previous_end = kNone;
  for (size_t offset = 0; offset <= text.size();) {
    const int result = program_->Match(text, offset, &matcher);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("regular expression on ", text.size(), " bytes: ", Pcre2Message(result)));
    }
    const Span match{found[0], found[1]};
    if (match.begin == match.end && match.end == previous_end) {
      // The same empty place again: go on one character further.
      offset += offset < text.size() ? Utf8Length(text[offset]) : 1;
      continue;
    }
    offset = previous_end = match.end;
    matches->push_back(match);
  }
  return absl::OkStatus();
}

bool Regex::CanMatchEmpty() const {
  uint32_t can = 0;
  pcre2_pattern_info(program_->code.get(), PCRE2_INFO_MATCHEMPTY, &can);
  return can != 0;
}

}  // namespace llmc
