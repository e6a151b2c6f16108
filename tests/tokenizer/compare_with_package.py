"""Compares llmc's token ids with those of the Python package `tokenizers`.

    compare_with_package.py TOKENIZER_ENCODE [--seed N] [--texts N] [--only NAME]

Builds a range of tokenizer.json files with the package, encodes random and nasty
texts with both, and fails on the first difference of each file.
"""

import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
          r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Oniguruma's own ways: nested and intersected classes, repeated intervals, hex
# digits, word boundaries, POSIX brackets, (?m), isolated options.
ONIGURUMA = [
    (r"[\p{L}&&[^\p{Han}]]+|\p{Han}", "Isolated"),
    (r"\p{N}{1,3}+|\p{L}{2}?", "Isolated"),
    (r"\h{2,}|\b\w|\w\b", "Isolated"),
    (r"[[:alpha:][:digit:]]+|[^[:space:]\w]|[[:^ascii:]]", "Contiguous"),
    (r"(?m:a.b)|x(?i)yz|q", "MergedWithNext"),
    (r"[a-c[x-z]]+|[^\P{Lu}A-M]|\D\S{,2}", "Isolated"),
    (r"^[\s\-]+|[ \t]+$|\v|\x41|\u0042|\x{1F600}", "Isolated"),
    (r"(?<=\p{L})\p{M}+|(?<!\d)\d(?!\d)|(?>a+)b?", "MergedWithPrevious"),
    (r"a*", "Isolated"),
    (r"\W+|\H+", "Removed"),
]

ENGLISH = """The quick brown fox jumps over the lazy dog. It's what we'll do; they've said I'm right, you're
wrong, he'd won't and can't. In 1984, 12345 people (about 3.14%) read e-mails at http://example.com/a_b?c=d&e=f
def main(argc, argv):\n    if argc > 1:\n\t\treturn argv[1].strip()\n\n    print("hello, world!")\n
Crème brûlée, naïve façade, Ångström, straße, ŒUVRE, ﬁne ligatures. Привет, мир! Как дела? Γειά σου Κόσμε.
你好,世界。今天天气很好。日本語の文章をトークン化する。한국어 문장입니다. नमस्ते दुनिया ไทยแลนด์ שלום עולם مرحبا بالعالم
😀👍🏽👩‍👩‍👧‍👦🇩🇪 ①②③ ½ ⅷ ² ¼ — “quotes” ‘single’ …  <s> </s> [INST] <|im_start|>"""

CONTRACTIONS = [q + s for q in ("'", "’", " '") for s in
                ("s", "S", "ſ", "t", "T", "re", "Re", "rE", "ve", "VE", "m", "M", "ll", "LL", "lL", "d", "D", "x")]
SPECIALS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "[MASK]", "<left>", "<right>", "<both>",
            "<word>", "Lower", "lower", "LOWER", "<norm>", "<norm2>", "é!", "e\u0301!", "  ", "<|im_start", "start|>",
            "▁tok", "\u0301x"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\x85", "\x0b",
          "\x1c", "\u180e", "\u200b", "\ufeff"]
SCRIPTS = [(0x20, 0x7F), (0xA0, 0x180), (0x180, 0x250), (0x300, 0x370), (0x370, 0x530), (0x530, 0x700),
           (0x780, 0x900), (0x900, 0xE00), (0xE00, 0x1000), (0x1000, 0x1400), (0x1600, 0x1800), (0x1AB0, 0x1B00),
           (0x1CD0, 0x1D00), (0x1D00, 0x1E00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2200),
           (0x2460, 0x2500), (0x2C00, 0x2E80), (0x3000, 0x3100), (0x3130, 0x3400), (0x4E00, 0x4F00),
           (0xA640, 0xA900), (0xAC00, 0xAD00), (0xD700, 0xD800), (0xE000, 0xE010), (0xF900, 0xFB00),
           (0xFB00, 0xFE00), (0xFE00, 0x10000), (0x10000, 0x11000), (0x11000, 0x12000), (0x16E00, 0x17000),
           (0x1D100, 0x1D800), (0x1E000, 0x1E100), (0x1E900, 0x1F000), (0x1F000, 0x1FB00), (0x1FB00, 0x1FC00),
           (0x20000, 0x20010), (0x2EBE0, 0x2EC00), (0x2F800, 0x2FA20), (0x31340, 0x31360), (0xE0000, 0xE0200),
           (0x10FFF0, 0x110000)]


