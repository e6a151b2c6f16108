#include "dataset/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "llmc/file.h"

namespace llmc::dataset {
namespace {

constexpr size_t kBlockBytes = 256 << 10;

class PlainSource : public ByteSource {
 public:
  PlainSource(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  ~PlainSource() override { ::close(fd_); }

  absl::StatusOr<size_t> Read(char* to, size_t size) override {
    while (true) {
      const ssize_t count = ::read(fd_, to, size);
      if (count >= 0) return static_cast<size_t>(count);
      if (errno != EINTR) return ErrnoStatus(errno, path_, "read");
    }
  }

 private:
  int fd_;
  std::filesystem::path path_;
};

// Compressed bytes of `source`, one block at a time.
class Block {
 public:
  explicit Block(std::unique_ptr<ByteSource> source)
      : source_(std::move(source)), bytes_(kBlockBytes) {}

  // False when the file has ended.
  absl::StatusOr<bool> Refill() {
    LLMC_ASSIGN_OR_RETURN(size, source_->Read(bytes_.data(), bytes_.size()));
    position = 0;
    return size > 0;
  }
  const char* here() const { return bytes_.data() + position; }
  size_t left() const { return size - position; }

  size_t size = 0;
  size_t position = 0;

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<char> bytes_;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> source) : block_(std::move(source)) {}
  ~GzipSource() override {
    if (open_) inflateEnd(&stream_);
  }

  absl::StatusOr<size_t> Read(char* to, size_t size) override {
    while (true) {
      if (block_.left() == 0) {
        LLMC_ASSIGN_OR_RETURN(const bool more, block_.Refill());
        if (!more && open_) return absl::InvalidArgumentError("gzip data ends early");
        if (!more) return 0;
      }
      LLMC_RETURN_IF_ERROR(StartMember());
      LLMC_ASSIGN_OR_RETURN(const size_t count, Inflate(to, size));
      if (count > 0) return count;
    }
  }

 private:
  // A gzip file is any number of members, one after the other.
  absl::Status StartMember() {
    if (open_) return absl::OkStatus();
    stream_ = {};
    if (inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) {
      return absl::ResourceExhaustedError("gzip: no memory for the decompressor");
    }
    open_ = true;
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Inflate(char* to, size_t size) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(block_.here()));
    stream_.avail_in = static_cast<uInt>(block_.left());
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(size);
    const int result = inflate(&stream_, Z_NO_FLUSH);
    block_.position = block_.size - stream_.avail_in;
    if (result == Z_STREAM_END) {
      inflateEnd(&stream_);
      open_ = false;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gzip data is damaged: ", stream_.msg != nullptr ? stream_.msg : zError(result)));
    }
    return size - stream_.avail_out;
  }

  Block block_;
  z_stream stream_ = {};
  bool open_ = false;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<ByteSource> source)
      : block_(std::move(source)), stream_(ZSTD_createDStream()) {}
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  absl::StatusOr<size_t> Read(char* to, size_t size) override {
    if (stream_ == nullptr) return absl::ResourceExhaustedError("zstd: no memory");
    while (true) {
      if (block_.left() == 0 && !may_hold_output_) {
        LLMC_ASSIGN_OR_RETURN(const bool more, block_.Refill());
        if (!more && inside_frame_) return absl::InvalidArgumentError("zstd data ends early");
        if (!more) return 0;
      }
      LLMC_ASSIGN_OR_RETURN(const size_t count, Decompress(to, size));
      if (count > 0) return count;
    }
  }

 private:
  absl::StatusOr<size_t> Decompress(char* to, size_t size) {
    ZSTD_inBuffer in = {block_.here(), block_.left(), 0};
    ZSTD_outBuffer out = {to, size, 0};
    const size_t result = ZSTD_decompressStream(stream_, &out, &in);
    if (ZSTD_isError(result)) {
      return absl::InvalidArgumentError(
          absl::StrCat("zstd data is damaged: ", ZSTD_getErrorName(result)));
    }
    block_.position += in.pos;
    inside_frame_ = result != 0;
    may_hold_output_ = inside_frame_ && out.pos == out.size;
    return out.pos;
  }

  Block block_;
  ZSTD_DStream* stream_;
  bool inside_frame_ = false;
  bool may_hold_output_ = false;  // The last call filled its output.
};

absl::Status CheckRegular(int fd, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return ErrnoStatus(errno, path, "stat");
  if (S_ISREG(status.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::filesystem::path& path,
                                                     Compression compression) {
  // Without O_NONBLOCK opening a pipe would wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, path, "open");
  std::unique_ptr<ByteSource> file = std::make_unique<PlainSource>(fd, path);
  LLMC_RETURN_IF_ERROR(CheckRegular(fd, path));
  return Decompress(std::move(file), compression);
}

std::unique_ptr<ByteSource> Decompress(std::unique_ptr<ByteSource> source,
                                       Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return std::make_unique<GzipSource>(std::move(source));
    case Compression::kZstd:
      return std::make_unique<ZstdSource>(std::move(source));
    case Compression::kNone:
      break;
  }
  return source;
}

absl::Status TextReader::Fill() {
  buffer_.resize(kBlockBytes);
  position_ = 0;
  auto size = source_->Read(buffer_.data(), buffer_.size());
  buffer_.resize(size.ok() ? *size : 0);
  if (!size.ok()) return size.status();
  if (!started_) {
    started_ = true;
    // Decompressors may give less than three bytes at first.
    while (buffer_.size() < 3 && !buffer_.empty()) {
      char next[3];
      LLMC_ASSIGN_OR_RETURN(const size_t more, source_->Read(next, 3 - buffer_.size()));
      if (more == 0) break;
      buffer_.append(next, more);
    }
    if (absl::StartsWith(buffer_, "\xef\xbb\xbf")) position_ = 3;
    if (position_ == buffer_.size() && position_ > 0) return Fill();
  }
  return absl::OkStatus();
}

absl::StatusOr<int> TextReader::Peek() {
  if (position_ == buffer_.size()) LLMC_RETURN_IF_ERROR(Fill());
  if (buffer_.empty()) return kEnd;
  return static_cast<unsigned char>(buffer_[position_]);
}

absl::StatusOr<int> TextReader::Get() {
  LLMC_ASSIGN_OR_RETURN(const int byte, Peek());
  if (byte == kEnd) return kEnd;
  ++position_;
  if (byte == '\n') ++line_;
  return byte;
}

absl::StatusOr<bool> TextReader::GetLine(std::string* line, size_t max_bytes) {
  line->clear();
  LLMC_ASSIGN_OR_RETURN(const int first, Peek());
  if (first == kEnd) return false;
  while (true) {
    LLMC_ASSIGN_OR_RETURN(const int next, Peek());
    if (next == kEnd) break;
    const char* start = buffer_.data() + position_;
    const size_t left = buffer_.size() - position_;
    const auto* end = static_cast<const char*>(std::memchr(start, '\n', left));
    const size_t count = end == nullptr ? left : static_cast<size_t>(end - start);
    if (line->size() + count > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("line of more than ", max_bytes, " bytes, expected shorter rows"));
    }
    line->append(start, count);
    position_ += count;
    if (end == nullptr) continue;
    ++position_;
    ++line_;
    break;
  }
  if (!line->empty() && line->back() == '\r') line->pop_back();
  return true;
}

}  // namespace llmc::dataset
