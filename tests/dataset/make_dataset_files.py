"""Writes testdata/files/* and testdata/dataset_cases.json: rows as json, csv and
pyarrow read them, token ids as `tokenizers` gives them.

    .venv/bin/python tests/dataset/make_dataset_files.py
"""

import csv
import gzip
import io
import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
DATA = HERE / "testdata"
FILES = DATA / "files"
MODEL = DATA / "model"

TEMPLATE = ("{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
            "{{ message['content'] | trim }}{{ eos_token }}{% endfor %}")

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "naïve café, 日本語 and 🎉",
    "one",
    "commas, \"quotes\" and 'apostrophes'",
    "a line\nand another\r\nand a third",
    "  spaces around  ",
    "<s> looks special </s>",
    "numbers 1 2 3 45 678",
] + ["row %d: %s" % (i, "the fox " * (i % 13)) for i in range(40)]


def make_model():
    shutil.rmtree(MODEL, ignore_errors=True)
    MODEL.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(MODEL / "tokenizer.json"))
    (MODEL / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 64,
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}, indent=1) + "\n")
    return tokenizer


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def gz(data):
    # Two members, as `cat a.gz b.gz` makes.
    half = len(data) // 2
    return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)


CASES = []
TABLES = []  # The rows that several files share.


def write(name, data, rows):
    (FILES / name).write_bytes(data)
    if rows not in TABLES:
        TABLES.append(rows)
    CASES.append({"file": name, "table": TABLES.index(rows)})


def text_files():
    rows = [{"id": i, "text": t, "score": i / 4, "none": None, "list": [1, {"a": True}]}
            for i, t in enumerate(TEXTS)]
    lines = "".join(json.dumps(r, ensure_ascii=i % 2 == 0) + ("\r\n" if i % 3 == 0 else "\n")
                    for i, r in enumerate(rows)).encode()
    write("a.jsonl", lines, rows)
    write("bom.jsonl", b"\xef\xbb\xbf" + lines + b"\n  \n", rows)
    write("no_newline.jsonl", lines.rstrip(), rows)
    write("a.jsonl.gz", gz(lines), rows)
    write("a.jsonl.zst", zstd(lines[:999]) + zstd(lines[999:]), rows)
    write("lines.json", lines, rows)
    write("array.json", json.dumps(rows, indent=2, ensure_ascii=False).encode(), rows)
    write("compact.json", json.dumps(rows, separators=(",", ":")).encode(), rows)
    write("array.json.gz", gz(json.dumps(rows).encode()), rows)
    write("empty_array.json", b" [ ] \n", [])

    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["id", "text", "a \"b\", c"])
    for i, text in enumerate(TEXTS):
        writer.writerow([i, text, "" if i % 2 else "x,y"])
    table = out.getvalue()
    as_rows = list(csv.DictReader(io.StringIO(table, newline="")))
    write("a.csv", table.encode(), as_rows)
    write("a.csv.gz", gz(table.encode()), as_rows)
    write("a.CSV.zst", zstd(table.encode()), as_rows)
    loose = 'id,text\n1,plain 5" pipe\n2,"two\n\nlines"\n\n3,\n4,"last ""one"""'
    write("loose.csv", loose.encode(), list(csv.DictReader(io.StringIO(loose, newline=""))))

    plain = "first\nsecond\r\n\n   \n third \nlast"
    as_lines = [{"text": t} for t in ("first", "second", " third ", "last")]
    write("a.txt", plain.encode(), as_lines)
    write("a.txt.zst", zstd(plain.encode()), as_lines)


def parquet(name, table, **options):
    pq.write_table(table, FILES / name, **options)
    rows = pq.read_table(FILES / name).to_pylist(maps_as_pydicts="strict")
    if rows not in TABLES:
        TABLES.append(rows)
    CASES.append({"file": name, "table": TABLES.index(rows)})


