#include "control/job_store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "coordinator_world.h"
#include "failing_vfs.h"
#include "llmc/file.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

class JobStoreTest : public testing::Test {
 protected:
  JobStoreTest() {
    SetFault(Fault::kNone, 0);
    // In memory: thousands of syncs of a real disk would take minutes, and a process
    // that dies loses nothing that it had handed to the kernel either way.
    dir_ = fs::path(fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path()) /
           absl::StrCat("llmc-store-", getpid(), "-",
                        testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(dir_);
  }
  ~JobStoreTest() override { fs::remove_all(dir_); }

  std::unique_ptr<JobStore> OpenOrDie(const StoreOptions& options = {}) {
    auto store = JobStore::Open(dir_, options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  fs::path dir_;
};

// The story that the fault tests tell: jobs are made, leased, run and ended. Returns
// how many of its changes were written; a failed one is tried again `retries` times.
int TellStory(JobStore& store, int retries, const std::function<void()>& on_written) {
  CoordinatorWorld world;
  int written = 0;
  const auto write = [&](const Change& change) {
    for (int i = 0; i <= retries; ++i) {
      if (!store.Write(change).ok()) continue;
      world.Apply(change);
      ++written;
      on_written();
      return true;
    }
    return false;
  };
  for (const char* id : {"a", "b"}) {
    if (!write(world.coordinator.Create(world.Request(id), world.now)->change)) return written;
  }
  world.AttachPool("p");
  world.Beat("p", nullptr);
  const auto offer = world.coordinator.NextLease("p-instance", world.now);
  if (!write(offer->change)) return written;
  for (int batch = 1; batch <= 3; ++batch) {
    v1::ReportSteps report;
    *report.mutable_lease() = offer->offer.lease();
    report.set_batch(batch);
    report.add_steps()->set_message(std::string(3000, 'x'));
    if (!write(*world.coordinator.ReportSteps("p-instance", report, world.now))) return written;
  }
  v1::Finished finished;
  *finished.mutable_lease() = offer->offer.lease();
  finished.set_outcome(v1::OUTCOME_SUCCEEDED);
  finished.set_report_json("{}");
  if (!write(*world.coordinator.Finish("p-instance", finished, world.now))) return written;
  if (!write(world.coordinator.Delete("a", "")->change)) return written;
  return written;
}

constexpr int kChangesOfStory = 8;
// Events of job a after each change; the last one deletes it.
constexpr int kEventsOfA[] = {0, 1, 1, 2, 4, 5, 6, 7, 0};

// What a new coordinator finds must be the story after `written` or `written + 1` changes.
void ExpectConsistent(JobStore& store, int written, const std::string& where) {
  const auto records = store.LoadJobs();
  ASSERT_TRUE(records.ok()) << where << records.status();
  int64_t sequence_of_a = 0;
  for (const store::v1::JobRecord& record : *records) {
    const std::string id = record.job().name().substr(5);
    if (id == "a") sequence_of_a = record.job().sequence();
    const auto events = store.ReadEvents(id, 0, 1000);
    ASSERT_TRUE(events.ok()) << where;
    ASSERT_EQ(static_cast<int64_t>(events->size()), record.job().sequence()) << where;
    for (size_t i = 0; i < events->size(); ++i) {
      EXPECT_EQ((*events)[i].sequence(), static_cast<int64_t>(i) + 1) << where;
    }
  }
  const bool is_next = written < kChangesOfStory && sequence_of_a == kEventsOfA[written + 1];
  EXPECT_TRUE(sequence_of_a == kEventsOfA[written] || is_next)
      << where << ": " << sequence_of_a << " events after " << written << " changes";
}

TEST_F(JobStoreTest, WhatWasWritten_IsThereAfterReopening) {
  {
    auto store = OpenOrDie();
    EXPECT_EQ(TellStory(*store, 0, [] {}), kChangesOfStory);
  }
  auto store = OpenOrDie();
  const auto records = store->LoadJobs();
  ASSERT_TRUE(records.ok());
  ASSERT_EQ(records->size(), 1u);
  EXPECT_EQ((*records)[0].job().name(), "jobs/b");
  EXPECT_TRUE(absl::IsNotFound(store->ReadReport("a").status()));
}

TEST_F(JobStoreTest, KilledAtEveryOperationOfTheDisk_LosesNothingThatWasAcknowledged) {
  for (int64_t at = 1;; ++at) {
    fs::remove_all(dir_);
    int acknowledged[2];
    ASSERT_EQ(pipe(acknowledged), 0);
    const pid_t child = fork();
    if (child == 0) {
      SetFault(Fault::kKill, at);
      auto store = JobStore::Open(dir_, {.vfs = "failing"});
      if (!store.ok()) _exit(3);
      TellStory(**store, 0, [&] { (void)!write(acknowledged[1], "x", 1); });
      _exit(0);
    }
    close(acknowledged[1]);
    int written = 0;
    char byte;
    while (read(acknowledged[0], &byte, 1) == 1) ++written;
    close(acknowledged[0]);
    int status = 0;
    waitpid(child, &status, 0);
    auto store = OpenOrDie();
    ASSERT_NE(store, nullptr) << "operation " << at;
    ExpectConsistent(*store, written, absl::StrCat("killed at operation ", at));
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      EXPECT_EQ(written, kChangesOfStory);
      EXPECT_GT(at, 20);
      break;
    }
  }
}

TEST_F(JobStoreTest, AnyOneFailedOperation_IsAnErrorAndTheNextTryWorks) {
  for (Fault fault : {Fault::kError, Fault::kFull}) {
    for (int64_t at = 1;; ++at) {
      fs::remove_all(dir_);
      SetFault(fault, at);
      const std::string where = absl::StrCat("failed at operation ", at);
      auto opened = JobStore::Open(dir_, {.vfs = "failing"});
      if (!opened.ok()) {
        EXPECT_FALSE(absl::IsInternal(opened.status()));
        opened = JobStore::Open(dir_, {.vfs = "failing"});
      }
      ASSERT_TRUE(opened.ok()) << where << opened.status();
      EXPECT_EQ(TellStory(**opened, 1, [] {}), kChangesOfStory) << where;
      const bool all_done = OperationsSeen() < at;
      opened->reset();
      SetFault(Fault::kNone, 0);
      auto store = OpenOrDie();
      ASSERT_NE(store, nullptr) << where;
      ExpectConsistent(*store, kChangesOfStory, where);
      if (all_done) break;
    }
  }
}

TEST_F(JobStoreTest, AfterAFailedWrite_AProbeTellsWhetherTheDiskWorks) {
  SetFault(Fault::kNone, 0);
  auto store = JobStore::Open(dir_, {.vfs = "failing"});
  ASSERT_TRUE(store.ok()) << store.status();
  for (int i = 0; i < 2; ++i) {
    SetFault(Fault::kError, 1);
    EXPECT_TRUE(absl::IsUnavailable((*store)->Probe()));
    EXPECT_TRUE((*store)->failing());
  }
  EXPECT_TRUE((*store)->Probe().ok());
  EXPECT_FALSE((*store)->failing());
  store->reset();
  SetFault(Fault::kNone, 0);
}

TEST_F(JobStoreTest, ASecondCoordinator_IsRefusedAndToldWhoTheFirstIs) {
  auto first = OpenOrDie();
  const pid_t child = fork();
  if (child == 0) {
    const absl::Status second = JobStore::Open(dir_).status();
    const bool good =
        absl::IsFailedPrecondition(second) &&
        second.message().find(absl::StrCat("process ", getppid())) != absl::string_view::npos;
    _exit(good ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(JobStoreTest, ADamagedDatabase_IsRefused) {
  {
    auto store = OpenOrDie();
    TellStory(*store, 0, [] {});
  }
  std::string bytes = *ReadFile(dir_ / "jobs.sqlite");
  for (size_t i = 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 37);
  std::ofstream(dir_ / "jobs.sqlite", std::ios::binary) << bytes;
  EXPECT_TRUE(absl::IsDataLoss(JobStore::Open(dir_).status()));
  std::ofstream(dir_ / "jobs.sqlite", std::ios::binary) << "this is no database at all";
  EXPECT_TRUE(absl::IsDataLoss(JobStore::Open(dir_).status()));
}

TEST_F(JobStoreTest, AStoreOfANewerVersion_IsRefusedAndNotCalledDamaged) {
  OpenOrDie();
  std::string bytes = *ReadFile(dir_ / "jobs.sqlite");
  bytes[63] = 7;  // user_version, big-endian at byte 60 of SQLite's header.
  std::ofstream(dir_ / "jobs.sqlite", std::ios::binary) << bytes;
  const absl::Status status = JobStore::Open(dir_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_NE(status.message().find("newer"), std::string::npos);
}

TEST_F(JobStoreTest, ABackup_HoldsWhatWasWrittenBeforeIt) {
  const fs::path backup = dir_ / "backup";
  const fs::path restored = dir_ / "restored";
  std::string secret;
  {
    auto store = OpenOrDie();
    TellStory(*store, 0, [] {});
    secret = store->secret();
    ASSERT_TRUE(store->BackUp(backup).ok());
    EXPECT_FALSE(store->BackUp(backup).ok()) << "a backup is never overwritten";
    const fs::perms others = fs::perms::group_all | fs::perms::others_all;
    EXPECT_EQ(fs::status(backup).permissions() & others, fs::perms::none) << "it holds a secret";
    Change later;
    later.deleted.push_back("b");
    ASSERT_TRUE(store->Write(later).ok());
  }
  ASSERT_TRUE(JobStore::Restore(backup, restored).ok());
  auto store = JobStore::Open(restored);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->LoadJobs()->size(), 1u);
  EXPECT_EQ((*store)->ReadEvents("b", 0, 100)->size(), 1u);
  EXPECT_EQ((*store)->secret(), secret) << "tokens of watchers stay good";
  EXPECT_TRUE(absl::IsFailedPrecondition(JobStore::Restore(backup, restored)));
}

TEST_F(JobStoreTest, ABackup_IsWholeOrAbsentWhicheverOperationFails) {
  for (int64_t at = 1;; ++at) {
    const std::string where = absl::StrCat("failed at operation ", at);
    SetFault(Fault::kNone, 0);
    fs::remove_all(dir_);
    auto store = OpenOrDie({.vfs = "failing"});
    TellStory(*store, 0, [] {});
    SetFault(Fault::kFull, at);
    const absl::Status status = store->BackUp(dir_ / "backup");
    const bool all_done = OperationsSeen() < at;
    SetFault(Fault::kNone, 0);
    if (!status.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << where << status;
      EXPECT_FALSE(fs::exists(dir_ / "backup")) << where;
      Change change;
      change.deleted.push_back("b");
      EXPECT_TRUE(store->Write(change).ok()) << where << ": the store itself goes on";
      continue;
    }
    ASSERT_TRUE(JobStore::Restore(dir_ / "backup", dir_ / "restored").ok()) << where;
    if (all_done) {
      EXPECT_GT(at, 3);
      return;
    }
  }
}

TEST_F(JobStoreTest, WhatIsNoBackup_IsNotRestored) {
  fs::create_directories(dir_);
  std::ofstream(dir_ / "empty");
  std::ofstream(dir_ / "text") << std::string(10'000, 'x');
  auto other = JobStore::Open(dir_ / "other");
  ASSERT_TRUE(other.ok());
  TellStory(**other, 0, [] {});
  ASSERT_TRUE((*other)->BackUp(dir_ / "torn").ok());
  fs::resize_file(dir_ / "torn", 9000);
  for (const char* name : {"empty", "text", "torn"}) {
    const absl::Status status = JobStore::Restore(dir_ / name, dir_ / "new");
    EXPECT_TRUE(absl::IsDataLoss(status)) << name << ": " << status;
    EXPECT_FALSE(JobStore::IsAt(dir_ / "new"));
  }
  EXPECT_TRUE(absl::IsNotFound(JobStore::Restore(dir_ / "absent", dir_ / "new")));
}

TEST_F(JobStoreTest, TenThousandJobs_AreReadBack) {
  {
    auto store = OpenOrDie();
    Change change;
    CoordinatorWorld world;
    for (int i = 0; i < 10'000; ++i) {
      const NewJob request = world.Request(absl::StrCat("job", i));
      const auto decision = world.coordinator.Create(request, world.now);
      change.jobs.insert(decision->change.jobs.begin(), decision->change.jobs.end());
    }
    ASSERT_TRUE(store->Write(change).ok());
  }
  auto store = OpenOrDie();
  const auto records = store->LoadJobs();
  ASSERT_TRUE(records.ok());
  EXPECT_EQ(records->size(), 10'000u);
}

}  // namespace
}  // namespace llmc
