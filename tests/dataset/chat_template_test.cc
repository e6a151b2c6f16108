// Renderings against those of transformers (make_template_cases.py), and what a
// hostile template may not do.
#include "dataset/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataset/json_text.h"
#include "llmc/file.h"
#include "tests/dataset/test_files.h"

namespace llmc::dataset {
namespace {

using ::testing::HasSubstr;

const Value& Cases() {
  static const Value kCases = [] {
    auto text = ReadFile(TestData() / "template_cases.json");
    auto value = text.ok() ? ParseJson(*text) : text.status();
    return value.ok() ? *value : Value();
  }();
  return kCases;
}

absl::StatusOr<std::string> RenderSource(absl::string_view source, const Value& variables,
                                         const TemplateLimits& limits = {}) {
  LLMC_ASSIGN_OR_RETURN(const auto parsed, ChatTemplate::Parse(source, "template"));
  return parsed->RenderWith(variables, limits);
}

void ExpectSame(const Value& expected, const absl::StatusOr<std::string>& actual,
                const std::string& where) {
  if (const Value* text = expected.Find("text")) {
    ASSERT_TRUE(actual.ok()) << where << "\n" << actual.status();
    EXPECT_EQ(*actual, text->string()) << where;
  } else {
    EXPECT_FALSE(actual.ok()) << where << "\nexpected an error, got: " << *actual;
  }
}

Value VariablesOf(const Value& rendering) {
  const auto index = static_cast<size_t>(rendering.Find("conversation")->integer());
  const Value tools = rendering.Find("tools")->boolean() ? *Cases().Find("tools") : Value();
  return Value::MakeDict({
      {Value("messages"), Cases().Find("conversations")->items()[index]},
      {Value("tools"), tools},
      {Value("documents"), Value()},
      {Value("add_generation_prompt"), *rendering.Find("prompt")},
      {Value("bos_token"), Value("<s>")},
      {Value("eos_token"), Value("</s>")},
  });
}

TEST(ChatTemplate, KnownStyles_RenderAsTransformersDoes) {
  ASSERT_TRUE(Cases().is_dict());
  for (const Value& rendering : Cases().Find("renderings")->items()) {
    const std::string name = rendering.Find("template")->string();
    const auto source = ReadFile(TestData() / "templates" / name);
    ASSERT_TRUE(source.ok());
    ExpectSame(rendering, RenderSource(*source, VariablesOf(rendering)),
               absl::StrCat(name, " conversation ", rendering.Find("conversation")->integer()));
  }
}

TEST(ChatTemplate, Snippets_RenderAsJinjaDoes) {
  ASSERT_TRUE(Cases().is_dict());
  for (const Value& snippet : Cases().Find("snippets")->items()) {
    const std::string& source = snippet.Find("source")->string();
    ExpectSame(snippet, RenderSource(source, *Cases().Find("variables")), source);
  }
}

Value Messages(absl::string_view text) {
  return Value::MakeList(
      {Value::MakeDict({{Value("role"), Value("user")}, {Value("content"), Value(text)}})});
}

TEST(ChatTemplate, Render_PassesTokensAndDefaults) {
  const auto parsed = ChatTemplate::Parse(
      "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}|{{ tools is none }}|"
      "{{ documents is none }}|{{ add_generation_prompt }}|{{ messages[0].content }}",
      "t");
  ASSERT_TRUE(parsed.ok());
  const auto text = (*parsed)->Render(Messages("hi"), {.bos_token = "<b>", .eos_token = "<e>"});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "<b>|<e>|False|True|True|False|hi");
}

TEST(ChatTemplate, StrftimeNow_IsTheSameOnEveryDay) {
  const auto text = RenderSource("{{ strftime_now('%d %b %Y, %A') }}", Value::MakeDict({}));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "26 Jul 2024, Friday");
}

TEST(ChatTemplate, RaiseException_GivesItsMessageAndLine) {
  const auto text =
      RenderSource("\n\n{{ raise_exception('no system turns') }}", Value::MakeDict({}));
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("template:3: "));
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("no system turns"));
}

TEST(ChatTemplate, SyntaxError_NamesLine) {
  const auto parsed = ChatTemplate::Parse("a\n{% if x %}\n{{ y | nope }}", "file.jinja");
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("file.jinja:3: "));
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("nope"));
}