def parquet_files():
    n = len(TEXTS)
    many = [TEXTS[i % n] + (" %d" % (i // 50)) if i % 7 else None for i in range(250)]
    table = pa.table({
        "text": pa.array(many),
        "required": pa.array(["r%d" % i for i in range(250)]),
        "small": pa.array([i % 100 - 50 for i in range(250)], pa.int8()),
        "unsigned": pa.array([2**32 - 1 - i for i in range(250)], pa.uint32()),
        "long": pa.array([(-1)**i * i * 10**12 if i % 5 else None for i in range(250)], pa.int64()),
        "float": pa.array([i / 8 for i in range(250)], pa.float32()),
        "double": pa.array([i / 3 if i % 4 else None for i in range(250)], pa.float64()),
        "flag": pa.array([i % 3 == 0 if i % 11 else None for i in range(250)]),
        "nulls": pa.array([None] * 250, pa.string()),
    }, schema=pa.schema([
        ("text", pa.string()), pa.field("required", pa.string(), nullable=False),
        ("small", pa.int8()), ("unsigned", pa.uint32()), ("long", pa.int64()),
        ("float", pa.float32()), ("double", pa.float64()), ("flag", pa.bool_()),
        ("nulls", pa.string())]))
    for codec in ("none", "snappy", "gzip", "zstd"):
        for version in ("1.0", "2.0"):
            parquet(f"{codec}_v{version[0]}.parquet", table, compression=codec,
                    data_page_version=version, row_group_size=100, data_page_size=900)
    parquet("plain.parquet", table, use_dictionary=False, compression="snappy")
    delta = {"text": "DELTA_BYTE_ARRAY", "required": "DELTA_LENGTH_BYTE_ARRAY",
             "nulls": "DELTA_BYTE_ARRAY", "long": "DELTA_BINARY_PACKED",
             "small": "DELTA_BINARY_PACKED", "unsigned": "DELTA_BINARY_PACKED", "flag": "RLE"}
    for version in ("1.0", "2.0"):
        parquet(f"delta_v{version[0]}.parquet", table, use_dictionary=False, column_encoding=delta,
                data_page_version=version, data_page_size=2000, compression="zstd")
    parquet("fallback.parquet", table, dictionary_pagesize_limit=300, data_page_size=500)
    parquet("empty.parquet", table.slice(0, 0))

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    nested = pa.table({
        "messages": pa.array(
            [[{"role": "user", "content": TEXTS[i % n]}, {"role": "assistant", "content": None}]
             if i % 5 else None if i % 2 else [] for i in range(60)], pa.list_(message)),
        "input_ids": pa.array([list(range(i % 9)) for i in range(60)], pa.list_(pa.int32())),
        "deep": pa.array([[[[1, None], [], None], None, [], [[i]]][i % 4] for i in range(60)],
                         pa.list_(pa.list_(pa.int64()))),
        "record": pa.array(
            [{"a": i, "b": {"c": ["x", None, str(i)], "d": None if i % 2 else 1.5}} if i % 6 else None
             for i in range(60)],
            pa.struct([("a", pa.int32()),
                       ("b", pa.struct([("c", pa.list_(pa.string())), ("d", pa.float64())]))])),
        "map": pa.array([[("k", i), ("l", None)] if i % 3 else None if i % 2 else []
                         for i in range(60)], pa.map_(pa.string(), pa.int64())),
        "large": pa.array([["p", "q" * i] for i in range(60)], pa.large_list(pa.large_string())),
    })
    for version in ("1.0", "2.0"):
        parquet(f"nested_v{version[0]}.parquet", nested, data_page_version=version,
                row_group_size=25, data_page_size=64)
    parquet("nested_legacy.parquet", nested.drop_columns(["map"]), use_compliant_nested_type=False)


def splitmix(seed, index):
    mask = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def token_hash(rows):
    state = xxhash.xxh3_128()
    for row in rows:
        state.update(len(row).to_bytes(8, "little"))
        state.update(b"".join(i.to_bytes(4, "little") for i in row))
    return state.hexdigest()


def draw_cases(hf):
    write_rows = [{"text": t} for t in TEXTS]
    chats = [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": t[::-1]}]}
             for t in TEXTS if t]
    share = [{"conversations": [{"from": "human", "value": t}, {"from": "gpt", "value": "ok"}]}
             for t in TEXTS]
    pairs = [{"prompt": t, "completion": " -> " + t.upper()} for t in TEXTS]
    chat_pairs = [{"prompt": [{"role": "user", "content": t}],
                   "completion": [{"role": "assistant", "content": "yes"}]} for t in TEXTS]
    ids = [{"input_ids": list(range(i % 70 + 1)), "text": "not this"} for i in range(30)]
    other = [{"body": t, "text": None} for t in TEXTS]

    def plain(text, limit):
        return hf(text, truncation=True, max_length=limit)["input_ids"]

    def chat(messages, limit):
        return hf.apply_chat_template(messages, truncation=True, max_length=limit,
                                      return_dict=True)["input_ids"]

    def share_messages(row):
        roles = {"human": "user", "gpt": "assistant"}
        return [{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]]

    kinds = [
        ("draw_text.jsonl", "text", write_rows, lambda r, n: plain(r["text"], n)),
        ("draw_chat.jsonl", "text", chats, lambda r, n: chat(r["messages"], n)),
        ("draw_share.jsonl", "text", share, lambda r, n: chat(share_messages(r), n)),
        ("draw_pairs.jsonl", "text", pairs, lambda r, n: plain(r["prompt"] + r["completion"], n)),
        ("draw_chat_pairs.jsonl", "text", chat_pairs,
         lambda r, n: chat(r["prompt"] + r["completion"], n)),
        ("draw_ids.jsonl", "text", ids, lambda r, n: r["input_ids"][:n]),
        ("draw_body.jsonl", "body", other, lambda r, n: plain(r["body"], n)),
    ]
    draws = []
    for name, column, rows, tokens in kinds:
        (FILES / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        for limit, count, seed, shuffle in [(2048, 10, 42, True), (20, 512, 42, True),
                                            (3, 7, 0, True), (20, 5, 2**64 - 1, True),
                                            (2048, 6, 42, False), (16, 1000, 1, False)]:
            order = list(range(len(rows)))
            if shuffle:
                order.sort(key=lambda i: (splitmix(seed, i), i))
            used = [tokens(rows[i], min(limit, 64)) for i in order[:count]]
            draws.append({"file": name, "column": column, "max_seq_length": limit,
                          "num_samples": count, "seed": str(seed), "shuffle": shuffle,
                          "rows": used, "hash": token_hash(used)})
    return draws


def window_cases(hf):
    cases = []
    for length, count in [(8, 0), (32, 0), (32, 3), (100, 0)]:
        stream = []
        for i, text in enumerate(TEXTS):
            stream += ([hf.eos_token_id] if i else []) + hf(text, truncation=False)["input_ids"]
        windows = [stream[i:i + length] for i in range(0, len(stream) - length + 1, length)]
        windows = windows[:count] if count else windows
        cases.append({"length": length, "num_windows": count, "windows": windows,
                      "hash": token_hash(windows)})
    return cases


def main():
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    make_model()
    hf = PreTrainedTokenizerFast.from_pretrained(MODEL)
    text_files()
    parquet_files()
    cases = {"tables": TABLES, "files": CASES, "draws": draw_cases(hf), "windows": window_cases(hf)}
    (DATA / "dataset_cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