def character(rng):
    low, high = rng.choice(SCRIPTS)
    return chr(rng.randrange(low, high))


def fragment(rng):
    kind = rng.randrange(16)
    if kind < 4:
        begin = rng.randrange(len(ENGLISH))
        return ENGLISH[begin:begin + rng.randrange(1, 40)]
    if kind == 4:
        return rng.choice(CONTRACTIONS)
    if kind == 5:
        return rng.choice(SPECIALS)
    if kind == 6:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 6)))
    if kind == 7:
        return rng.choice([" ", "\n", "\t", "\r\n", "a", "7", "-", "\u0301"]) * rng.randrange(1, 40)
    if kind == 8:
        return "".join(rng.choice("0123456789٣४①½") for _ in range(rng.randrange(1, 12)))
    if kind == 9:
        return rng.choice("aeiouAEOIUnNcC가한ᄀ\u0995") + "".join(
            chr(rng.choice([rng.randrange(0x300, 0x370), rng.randrange(0x5B0, 0x5C0), 0x345, 0x1DFA, 0x3099,
                            rng.randrange(0x1161, 0x1176), rng.randrange(0x11A8, 0x11C3), 0x9BE, 0x11930, 0x11935,
                            0x8D4, 0x897, 0x1E8D0])) for _ in range(rng.randrange(1, 5)))
    if kind == 10:
        return rng.choice(["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️‍🔥", "1️⃣", "\x00", "\x7f", "\x1b[0m", "\ud7ff\ue000",
                           "\ufffd\ufffe\uffff", "İIıi", "ΣΑΣ ς", "ẞß", "ﷺ", "㋿", "Ⅷ", "ǅ", "𝒜𝟙", "ŉ", "ﬆ"])
    if kind == 11:
        return "".join(rng.choice("-_.,:;!?()[]{}<>/\\|@#$%^&*+=~`\"'") for _ in range(rng.randrange(1, 8)))
    if kind == 12:
        return chr(rng.choice([rng.randrange(0x110000), rng.randrange(0x3000)])).encode(
            "utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(character(rng) for _ in range(rng.randrange(1, 8)))


def random_texts(rng, count):
    texts = ["", " ", "\n", "\x00", "a", " a", "<s>", " <s>", "<s> ", "▁", "▁▁a", ENGLISH, " " * 500, "\n" * 300,
             "a" * 2000, "é" * 300, "\u0301" * 200, "1" * 100]
    while len(texts) < count:
        texts.append("".join(fragment(rng) for _ in range(rng.randrange(1, 8))))
    return texts


def assigned_texts():
    """Every assigned code point but the big uniform blocks, next to letters."""
    skip = [(0x3400, 0x4DB0), (0x4E00, 0x9FF0), (0xAC00, 0xD7A0), (0xD800, 0xF8F0), (0x17000, 0x18B00),
            (0x20000, 0x2A6D0), (0x2A700, 0x2EBE0), (0x2EC00, 0x2EE50), (0x30000, 0x31340), (0x31360, 0x323A0),
            (0x323C0, 0xE0000), (0xE0200, 0x110000)]
    points = [c for c in range(0x110000) if not any(low <= c < high for low, high in skip)]
    texts = []
    for at in range(0, len(points), 48):
        texts.append("".join("a" + chr(c) for c in points[at:at + 48]))
    return texts


def corpus(rng):
    return [ENGLISH] * 20 + ["".join(fragment(rng) for _ in range(6)) for _ in range(400)]


def byte_level(pattern, rng, **options):
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=options.pop("prefix", False), use_regex=not pattern))
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=["<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(corpus(rng), trainer)
    return tokenizer


def template(tokenizer, single="<s> $A </s>"):
    names = [t for t in single.split() if not t.startswith("$")]
    return processors.TemplateProcessing(single=single, special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def sentencepiece_bpe(rng, **options):
    """Llama 2's shape: no pre-tokenizer, spaces and a prefix by the normalizer."""
    fallback = options.pop("byte_fallback", True)
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=options.pop("fuse_unk", True),
                                     byte_fallback=fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator(corpus(rng), trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = options.pop("pre_tokenizer", None) or pre_tokenizers.Sequence([])
    tokenizer.normalizer = options.pop("normalizer", normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))
    data = json.loads(tokenizer.to_str())
    if data["pre_tokenizer"] == {"type": "Sequence", "pretokenizers": []}:
        data["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(data))


def add_all_kinds(tokenizer, normalized):
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.add_tokens([
        AddedToken("<left>", lstrip=True, normalized=normalized),
        AddedToken("<right>", rstrip=True, normalized=normalized),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=normalized),
        AddedToken("<word>", single_word=True, normalized=normalized),
        AddedToken("Lower", single_word=True, normalized=normalized),
        AddedToken("<norm>", normalized=True), AddedToken("<norm2>", normalized=normalized),
        AddedToken("é!", normalized=normalized), AddedToken("  ", normalized=False),
        AddedToken("\u0301x", normalized=False, single_word=True),
    ])
    return tokenizer


def unigram(rng, **options):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    fallback = options.get("byte_fallback", False)
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    trainer = trainers.UnigramTrainer(vocab_size=900, unk_token="<unk>", special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([ENGLISH] * 30, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    data["model"]["byte_fallback"] = fallback
    return Tokenizer.from_str(json.dumps(data))


def with_parts(tokenizer, normalizer=None, pre_tokenizer=None, post_processor=None):
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def legacy(tokenizer):
    """Merges as "a b" strings, no type names: the first versions of the format."""
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = ["#version: 0.2"] + [" ".join(m) for m in data["model"]["merges"]]
    del data["model"]["type"]
    return json.dumps(data)


def holes(tokenizer):
    """Ids with holes, and added tokens whose ids the package assigns anew."""
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = {t: i + (3000 if i > 700 else 0) for t, i in vocab.items()}
    data["added_tokens"] += [dict(data["added_tokens"][0], content=c, id=n, special=False, normalized=bool(n % 2))
                             for c, n in (("<word>", 12), ("<both>", 99999), ("lower", 5), ("<word>", 7))]
    return json.dumps(data)


def tokenizer_files(rng):
    base = byte_level(GPT2, rng)
    again = lambda: Tokenizer.from_str(base.to_str())
    sequence = pre_tokenizers.Sequence
    split = lambda pattern, behavior="isolated", **k: pre_tokenizers.Split(pattern, behavior, **k)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield "gpt2", with_parts(byte_level(None, rng, prefix=True), post_processor=processors.ByteLevel(trim_offsets=True))
    yield "gpt2_no_prefix", byte_level(None, rng)
    yield "gpt2_legacy", legacy(base)
    yield "holes", holes(base)
    llama3 = byte_level(LLAMA3, rng, ignore_merges=True)
    yield "llama3", with_parts(add_all_kinds(llama3, False), post_processor=processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(llama3, "<s> $A")]))
    yield "qwen2", with_parts(add_all_kinds(byte_level(QWEN2, rng), False), normalizers.NFC())
    yield "qwen35", with_parts(add_all_kinds(byte_level(QWEN35, rng), True), normalizers.NFC())
    yield "o200k", byte_level(O200K, rng)
    yield "deepseek3", with_parts(again(), None, sequence(
        [split(Regex(r"\p{N}{1,3}")), split(Regex("[一-龥\u3040-ゟ゠-ヿ]+")), split(Regex(DEEPSEEK3)), bytes_only]))
    for n, (pattern, behavior) in enumerate(ONIGURUMA):
        name = {"MergedWithNext": "merged_with_next", "MergedWithPrevious": "merged_with_previous"}.get(
            behavior, behavior.lower())
        yield f"oniguruma_{n}", with_parts(again(), None, sequence(
            [split(Regex(pattern), name, invert=n % 3 == 2), bytes_only]))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield f"string_{behavior}", with_parts(again(), None, sequence([split(" ", behavior), split("a.", behavior),
                                                                        bytes_only]))
        yield f"punctuation_{behavior}", with_parts(again(), None, sequence(
            [pre_tokenizers.Punctuation(behavior), bytes_only]))
    basic = {"whitespace": pre_tokenizers.Whitespace(), "whitespace_split": pre_tokenizers.WhitespaceSplit(),
             "digits": pre_tokenizers.Digits(individual_digits=True), "digit_runs": pre_tokenizers.Digits(),
             "delimiter": pre_tokenizers.CharDelimiterSplit("e"), "bert": pre_tokenizers.BertPreTokenizer(),
             "fixed": pre_tokenizers.FixedLength(length=3)}
    for name, step in basic.items():
        yield name, with_parts(again(), None, sequence([step, bytes_only]))
    forms = {"nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(),
             "nfkd": normalizers.NFKD(), "lowercase": normalizers.Lowercase(),
             "strip": normalizers.Strip(), "lstrip": normalizers.Strip(right=False), "nmt": normalizers.Nmt(),
             "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(),
                                              normalizers.Lowercase()]),
             "only_accents": normalizers.StripAccents(),
             "replace": normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}|[aeiou]+"), "_"),
                                              normalizers.Replace(".", "<norm>")])}
    for name, form in forms.items():
        yield name, with_parts(add_all_kinds(again(), True), form)
    yield "byte_normalizer", with_parts(again(), normalizers.ByteLevel(), split(Regex(r"Ġ?\p{L}+")))
    llama2 = sentencepiece_bpe(rng)
    yield "llama2", with_parts(add_all_kinds(llama2, False), post_processor=template(llama2, "<s> $A"))
    yield "llama2_no_fallback", add_all_kinds(sentencepiece_bpe(rng, byte_fallback=False), True)
    yield "llama2_unfused", sentencepiece_bpe(rng, byte_fallback=False, fuse_unk=False)
    yield "gemma", sentencepiece_bpe(rng, normalizer=normalizers.Replace(" ", "▁"),
                                     pre_tokenizer=split(" ", "merged_with_previous"))
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            tokenizer = sentencepiece_bpe(rng, normalizer=None, pre_tokenizer=pre_tokenizers.Metaspace(
                prepend_scheme=scheme, split=cut))
            yield f"metaspace_{scheme}_{cut}", add_all_kinds(tokenizer, cut)
    yield "metaspace_after", add_all_kinds(sentencepiece_bpe(
        rng, normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]),
        pre_tokenizer=sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="first")])),
        True)
    yield "affixes", affixes(rng)
    yield "unigram", add_all_kinds(unigram(rng), False)
    yield "unigram_fallback", with_parts(unigram(rng, byte_fallback=True), normalizers.NFKC())
    yield "roberta", with_parts(again(), None, None, processors.RobertaProcessing(("</s>", 1), ("<s>", 0)))
    yield "bert_frame", with_parts(again(), None, None, processors.BertProcessing(("</s>", 1), ("<s>", 0)))
    yield "two_templates", with_parts(again(), None, None, processors.Sequence([
        template(base, "<s> $A"), processors.TemplateProcessing(
            single="$A </s>", pair="$B $A </s> $B", special_tokens=[("</s>", 1)])]))


