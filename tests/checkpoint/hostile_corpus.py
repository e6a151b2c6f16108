"""Writes malformed and odd safetensors files and what the reference reader says of each.

    hostile_corpus.py DIRECTORY

Every file is NAME.safetensors; verdicts.json is {NAME: {"accepted": bool, "names": [...]}}.
"""
import json
import pathlib
import random
import struct
import sys

from safetensors import safe_open


def file_bytes(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


F32 = tensor("F32", [2], [0, 8])
F32_TEXT = json.dumps(F32).encode()
EIGHT = b"\0" * 8
DTYPES = "BOOL U8 I8 F8_E4M3 F8_E5M2 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64".split()


def one(text, data=EIGHT):
    """A file whose only entry "a" is the given JSON text."""
    return file_bytes(b'{"a":' + text + b"}", data)


def raw(text, data=EIGHT):
    return file_bytes(text, data)


def sizes_and_lengths():
    ok = {"a": F32}
    return {
        "ok": file_bytes(ok, EIGHT),
        "empty": b"",
        "seven_bytes": b"\1\2\3\0\0\0\0",
        "length_zero": file_bytes(b""),
        "length_top_bit": file_bytes({}, length=2**63),
        "length_max": file_bytes({}, length=2**64 - 1),
        "length_over_limit": file_bytes({}, length=100_000_001),
        "length_past_end": file_bytes(ok, EIGHT, length=5000),
        "data_cut": file_bytes(ok, b"\0" * 4),
        "data_trailing": file_bytes(ok, b"\0" * 12),
        "no_tensors": file_bytes({}),
        "no_tensors_but_data": file_bytes({}, b"\0" * 4),
        "only_metadata": file_bytes({"__metadata__": {}}),
    }


def json_text():
    entry = b'{"a":' + F32_TEXT + b"}"
    return {
        "not_json": raw(b'{"a":'),
        "bad_utf8": raw(b'{"\xff":' + F32_TEXT + b"}"),
        "overlong_utf8": raw(b'{"\xc0\x80":' + F32_TEXT + b"}"),
        "surrogate_utf8": raw(b'{"\xed\xa0\x80":' + F32_TEXT + b"}"),
        "lone_surrogate": raw(b'{"\\ud800":' + F32_TEXT + b"}"),
        "surrogate_pair": raw(b'{"\\ud83d\\ude00":' + F32_TEXT + b"}"),
        "control_in_string": raw(b'{"a\x01":' + F32_TEXT + b"}"),
        "byte_order_mark": raw(b"\xef\xbb\xbf" + entry),
        "space_before": raw(b"  \n\t" + entry),
        "space_after": raw(entry + b"   \n\t\r"),
        "nul_after": raw(entry + b"\0\0"),
        "form_feed_after": raw(entry + b"\f"),
        "garbage_after": raw(entry + b"x"),
        "second_value": raw(entry + b"{}"),
        "comma_after": raw(entry[:-1] + b",}"),
        "comment": raw(b"/**/" + entry),
        "top_list": raw(b"[]", b""),
        "top_null": raw(b"null", b""),
        "deep_lists": raw(b"[" * 200_000),
        "deep_objects": raw(b'{"a":' * 100_000),
        "deep_120": one(F32_TEXT[:-1] + b',"x":' + b"[" * 120 + b"]" * 120 + b"}"),
        "deep_125": one(F32_TEXT[:-1] + b',"x":' + b"[" * 125 + b"]" * 125 + b"}"),
        "deep_126": one(F32_TEXT[:-1] + b',"x":' + b"[" * 126 + b"]" * 126 + b"}"),
        "deep_200": one(F32_TEXT[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}"),
    }


def entries():
    meta = b'"__metadata__":'
    entry = b',"a":' + F32_TEXT + b"}"
    cases = {
        "entry_null": one(b"null"),
        "entry_string": one(b'"F32"'),
        "entry_number": one(b"3"),
        "entry_list_form": one(b'["F32",[2],[0,8]]'),
        "entry_list_short": one(b'["F32",[2]]'),
        "entry_list_long": one(b'["F32",[2],[0,8],1]'),
        "entry_list_swapped": one(b'[[2],"F32",[0,8]]'),
        "extra_field": one(F32_TEXT[:-1] + b',"x":{"y":[1,2.5,null,true,"s"]}}'),
        "extra_field_twice": one(F32_TEXT[:-1] + b',"x":1,"x":2}'),
        "extra_huge_number": one(F32_TEXT[:-1] + b',"x":1e999}'),
        "field_twice": one(b'{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'),
        "shape_twice": one(b'{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}'),
        "no_dtype": one(b'{"shape":[2],"data_offsets":[0,8]}'),
        "no_shape": one(b'{"dtype":"F32","data_offsets":[0,8]}'),
        "no_offsets": one(b'{"dtype":"F32","shape":[2]}'),
        "one_offset": one(b'{"dtype":"F32","shape":[2],"data_offsets":[0]}'),
        "three_offsets": one(b'{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}'),
        "offsets_object": one(b'{"dtype":"F32","shape":[2],"data_offsets":{}}'),
        "nested_shape": one(b'{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}'),
        "null_shape": one(b'{"dtype":"F32","shape":null,"data_offsets":[0,8]}'),
        "dtype_unknown": one(b'{"dtype":"F99","shape":[2],"data_offsets":[0,8]}'),
        "dtype_lower_case": one(b'{"dtype":"f32","shape":[2],"data_offsets":[0,8]}'),
        "dtype_escaped": one(b'{"dtype":"F\\u00332","shape":[2],"data_offsets":[0,8]}'),
        "dtype_number": one(b'{"dtype":11,"shape":[2],"data_offsets":[0,8]}'),
        "metadata_not_string": raw(b"{" + meta + b'{"x":1}' + entry),
        "metadata_nested": raw(b"{" + meta + b'{"x":{}}' + entry),
        "metadata_null": raw(b"{" + meta + b"null" + entry),
        "metadata_list": raw(b"{" + meta + b"[]" + entry),
        "metadata_string": raw(b"{" + meta + b'"x"' + entry),
        "metadata_twice": raw(b"{" + meta + b'{"a":"b"},' + meta + b'{"c":"d"}' + entry),
        "metadata_escaped_key": raw(b'{"__met\\u0061data__":{"x":"y"}' + entry),
        "name_path": file_bytes({"../../etc/x": tensor("F32", [0], [0, 0])}),
        "name_nul": file_bytes({"a\0b": tensor("F32", [0], [0, 0])}),
        "name_empty": file_bytes({"": F32}, EIGHT),
        "name_escapes": file_bytes({'\x1b[31m"\\\n': F32}, EIGHT),
        "all_dtypes": file_bytes({d: tensor(d, [0], [0, 0]) for d in DTYPES}),
    }
    return cases


def numbers():
    return {
        "shape_fraction": one(b'{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}'),
        "shape_exponent": one(b'{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}'),
        "shape_negative": one(b'{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}'),
        "shape_minus_zero": one(b'{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}', b""),
        "shape_leading_zero": one(b'{"dtype":"F32","shape":[02],"data_offsets":[0,8]}'),
        "shape_string": one(b'{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}'),
        "shape_above_u64": one(b'{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}'),
        "shape_mismatch": one(b'{"dtype":"F32","shape":[3],"data_offsets":[0,8]}'),
        "shape_overflow": one(b'{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}'),
        "shape_wraps_to_0": one(b'{"dtype":"U8","shape":[9223372036854775808,2],"data_offsets":[0,0]}', b""),
        "shape_max_times_0": one(b'{"dtype":"F32","shape":[18446744073709551615,2,0],"data_offsets":[0,0]}', b""),
        "scalar": one(b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}', b"\0" * 4),
        "zero_dim": one(b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', b""),
        "many_dims": one(b'{"dtype":"F32","shape":[' + b"1," * 999 + b'2],"data_offsets":[0,8]}'),
        "offset_negative": one(b'{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}'),
        "offset_fraction": one(b'{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}'),
        "offset_max": one(b'{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}'),
        "offset_wraps": one(b'{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]}'),
        "end_before_begin": one(b'{"dtype":"F32","shape":[2],"data_offsets":[8,0]}'),
    }


def placement():
    two = tensor("F32", [2], [8, 16])
    return {
        "two_in_order": file_bytes({"a": F32, "b": two}, b"\0" * 16),
        "two_swapped": file_bytes({"b": two, "a": F32}, b"\0" * 16),
        "overlap": file_bytes({"a": F32, "b": tensor("F32", [2], [4, 12])}, b"\0" * 12),
        "same_bytes": file_bytes({"a": F32, "b": F32}, EIGHT),
        "hole": file_bytes({"a": F32, "b": tensor("F32", [2], [12, 20])}, b"\0" * 20),
        "hole_at_start": file_bytes({"a": two}, b"\0" * 16),
        "empty_between": file_bytes({"a": F32, "z": tensor("F32", [0], [8, 8]), "b": two}, b"\0" * 16),
        "empty_first": file_bytes({"z": tensor("F32", [0], [0, 0]), "a": F32}, EIGHT),
        "empty_last": file_bytes({"a": F32, "z": tensor("F32", [0], [8, 8])}, EIGHT),
        "empty_inside": file_bytes({"a": F32, "z": tensor("F32", [0], [4, 4])}, EIGHT),
        "empty_outside": file_bytes({"a": F32, "z": tensor("F32", [0], [9, 9])}, EIGHT),
        "name_twice_shorter": raw(b'{"a":' + F32_TEXT + b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        "odd_offsets": file_bytes({"a": tensor("U8", [3], [0, 3]), "b": tensor("F32", [1], [3, 7])}, b"\0" * 7),
    }


def mutations(count):
    """One to three random bytes of a good header changed."""
    rng = random.Random(0)
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": F32, "b": tensor("BF16", [2, 2], [8, 16])})
    good = file_bytes(header.encode(), b"\0" * 16)
    cases = {}
    for i in range(count):
        changed = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(8, len(good) - 16)] = rng.choice(b'0123456789"[]{},:- \\aF\x00\x7f\xff')
        cases[f"mutation_{i:04}"] = bytes(changed)
    return cases


def verdict(path):
    try:
        with safe_open(path, "np") as reader:
            return {"accepted": True, "names": sorted(reader.keys())}
    except Exception as error:
        return {"accepted": False, "names": [], "error": str(error)[:120]}


def main():
    directory = pathlib.Path(sys.argv[1])
    verdicts = {}
    corpus = {**sizes_and_lengths(), **json_text(), **entries(), **numbers(), **placement(), **mutations(1000)}
    for name, contents in corpus.items():
        path = directory / f"{name}.safetensors"
        path.write_bytes(contents)
        verdicts[name] = verdict(path)
    (directory / "verdicts.json").write_text(json.dumps(verdicts))


if __name__ == "__main__":
    main()
