#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace llmc {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

// Characters a, b, c and the space marker; "ab" and "abc" by merging.
constexpr char kModel[] = R"({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true,
    "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "▁": 4, "ab": 5, "abc": 6},
    "merges": [["a", "b"], ["ab", "c"]]})";

std::string File(absl::string_view model, absl::string_view rest = "") {
  return absl::StrCat(R"({"version": "1.0", "truncation": {"max_length": 2}, )", rest,
                      R"("model": )", model, "}");
}

std::string Added(absl::string_view content, absl::string_view flags) {
  std::string token = absl::StrCat(
      R"({"id": 7, "content": ")", content,
      R"(", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,)"
      R"( "special": true})");
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
    if (flags.find(flag) != absl::string_view::npos) {
      token = absl::StrReplaceAll(
          token, {{absl::StrCat("\"", flag, "\": false"), absl::StrCat("\"", flag, "\": true")}});
    }
  }
  return absl::StrCat(R"("added_tokens": [)", token, "], ");
}

Ids Encode(const std::string& file, absl::string_view text, bool special = true) {
  const auto tokenizer = Tokenizer::FromJson(file);
  if (!tokenizer.ok()) {
    ADD_FAILURE() << tokenizer.status();
    return {};
  }
  const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

std::string LoadError(const std::string& file) {
  const auto tokenizer = Tokenizer::FromJson(file);
  if (tokenizer.ok()) return "loaded";
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << tokenizer.status();
  return std::string(tokenizer.status().message());
}

class Directory {
 public:
  Directory() {
    path_ = std::filesystem::path(testing::TempDir()) /
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(Encode, Merges_AreTakenByRankThenFromTheLeft) {
  EXPECT_THAT(Encode(File(kModel), "abcabab"), ElementsAre(6, 5, 5));
}

TEST(Encode, EmptyText_GivesNoIds) { EXPECT_THAT(Encode(File(kModel), ""), IsEmpty()); }

TEST(Encode, UnknownCharacters_AreFused) {
  EXPECT_THAT(Encode(File(kModel), "aééb"), ElementsAre(1, 0, 2));
}

TEST(Encode, NoUnknownToken_LeavesCharactersOut) {
  const std::string model = absl::StrReplaceAll(kModel, {{R"("unk_token": "<unk>",)", ""}});
  EXPECT_THAT(Encode(File(model), "aéb"), ElementsAre(5));
}

TEST(Encode, UnknownTokenOutsideVocabulary_InvalidArgument) {
  const std::string model =
      absl::StrReplaceAll(kModel, {{R"("unk_token": "<unk>")", R"("unk_token": "<none>")"}});
  const auto tokenizer = Tokenizer::FromJson(File(model));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE((*tokenizer)->Encode("ab").ok());
  EXPECT_EQ((*tokenizer)->Encode("é").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Encode, AddedTokenWithStrips_TakesTheSpaceAround) {
  const std::string file = File(kModel, Added("<x>", "lstrip rstrip"));
  EXPECT_THAT(Encode(file, "a <x>\n b"), ElementsAre(1, 7, 2));
}

TEST(Encode, SingleWordToken_OnlyWhereItStandsAlone) {
  const std::string file = File(kModel, Added("c", "single_word"));
  EXPECT_THAT(Encode(file, "abc c"), ElementsAre(6, 0, 3));
}

TEST(Encode, Template_AddsSpecialTokensUnlessAskedNotTo) {
  const std::string file = File(kModel, R"("post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"s": {"id": "s", "ids": [4, 3], "tokens": ["x", "y"]}}}, )");
  EXPECT_THAT(Encode(file, "ab"), ElementsAre(4, 3, 5));
  EXPECT_THAT(Encode(file, "ab", false), ElementsAre(5));
}

TEST(Encode, NotUtf8_InvalidArgumentWithOffset) {
  const auto tokenizer = Tokenizer::FromJson(File(kModel));
  ASSERT_TRUE(tokenizer.ok());
  struct Case {
    absl::string_view text;
    const char* offset;
  };
  for (const Case& c : {Case{"abc\xFF", "byte 3"}, Case{"\xC0\x80", "byte 0"},
                        Case{"a\xED\xA0\x80", "byte 1"}, Case{"é\xE2\x82", "byte 2"},
                        Case{"abcdefghijkl\xF4\x90\x80\x80", "byte 12"}, Case{"\x80", "byte 0"}}) {
    const auto ids = (*tokenizer)->Encode(c.text);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr(c.offset));
  }
}

TEST(Encode, ManyThreads_GiveTheSameIds) {
  const auto tokenizer = Tokenizer::FromJson(
      File(kModel, R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁"}, )"));
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "abc ab", i % 7, " ");
  const Ids want = *(*tokenizer)->Encode(text);
  std::vector<Ids> got(4);
  std::vector<std::thread> threads;
  for (Ids& ids : got) {
    threads.emplace_back([&] { ids = *(*tokenizer)->Encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, want);
}

TEST(Encode, TwoTokenizersOnOneThread_KeepTheirWordsApart) {
  const auto one = Tokenizer::FromJson(File(kModel));
  const auto two =
      Tokenizer::FromJson(File(absl::StrReplaceAll(kModel, {{R"(["a", "b"], ["ab", "c"])", ""}})));
  ASSERT_TRUE(one.ok() && two.ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(*(*one)->Encode("abc"), ElementsAre(6));
    EXPECT_THAT(*(*two)->Encode("abc"), ElementsAre(1, 2, 3));
  }
}

TEST(Encode, CatastrophicPattern_ResourceExhausted) {
  const auto tokenizer = Tokenizer::FromJson(
      File(kModel, R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:(?:a|b)+)+\\z"},
                 "behavior": "Isolated", "invert": false}, )"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode(std::string(60, 'a') + "c");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kResourceExhausted) << ids.status();
}

TEST(Encode, LongTexts_TakeLinearTime) {
  const std::string llama3 = File(kModel, absl::StrCat(Added(" ", "lstrip rstrip"), R"(
      "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Split",
      "pattern": {"Regex": "\\s+(?!\\S)|\\s+|\\p{L}+|\\p{N}{1,3}"},
      "behavior": "Isolated", "invert": false}, )"));
  const auto tokenizer = Tokenizer::FromJson(llama3);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* unit : {" ", "a", "abc", "\xCC\x81", "\xCC\xB4\xCC\x81", "\n", "é", "1"}) {
    std::string text;
    while (text.size() < 300000) text += unit;
    EXPECT_TRUE((*tokenizer)->Encode(text).ok());
  }
}

