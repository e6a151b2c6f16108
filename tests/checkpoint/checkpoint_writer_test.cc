#include "checkpoint/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "checkpoint/content_hash.h"
#include "checkpoint/journal.h"
#include "checkpoint/strict_json.h"
#include "scratch_directory.h"

namespace llmc {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
namespace fs = std::filesystem;
using Writer = std::unique_ptr<CheckpointWriter>;

constexpr int kUnits = 3;

std::string TensorName(int unit, const char* suffix) {
  return absl::StrCat("layer.", unit, ".", suffix);
}

// Two tensors a unit; "copied" comes from the model.
std::vector<TensorSpec> Tensors() {
  std::vector<TensorSpec> tensors;
  for (int unit = 0; unit < kUnits; ++unit) {
    tensors.push_back({TensorName(unit, "w"), DType::kI32, {40, 3}});
    tensors.push_back({TensorName(unit, "s"), DType::kBF16, {5}});
  }
  tensors.push_back({"copied", DType::kF32, {2}});
  return tensors;
}

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

std::string Content(const TensorSpec& spec) {
  std::string bytes(static_cast<size_t>(spec.num_bytes()), '\0');
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>(i * 7 + spec.name.size() + spec.name.back() + spec.name[6]);
  return bytes;
}

// A job whose model is DIR/model and whose output is DIR/out.
WriterOptions JobOptions(const fs::path& dir) {
  WriterOptions options;
  options.output_dir = dir / "out";
  options.model_dir = dir / "model";
  options.layout = *OutputLayout::Make(Tensors(), 600);
  options.fingerprint = {{"recipe", "r1"}, {"source", "s1"}};
  return options;
}

absl::Status WriteUnit(CheckpointWriter& writer, int unit) {
  DoneUnit done;
  done.name = absl::StrCat("layer ", unit);
  for (const PlacedTensor& tensor : writer.layout().tensors()) {
    if (tensor.spec.name.rfind(TensorName(unit, ""), 0) != 0) continue;
    LLMC_RETURN_IF_ERROR(writer.Write(tensor.spec.name, Bytes(Content(tensor.spec))));
    done.tensors.push_back(tensor.spec.name);
  }
  done.payload = {{"unit", unit}};
  LLMC_RETURN_IF_ERROR(writer.Sync());
  return writer.MarkDone(done);
}

absl::Status WriteCopied(CheckpointWriter& writer, const fs::path& model_dir) {
  LLMC_ASSIGN_OR_RETURN(const auto model, Checkpoint::Open(model_dir));
  LLMC_ASSIGN_OR_RETURN(const std::string hash, writer.CopyTensor(*model, "copied", "copied"));
  LLMC_RETURN_IF_ERROR(writer.Sync());
  return writer.MarkDone({"copied", {"copied"}, {{"copied", hash}}, nullptr});
}

CommitContents Contents(const fs::path& model_dir) {
  CommitContents contents;
  contents.config_json = "{\"quantization_config\": 1}";
  contents.files = {{"recipe.yaml", "r\n"}, {"README.md", "card\n"}};
  contents.reports = {{"llmc_report.html", "<html>"}};
  contents.source_dir = model_dir;
  contents.source_files = {"tokenizer.json"};
  contents.manifest = {{"llmc_version", "1"}};
  return contents;
}

// A whole job, going on where an earlier one ended.
absl::Status RunJob(const WriterOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const Writer writer, CheckpointWriter::Create(options));
  if (writer->committed()) return absl::OkStatus();
  for (int unit = 0; unit < kUnits; ++unit)
    if (!writer->IsDone(absl::StrCat("layer ", unit)))
      LLMC_RETURN_IF_ERROR(WriteUnit(*writer, unit));
  if (!writer->IsDone("copied")) LLMC_RETURN_IF_ERROR(WriteCopied(*writer, options.model_dir));
  return writer->Commit(Contents(options.model_dir));
}

