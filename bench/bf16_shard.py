"""A safetensors file of BF16 tensors, written piece by piece."""
import json
import math
import os
import struct


def num_bytes(dims):
    return 2 * math.prod(dims)


def write_shard(path, tensors, pieces):
    """`tensors`: (name, dims) in file order; `pieces`: their bytes in that order, cut
    anywhere. Returns the shard's part of the index's weight_map."""
    header, offset = {}, 0
    for name, dims in tensors:
        size = num_bytes(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return {name: path.name for name, _ in tensors}