TEST(Ids, TokensAndIds_MapBothWays) {
  const auto tokenizer = Tokenizer::FromJson(File(kModel, Added("<x>", "")));
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->vocab_size(), 8);
  EXPECT_EQ((*tokenizer)->IdOf("abc"), 6);
  EXPECT_EQ((*tokenizer)->IdOf("<x>"), 7);
  EXPECT_EQ((*tokenizer)->IdOf("nothing"), std::nullopt);
  EXPECT_EQ((*tokenizer)->TokenOf(7), "<x>");
  EXPECT_EQ((*tokenizer)->TokenOf(5), "ab");
  EXPECT_EQ((*tokenizer)->TokenOf(8), std::nullopt);
  EXPECT_EQ((*tokenizer)->TokenOf(-1), std::nullopt);
}

TEST(Load, Config_NamesTokensAndLength) {
  Directory directory;
  directory.Write("tokenizer.json", File(kModel));
  directory.Write("tokenizer_config.json", R"({"bos_token": {"content": "a"}, "eos_token": "b",
      "pad_token": null, "model_max_length": 4096,
      "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]})");
  directory.Write("special_tokens_map.json", R"({"eos_token": "c", "unk_token": "zzz"})");
  const auto tokenizer = Tokenizer::Load(directory.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), 1);
  EXPECT_EQ((*tokenizer)->bos_token(), "a");
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_EQ((*tokenizer)->pad_token(), std::nullopt);
  EXPECT_EQ((*tokenizer)->unk_token(), "zzz");
  EXPECT_EQ((*tokenizer)->unk_id(), std::nullopt);
  EXPECT_EQ((*tokenizer)->model_max_length(), 4096);
  EXPECT_EQ((*tokenizer)->chat_template(), "y");
}