// True when a failed fsync makes everything after it fail.
bool FailedSyncSticks(const fs::path& dir) {
  const absl::StatusOr<Writer> writer = CheckpointWriter::Create(JobOptions(dir));
  if (!writer.ok() || (*writer)->Sync().code() != absl::StatusCode::kInternal) return false;
  const auto refused = absl::StatusCode::kFailedPrecondition;
  return (*writer)->Sync().code() == refused &&
         (*writer)->MarkDone({"u", {}, {}, nullptr}).code() == refused &&
         (*writer)->Commit(Contents(dir / "model")).code() == refused;
}

// What a child process of a test does; its exit code.
int ChildMain(const std::string& action, const fs::path& dir) {
  if (action == "failed-sync") return FailedSyncSticks(dir) ? 0 : 1;
  WriterOptions options = JobOptions(dir);
  options.overwrite = action == "overwrite";
  return RunJob(options).ok() ? 0 : 1;
}

// The wait status of a child with failpoints. It is a new program, because the
// failpoints are read once in a process.
int RunChild(const std::string& failpoints, const char* action, const fs::path& dir) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("LLMC_FAILPOINTS", failpoints.c_str(), 1);
    ::execl("/proc/self/exe", "child", "--child", action, dir.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

class CheckpointWriterTest : public ::testing::Test {
 protected:
  CheckpointWriterTest() {
    WriteFile(model_ / "config.json", "{}");
    WriteFile(model_ / "tokenizer.json", "{\"t\": 1}");
    WriteFile(model_ / "model.safetensors",
              Safetensors(absl::StrCat("{", F32Entry("copied", 2, 0), "}"), "12345678"));
  }

  WriterOptions Options() { return JobOptions(dir_.path()); }

  Writer Create(WriterOptions options) {
    absl::StatusOr<Writer> writer = CheckpointWriter::Create(std::move(options));
    EXPECT_TRUE(writer.ok()) << writer.status();
    return writer.ok() ? *std::move(writer) : nullptr;
  }

  std::string CreateError(WriterOptions options,
                          absl::StatusCode code = absl::StatusCode::kFailedPrecondition) {
    const absl::Status status = CheckpointWriter::Create(std::move(options)).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }

  ScratchDirectory dir_;
  fs::path model_ = dir_ / "model";
  fs::path output_ = dir_ / "out";
  fs::path staging_ = dir_ / "out.llmc-partial";
};

TEST_F(CheckpointWriterTest, WholeJob_GivesACompleteOutput) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const auto tree = TreeContents(output_);
  EXPECT_THAT(tree, AllOf(Contains(Key("config.json")), Contains(Key("recipe.yaml")),
                          Contains(Key("tokenizer.json")), Contains(Key("llmc_report.html")),
                          Contains(Key("model.safetensors.index.json")),
                          Not(Contains(Key("llmc_journal")))));
  EXPECT_FALSE(fs::exists(staging_));
  const auto checkpoint = Checkpoint::Open(output_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const TensorSpec& spec : Tensors()) {
    const auto tensor = (*checkpoint)->Read(spec.name);
    ASSERT_TRUE(tensor.ok());
    const std::string expected = spec.name == "copied" ? "12345678" : Content(spec);
    EXPECT_EQ(std::string(tensor->as<char>(), expected.size()), expected);
  }
  for (const auto& entry : fs::directory_iterator(output_))
    EXPECT_EQ(static_cast<int>(entry.status().permissions()), 0644) << entry.path();
}

TEST_F(CheckpointWriterTest, Manifest_HoldsHashesOfTensorsAndFiles) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const auto manifest = ReadStrictJson(output_ / "llmc_manifest.json");
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ((*manifest)["fingerprint"]["recipe"], "r1");
  EXPECT_EQ((*manifest)["llmc_version"], "1");
  EXPECT_EQ((*manifest)["tensors"].size(), Tensors().size());
  EXPECT_EQ((*manifest)["tensors"]["copied"]["xxh3_128"], ContentHash("12345678"));
  EXPECT_EQ((*manifest)["tensors"]["layer.0.s"]["dtype"], "BF16");
  EXPECT_EQ((*manifest)["files"]["tokenizer.json"]["xxh3_128"], ContentHash("{\"t\": 1}"));
  EXPECT_TRUE((*manifest)["files"].contains("config.json"));
  EXPECT_FALSE((*manifest)["files"].contains("llmc_report.html"));
}