// Each would hang, exhaust memory or overflow the stack without bounds.
TEST(ChatTemplate, HostileTemplates_FailWithinBounds) {
  const std::vector<std::string> sources = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
      "{% endfor %}",
      "{{ 'x' * 99999999999 }}",
      "{{ [1] * 99999999999 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 10 ** 100 }}",
      "{{ 'a' | center(99999999999) }}",
      "{{ 'a'.ljust(99999999999) }}",
      "{{ 'a' | indent(99999999999) }}",
      "{{ [1] | batch(99999999999, 0) | list }}",
      "{{ ('a' * 9999999).replace('a', 'a' * 9999999) }}",
      "{{ ('a' * 9999999).replace('', 'a' * 99999) }}",
      "{{ ('a' * 99999999).split('a') }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}{{ ns.x == [ns.x[0], ns.x[1]] }}{{ ns.x }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}{{ ns.x | tojson }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(300) %}{% set ns.x = [ns.x.copy] %}"
      "{% endfor %}",
      "{% set x = 'a' * 100000000 %}{% for i in range(99999) %}{% if x == x %}{% endif %}{% endfor "
      "%}",
      "{% set x = 'a' * 100000000 %}{% for i in range(99999) %}{{ x | length }}{% endfor %}",
      "{% set x = 'a' * 1000000 ~ 'b' %}{{ ('a' * 100000000).rfind(x) }}",
      "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
      "{{ '{}'.format() }}",
      "{{ strftime_now('%Y' * 1000) }}",
      "{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}",
      "{{ " + std::string(5000, '[') + std::string(5000, ']') + " }}",
      "{{ " + std::string(100000, '-') + "1 }}",
      "{{ " +
          [] {
            std::string s = "1";
            for (int i = 0; i < 50000; ++i) s += " + 1";
            return s;
          }() +
          " }}",
      "{{ x" +
          [] {
            std::string s;
            for (int i = 0; i < 50000; ++i) s += ".a";
            return s;
          }() +
          " }}",
      "{{ x" +
          [] {
            std::string s;
            for (int i = 0; i < 50000; ++i) s += "|trim";
            return s;
          }() +
          " }}",
      [] {
        std::string s;
        for (int i = 0; i < 50000; ++i) s += "{% if true %}";
        return s;
      }(),
      "{% if a %}" +
          [] {
            std::string s;
            for (int i = 0; i < 50000; ++i) s += "{% elif a %}";
            return s;
          }(),
      std::string(2 << 20, 'a'),
      "{{ '\\ud800' }}",
      "\xff\xfe",
  };
  for (const std::string& source : sources) {
    const auto text = RenderSource(source, Value::MakeDict({}));
    EXPECT_FALSE(text.ok()) << source.substr(0, 200);
  }
}

TEST(ChatTemplate, Circles_AreFreed) {
  // The leak check of a sanitizer build is what judges this one.
  const auto text = RenderSource(
      "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{{ ns }}{% endmacro %}"
      "{% set ns.m = m %}{% for i in [1] %}{% macro inner() %}x{% endmacro %}{% set ns.i = inner %}"
      "{% endfor %}{{ ns.i() }}",
      Value::MakeDict({}));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "x");
}

TEST(ChatTemplate, Limits_StopLongOutput) {
  const auto text = RenderSource("{% for i in range(1000) %}0123456789{% endfor %}",
                                 Value::MakeDict({}), {.max_output = 100});
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(ChatTemplate, Load_PrefersTheFileOverTheConfig) {
  const TemporaryDirectory dir;
  const auto tokenizer_json = ReadFile(ExampleModel() / "tokenizer.json");
  ASSERT_TRUE(tokenizer_json.ok());
  const auto tokenizer = Tokenizer::FromJson(*tokenizer_json, R"({"chat_template": "config"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto from_config = ChatTemplate::Load(dir.path(), **tokenizer);
  ASSERT_TRUE(from_config.ok()) << from_config.status();
  EXPECT_EQ(*(*from_config)->Render(Messages("a"), {}), "config");
  dir.Write("chat_template.jinja", "file");
  const auto from_file = ChatTemplate::Load(dir.path(), **tokenizer);
  ASSERT_TRUE(from_file.ok()) << from_file.status();
  EXPECT_EQ(*(*from_file)->Render(Messages("a"), {}), "file");
}

TEST(ChatTemplate, Load_WithoutTemplate_SaysWhereOneIsExpected) {
  const TemporaryDirectory dir;
  const auto tokenizer = Tokenizer::Load(ExampleModel());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto loaded = ChatTemplate::Load(dir.path(), **tokenizer);
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("chat_template.jinja"));
}

}  // namespace
}  // namespace llmc::dataset