TEST(Load, NoLimitLength_IsAbsent) {
  const auto tokenizer =
      Tokenizer::FromJson(File(kModel), R"({"model_max_length": 1000000000000000019884624838656})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->model_max_length(), std::nullopt);
}

TEST(Load, NoDirectory_NotFound) {
  EXPECT_EQ(Tokenizer::Load("/nowhere/at/all").status().code(), absl::StatusCode::kNotFound);
}

TEST(Load, NoTokenizerJson_SaysWhatToDo) {
  Directory directory;
  EXPECT_THAT(std::string(Tokenizer::Load(directory.path()).status().message()),
              HasSubstr("no tokenizer.json"));
  directory.Write("tokenizer.model", "x");
  const absl::Status status = Tokenizer::Load(directory.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("tokenizer.model"), HasSubstr("convert")));
}

TEST(Load, DamagedConfig_InvalidArgument) {
  EXPECT_EQ(Tokenizer::FromJson(File(kModel), "[1]").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Tokenizer::FromJson(File(kModel), "{").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Load, UnsupportedTypes_AreNamed) {
  EXPECT_THAT(LoadError(File(R"({"type": "WordPiece", "vocab": {}})")),
              AllOf(HasSubstr("model"), HasSubstr("WordPiece")));
  EXPECT_THAT(LoadError(File(kModel, R"("normalizer": {"type": "Precompiled"}, )")),
              AllOf(HasSubstr("normalizer"), HasSubstr("Precompiled")));
  EXPECT_THAT(LoadError(File(kModel, R"("pre_tokenizer": {"type": "Sequence", "pretokenizers":
                                     [{"type": "UnicodeScripts"}]}, )")),
              AllOf(HasSubstr("pre_tokenizer[0]"), HasSubstr("UnicodeScripts")));
  EXPECT_THAT(LoadError(File(kModel, R"("post_processor": {"type": "New"}, )")),
              AllOf(HasSubstr("post_processor"), HasSubstr("New")));
  EXPECT_THAT(LoadError(absl::StrReplaceAll(File(kModel), {{"1.0", "2.0"}})), HasSubstr("version"));
}

TEST(Load, DamagedModels_SayWhatIsWrong) {
  const auto with = [](const char* from, const char* to) {
    return LoadError(File(absl::StrReplaceAll(kModel, {{from, to}})));
  };
  EXPECT_THAT(with(R"("b": 2)", R"("b": -2)"), HasSubstr("token id"));
  EXPECT_THAT(with(R"("b": 2)", R"("b": 4294967296)"), HasSubstr("token id"));
  EXPECT_THAT(with(R"("b": 2)", R"("b": 2.5)"), HasSubstr("token id"));
  EXPECT_THAT(with(R"(["a", "b"])", R"(["a", "zz"])"),
              AllOf(HasSubstr("zz"), HasSubstr("merges[0]")));
  EXPECT_THAT(with(R"(["ab", "c"])", R"(["c", "c"])"), HasSubstr("\"cc\""));
  EXPECT_THAT(with(R"(["ab", "c"])", R"("ab c a")"), HasSubstr("two tokens"));
  EXPECT_THAT(with(R"(["ab", "c"])", "3"), HasSubstr("merges[1]"));
  EXPECT_THAT(with(R"("fuse_unk": true)", R"("fuse_unk": 3)"), HasSubstr("fuse_unk"));
  EXPECT_THAT(with(R"("fuse_unk": true)", R"("dropout": 0.1)"), HasSubstr("dropout"));
  EXPECT_THAT(with(R"("fuse_unk": true)", R"("continuing_subword_prefix": "####")"),
              HasSubstr("merges[0]"));
  EXPECT_THAT(LoadError(File(R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1})")),
              HasSubstr("unk_id"));
  EXPECT_THAT(LoadError(File(R"({"type": "Unigram", "vocab": [["a"]]})")), HasSubstr("vocab[0]"));
  EXPECT_THAT(LoadError("{}"), HasSubstr("model"));
  EXPECT_THAT(LoadError("[]"), HasSubstr("object"));
  EXPECT_THAT(LoadError(""), HasSubstr("JSON"));
  EXPECT_THAT(LoadError(File("\"\xFF\"")), HasSubstr("JSON"));
}

TEST(Load, DamagedAddedTokens_SayWhatIsWrong) {
  EXPECT_THAT(LoadError(File(kModel, R"("added_tokens": [{"content": "x"}], )")),
              HasSubstr("added_tokens[0].single_word"));
  EXPECT_THAT(LoadError(File(kModel, R"("added_tokens": 3, )")), HasSubstr("added_tokens"));
  EXPECT_THAT(LoadError(File(kModel, Added(" ", "normalized") +
                                         R"("normalizer": {"type": "Strip", "strip_left": true,
                                            "strip_right": true}, )")),
              HasSubstr("empty"));
}

TEST(Load, WrongPatterns_InvalidArgument) {
  for (const char* pattern :
       {"(",     ")",        "[",        "[a",          "a{3,2}",   "*",        "(?~a)",
        "\\\\1", "(?<=a+)b", "[[:no:]]", "\\\\p{Nope}", "\\\\p{L",  "\\\\",     "\\\\x{110000}",
        "(?z)",  "[z-a]",    "(?",       "(?<n",        "a{99999}", "\\\\k<n>", "\\\\xFF",
        "(?#",   "[^",       "[&&"}) {
    EXPECT_THAT(
        LoadError(File(
            kModel,
            absl::StrCat(
                R"("pre_tokenizer": {"type": "Split", "behavior": "Isolated", "invert": false,)"
                R"( "pattern": {"Regex": ")",
                pattern, R"("}}, )"))),
        HasSubstr("pre_tokenizer.pattern"))
        << pattern;
  }
}

TEST(Load, DeepNesting_IsRefused) {
  std::string sequences;
  std::string ends;
  std::string groups;
  for (int i = 0; i < 5000; ++i) {
    sequences += R"({"type": "Sequence", "normalizers": [)";
    ends += "]}";
    groups += "(?:[";
  }
  EXPECT_THAT(LoadError(File(kModel, absl::StrCat(R"("normalizer": )", sequences, ends, ", "))),
              HasSubstr("nested"));
  EXPECT_NE(LoadError(File(kModel, absl::StrCat(R"("normalizer": {"type": "Replace", "content": "",
                                 "pattern": {"Regex": ")",
                                                groups, "\"}}, "))),
            "loaded");
  EXPECT_NE(LoadError(std::string(100000, '[')), "loaded");
  EXPECT_NE(LoadError(std::string(100000, '[') + std::string(100000, ']')), "loaded");
}

TEST(Load, MutatedFiles_NeverCrash) {
  const std::string file = File(kModel, Added("<x>", "normalized") + R"json(
      "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace",
        "pattern": {"Regex": "[a-c\\s]{2,3}+(?=\\p{L})"}, "content": "▁"}]},
      "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits",
        "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": true}]},
      "post_processor": {"type": "BertProcessing", "sep": ["b", 2], "cls": ["a", 1]}, )json");
  ASSERT_TRUE(Tokenizer::FromJson(file).ok()) << Tokenizer::FromJson(file).status();
  std::mt19937 random(5);
  const std::string bytes = "{}[]\",:\\0123456789-.eanulltruefs?*+()|^$p\xC3\xA9";
  for (int i = 0; i < 4000; ++i) {
    std::string mutated = file;
    for (int n = 0; n < 1 + i % 3; ++n) {
      const size_t at = random() % mutated.size();
      if (random() % 4 == 0) {
        mutated.erase(at, random() % 8);
      } else {
        mutated[at] = bytes[random() % bytes.size()];
      }
    }
    const auto tokenizer = Tokenizer::FromJson(mutated);
    if (tokenizer.ok()) (void)(*tokenizer)->Encode("ab <x>c 12 é▁");
  }
}

}  // namespace
}  // namespace llmc