TEST_F(CheckpointWriterTest, Output_LoadsInThePythonPackages) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const std::string script =
      "import sys,json; from safetensors import safe_open; d=sys.argv[1]; "
      "m=json.load(open(d+'/model.safetensors.index.json'))['weight_map']; "
      "r={n: safe_open(d+'/'+f,'np') for n,f in m.items()}; "
      "assert all(x.metadata()=={'format':'pt'} for x in r.values()); "
      "assert r['layer.1.w'].get_tensor('layer.1.w').shape==(40,3); "
      "assert r['copied'].get_tensor('copied').tobytes()==b'12345678'";
  EXPECT_EQ(std::system(absl::StrCat(LLMC_SOURCE_DIR, "/.venv/bin/python -c \"", script, "\" ",
                                     output_.string())
                            .c_str()),
            0);
}

// Every place where a run can die, at its first and at a later visit.
class CrashTest : public CheckpointWriterTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(CrashTest, ThenResumed_GivesTheSameBytes) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const auto expected = TreeContents(output_);
  fs::remove_all(output_);
  for (int hit : {1, 2, 4}) {
    const int status = RunChild(absl::StrCat(GetParam(), "=kill@", hit), "run", dir_.path());
    const bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    ASSERT_TRUE(hit == 1 ? killed : killed || finished) << status;
    // Absent or complete, whatever happened.
    EXPECT_TRUE(!fs::exists(output_) || Checkpoint::Open(output_).ok());
    ASSERT_TRUE(RunJob(Options()).ok());
    EXPECT_EQ(TreeContents(output_), expected);
    EXPECT_FALSE(fs::exists(staging_));
    fs::remove_all(output_);
  }
}

TEST_P(CrashTest, WhileReplacing_KeepsOldOrNew) {
  WriterOptions old = Options();
  old.fingerprint["recipe"] = "old";
  ASSERT_TRUE(RunJob(old).ok());
  WriterOptions options = Options();
  options.overwrite = true;
  ASSERT_TRUE(WIFSIGNALED(RunChild(absl::StrCat(GetParam(), "=kill"), "overwrite", dir_.path())));
  ASSERT_TRUE(Checkpoint::Open(output_).ok());
  ASSERT_TRUE(RunJob(options).ok());
  const auto manifest = ReadStrictJson(output_ / "llmc_manifest.json");
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ((*manifest)["fingerprint"]["recipe"], "r1");
  EXPECT_FALSE(fs::exists(staging_));
  EXPECT_FALSE(fs::exists(output_ / "llmc_journal"));
}

INSTANTIATE_TEST_SUITE_P(Failpoints, CrashTest,
                         ::testing::Values("staging.created", "write.tensor", "write.before_sync",
                                           "journal.append", "journal.before_sync",
                                           "journal.after_sync", "commit.begin",
                                           "commit.before_manifest", "commit.before_rename",
                                           "commit.after_rename"));

TEST_F(CheckpointWriterTest, Resume_KnowsDoneUnitsAndTheirPayload) {
  {
    const Writer writer = Create(Options());
    ASSERT_TRUE(WriteUnit(*writer, 1).ok());
  }
  const Writer writer = Create(Options());
  EXPECT_FALSE(writer->IsDone("layer 0"));
  EXPECT_TRUE(writer->IsDone("layer 1"));
  EXPECT_EQ(writer->Payload("layer 1")["unit"], 1);
  const auto tensor = writer->Read("layer.1.w");
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(std::string(tensor->as<char>(), 480), Content({"layer.1.w", DType::kI32, {40, 3}}));
  EXPECT_TRUE(writer->warnings().empty());
}

TEST_F(CheckpointWriterTest, DamagedUnit_IsDoneAgain) {
  {
    const Writer writer = Create(Options());
    ASSERT_TRUE(WriteUnit(*writer, 0).ok());
    ASSERT_TRUE(WriteUnit(*writer, 1).ok());
    // Written after the mark, as a flipped bit on disk would be.
    ASSERT_TRUE(writer->WriteAt("layer.1.s", 3, Bytes("x")).ok());
  }
  {
    const Writer writer = Create(Options());
    EXPECT_TRUE(writer->IsDone("layer 0"));
    EXPECT_FALSE(writer->IsDone("layer 1"));
    EXPECT_THAT(writer->warnings(), ElementsAre(HasSubstr("layer.1.s")));
    const auto other = CheckpointWriter::Open(Options());
    ASSERT_TRUE(other.ok());
    EXPECT_FALSE((*other)->IsDone("layer 1"));
  }
  ASSERT_TRUE(RunJob(Options()).ok());
}