def affixes(rng):
    """BPE with a prefix for later parts of a word and a suffix for the last."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], continuing_subword_prefix="##",
                                  end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(corpus(rng), trainer)
    return tokenizer


def encode(program, directory, texts):
    packed = directory / "texts"
    packed.write_bytes(b"".join(struct.pack("<I", len(t)) + t for t in (s.encode() for s in texts)))
    out = directory / "ids"
    subprocess.run([program, directory, packed, out], check=True)
    lines = out.read_text().split("\n")
    parse = lambda line: line if line.startswith("error") else [int(i) for i in line.split()]
    return [parse(line) for line in lines[0:-1:2]], [parse(line) for line in lines[1:-1:2]]


def compare(program, name, tokenizer, texts):
    text = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
    package = Tokenizer.from_str(text)
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        (directory / "tokenizer.json").write_text(text)
        try:
            results = encode(program, directory, texts)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error}")
            return False
    for special, ours in zip((True, False), results):
        theirs = package.encode_batch_fast(texts, add_special_tokens=special)
        for sample, got, want in zip(texts, ours, theirs):
            if got != want.ids:
                print(f"{name}: add_special_tokens={special}\n  text {sample!r}\n  want {want.ids}\n  got  {got}\n"
                      f"  want tokens {want.tokens}")
                return False
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    failed, total, files = [], 0, 0
    assigned = assigned_texts()
    for name, tokenizer in tokenizer_files(random.Random(args.seed)):
        if args.only and args.only != name:
            continue
        texts = random_texts(random.Random(f"{args.seed}{name}"), args.texts)
        if name in ("llama3", "qwen35", "whitespace", "digits", "punctuation_isolated", "nfkc", "nfd", "lowercase",
                    "only_accents"):
            texts += assigned
        total += len(texts)
        files += 1
        if not compare(args.program, name, tokenizer, texts):
            failed.append(name)
    print(f"tokenizers {tokenizers.__version__}: {files} files, {total} texts, {len(failed)} files differ {failed}")
    sys.exit(1 if failed or files == 0 else 0)


if __name__ == "__main__":
    main()