TEST_F(CheckpointWriterTest, JournalThatSaysAnything_IsAnErrorNotADeath) {
  using Json = nlohmann::json;
  const std::vector<Json> begins = {
      3,
      "begin",
      Json::array({1}),
      {{"kind", 3}},
      {{"kind", "begin"}, {"version", "1"}},
      {{"kind", "begin"}, {"version", 1}, {"fingerprint", {{"recipe", 3}}}}};
  for (const Json& begin : begins) {
    fs::remove_all(staging_);
    fs::create_directories(staging_);
    ASSERT_TRUE((*Journal::Open(staging_ / "llmc_journal"))->Append(begin).ok());
    EXPECT_THAT(CreateError(Options()), HasSubstr("another version")) << begin;
  }
  fs::remove_all(staging_);
  ASSERT_TRUE(WriteUnit(*Create(Options()), 0).ok());
  {
    const auto journal = Journal::Open(staging_ / "llmc_journal");
    const std::vector<Json> records = {
        Json::array({"done"}),
        nullptr,
        {{"kind", "done"}, {"unit", 1}},
        {{"kind", "void"}},
        {{"kind", "done"}, {"unit", "layer 1"}, {"hashes", 3}},
        {{"kind", "done"}, {"unit", "layer 2"}, {"hashes", {{"layer.2.w", Json::array()}}}}};
    for (const Json& record : records) ASSERT_TRUE((*journal)->Append(record).ok());
  }
  const Writer writer = Create(Options());
  EXPECT_TRUE(writer->IsDone("layer 0"));
  EXPECT_FALSE(writer->IsDone("layer 1") || writer->IsDone("layer 2"));
}

TEST_F(CheckpointWriterTest, LostShard_IsMadeAgain) {
  ASSERT_TRUE(WriteUnit(*Create(Options()), 0).ok());
  for (const auto& entry : fs::directory_iterator(staging_))
    if (entry.path().extension() == ".safetensors") fs::remove(entry.path());
  EXPECT_FALSE(Create(Options())->IsDone("layer 0"));
  ASSERT_TRUE(RunJob(Options()).ok());
  EXPECT_TRUE(Checkpoint::Open(output_).ok());
}

TEST_F(CheckpointWriterTest, SeveralRanks_WritePartsOfOneTensor) {
  const Writer leader = Create(Options());
  const auto rank = CheckpointWriter::Open(Options());
  ASSERT_TRUE(rank.ok()) << rank.status();
  const std::string content = Content({"layer.0.w", DType::kI32, {40, 3}});
  ASSERT_TRUE(leader->WriteAt("layer.0.w", 0, Bytes(content.substr(0, 100))).ok());
  ASSERT_TRUE((*rank)->WriteAt("layer.0.w", 100, Bytes(content.substr(100))).ok());
  ASSERT_TRUE((*rank)->Sync().ok());
  const auto hash = leader->HashTensor("layer.0.w");
  ASSERT_TRUE(hash.ok());
  EXPECT_EQ(*hash, ContentHash(content));
  EXPECT_FALSE((*rank)->MarkDone({"layer 0", {}, {}, nullptr}).ok());
}

TEST_F(CheckpointWriterTest, OpenWithoutLeader_IsRefused) {
  EXPECT_EQ(CheckpointWriter::Open(Options()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(CheckpointWriterTest, TwoLiveRuns_SecondIsRefused) {
  const Writer first = Create(Options());
  EXPECT_THAT(CreateError(Options()), HasSubstr("another live run"));
  WriterOptions fresh = Options();
  fresh.fresh = true;
  EXPECT_THAT(CreateError(fresh), HasSubstr("another live run"));
}

TEST_F(CheckpointWriterTest, OtherFingerprint_IsRefusedByNameUnlessFresh) {
  ASSERT_TRUE(WriteUnit(*Create(Options()), 0).ok());
  WriterOptions other = Options();
  other.fingerprint["recipe"] = "r2";
  EXPECT_THAT(CreateError(other), AllOf(HasSubstr("recipe (\"r1\" there, \"r2\" here)"),
                                        Not(HasSubstr("source")), HasSubstr("--fresh")));
  other.fresh = true;
  EXPECT_FALSE(Create(other)->IsDone("layer 0"));
}

TEST_F(CheckpointWriterTest, OtherLayout_IsRefused) {
  Create(Options());
  WriterOptions other = Options();
  other.layout = *OutputLayout::Make(Tensors(), 100000);
  EXPECT_THAT(CreateError(other), HasSubstr("layout"));
}

TEST_F(CheckpointWriterTest, ForeignOutput_IsLeftAlone) {
  WriteFile(output_ / "precious.txt", "x");
  WriterOptions options = Options();
  options.fresh = options.overwrite = true;
  EXPECT_THAT(CreateError(options), HasSubstr("not written by llmc"));
  EXPECT_EQ(FileContents(output_ / "precious.txt"), "x");
}

TEST_F(CheckpointWriterTest, OutputIsALinkOrFile_IsRefused) {
  fs::create_directories(dir_ / "elsewhere");
  fs::create_symlink(dir_ / "elsewhere", output_);
  CreateError(Options());
  fs::remove(output_);
  WriteFile(output_, "x");
  CreateError(Options());
}

TEST_F(CheckpointWriterTest, EmptyOutputDirectory_IsUsed) {
  fs::create_directories(output_);
  ASSERT_TRUE(RunJob(Options()).ok());
}

TEST_F(CheckpointWriterTest, ForeignStaging_IsLeftAlone) {
  WriteFile(staging_ / "precious.txt", "x");
  WriterOptions options = Options();
  options.fresh = true;
  EXPECT_THAT(CreateError(options), HasSubstr("not made by llmc"));
  EXPECT_TRUE(fs::exists(staging_ / "precious.txt"));
}

TEST_F(CheckpointWriterTest, FinishedOutput_SameJobHasNothingToDo) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const Writer again = Create(Options());
  EXPECT_TRUE(again->committed());
  EXPECT_FALSE(fs::exists(staging_));
}

TEST_F(CheckpointWriterTest, FinishedOutputOfAnotherJob_IsReplacedOnlyOnRequest) {
  ASSERT_TRUE(RunJob(Options()).ok());
  WriterOptions other = Options();
  other.fingerprint["recipe"] = "r2";
  EXPECT_THAT(CreateError(other), AllOf(HasSubstr("recipe"), HasSubstr("--overwrite")));
  other.overwrite = true;
  ASSERT_TRUE(RunJob(other).ok());
  const auto manifest = ReadStrictJson(output_ / "llmc_manifest.json");
  EXPECT_EQ((*manifest)["fingerprint"]["recipe"], "r2");
  EXPECT_FALSE(fs::exists(staging_));
}

TEST_F(CheckpointWriterTest, OutputAndModelOverlap_IsRefused) {
  fs::create_directory_symlink(model_, dir_ / "alias");
  for (const fs::path& output :
       {model_, model_ / "out", dir_.path(), dir_ / "alias" / "out", dir_ / "alias",
        dir_ / "x" / ".." / "model" / "y", fs::path(model_.string() + "/")}) {
    WriterOptions options = Options();
    options.output_dir = output;
    CreateError(options, absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(TreeContents(model_).size(), 3u);
}

TEST_F(CheckpointWriterTest, OutputBesideModelWithSamePrefix_IsFine) {
  WriterOptions options = Options();
  options.output_dir = dir_ / "model-W4A16/";
  EXPECT_TRUE(RunJob(options).ok());
  EXPECT_TRUE(fs::exists(dir_ / "model-W4A16" / "llmc_manifest.json"));
}

TEST_F(CheckpointWriterTest, CommitWithUnwrittenTensor_IsRefused) {
  const Writer writer = Create(Options());
  for (int unit = 0; unit < kUnits; ++unit) ASSERT_TRUE(WriteUnit(*writer, unit).ok());
  const absl::Status status = writer->Commit(Contents(model_));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("copied"));
}

TEST_F(CheckpointWriterTest, CommitWithHostileFileName_IsRefused) {
  for (const char* name : {"../x", "/tmp/x", "", "a//b", "a/./b", "llmc_manifest.json",
                           "llmc_journal", "model-00001-of-00003.safetensors"}) {
    const Writer writer = Create(Options());
    for (int unit = 0; unit < kUnits; ++unit) ASSERT_TRUE(WriteUnit(*writer, unit).ok());
    ASSERT_TRUE(WriteCopied(*writer, model_).ok());
    CommitContents contents = Contents(model_);
    contents.files[name] = "x";
    EXPECT_EQ(writer->Commit(contents).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_FALSE(fs::exists(output_));
  }
}

TEST_F(CheckpointWriterTest, OutputAppearsMeanwhile_IsLeftAlone) {
  const Writer writer = Create(Options());
  for (int unit = 0; unit < kUnits; ++unit) ASSERT_TRUE(WriteUnit(*writer, unit).ok());
  ASSERT_TRUE(WriteCopied(*writer, model_).ok());
  WriteFile(output_ / "precious.txt", "x");
  EXPECT_EQ(writer->Commit(Contents(model_)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(TreeContents(output_).size(), 1u);
  fs::remove_all(output_);
  EXPECT_TRUE(RunJob(Options()).code() == absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(writer->Commit(Contents(model_)).ok());
}

TEST_F(CheckpointWriterTest, WrongWrites_AreRefused) {
  const Writer writer = Create(Options());
  EXPECT_EQ(writer->Write("nobody", Bytes("x")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer->Write("copied", Bytes("1234567")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer->WriteAt("copied", 4, Bytes("12345")).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer->WriteAt("copied", -1, Bytes("1")).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointWriterTest, FileSizeLimit_IsAnErrorNotADeath) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit limit{512, 512};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(CheckpointWriter::Create(Options()).status().code() ==
                    absl::StatusCode::kResourceExhausted
                ? 0
                : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(CheckpointWriterTest, DiskTooSmall_IsRefusedBeforehand) {
  WriterOptions options = Options();
  options.layout = *OutputLayout::Make({{"w", DType::kU8, {int64_t{1} << 50}}}, int64_t{1} << 51);
  EXPECT_THAT(CreateError(options, absl::StatusCode::kResourceExhausted), HasSubstr("free"));
}

TEST_F(CheckpointWriterTest, DiskFullWhileWriting_ResumesLater) {
  const int status = RunChild("write.tensor=enospc@3", "run", dir_.path());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  EXPECT_FALSE(fs::exists(output_));
  EXPECT_TRUE(RunJob(Options()).ok());
}

TEST_F(CheckpointWriterTest, FailedSync_IsNotTriedAgain) {
  EXPECT_EQ(RunChild("write.before_sync=error@1", "failed-sync", dir_.path()), 0);
}

TEST_F(CheckpointWriterTest, JournalCutAtEveryByte_StillFinishesWithTheSameBytes) {
  ASSERT_TRUE(RunJob(Options()).ok());
  const auto expected = TreeContents(output_);
  fs::remove_all(output_);
  {
    const Writer writer = Create(Options());
    for (int unit = 0; unit < kUnits; ++unit) ASSERT_TRUE(WriteUnit(*writer, unit).ok());
  }
  const std::string journal = FileContents(staging_ / "llmc_journal");
  const fs::path saved = dir_ / "saved";
  fs::copy(staging_, saved, fs::copy_options::recursive);
  for (size_t length = 0; length < journal.size(); length += 29) {
    fs::remove_all(staging_);
    fs::copy(saved, staging_, fs::copy_options::recursive);
    fs::resize_file(staging_ / "llmc_journal", length);
    ASSERT_TRUE(RunJob(Options()).ok()) << length;
    ASSERT_EQ(TreeContents(output_), expected) << length;
    fs::remove_all(output_);
  }
}

}  // namespace
}  // namespace llmc

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--child") return llmc::ChildMain(argv[2], argv[3]);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
