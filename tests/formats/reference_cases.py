"""Random quantisation entries and target lists, with what compressed-tensors says of them.

Prints one JSON object: "args" (entry, accepted, dump), "inputs" (the same as
input_activations of a scheme) and "matches" (groups, ignore, owner per module).
"""
import json
import random
import sys

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.utils.match import is_match, match_targets

NUM_ARGS = 4000
NUM_MATCHES = 1500


def random_args(rng):
    choices = {
        "num_bits": [1, 2, 3, 4, 4, 5, 8, 8, 8, 9, 16],
        "type": ["int", "int", "float", "FLOAT", "bool"],
        "symmetric": [True, False],
        "group_size": [None, -1, 0, 16, 32, 128, -2],
        "strategy": [None, "tensor", "channel", "group", "block", "token", "tensor_group", "attn_head",
                     "Group", "row"],
        "block_structure": [None, [128, 128], "64x128", [128], [0, 4], "axb", [1, 2, 3]],
        "dynamic": [False, True, "local", "LOCAL", "global"],
        "actorder": [None, "weight", "static", "group", "dynamic", True, False, "x"],
        "scale_dtype": [None, "torch.float8_e4m3fn", "uint8", "torch.nothing"],
        "zp_dtype": [None, "torch.int8", "float8_e4m3fn"],
        "observer": [None, "minmax", "mse"],
        "observer_kwargs": [{}, {"grid": 20, "norm": 2.4}],
        "unknown": [1],
    }
    chance = {"unknown": 0.02, "actorder": 0.15, "block_structure": 0.2, "dynamic": 0.4}
    args = {}
    for key, values in choices.items():
        if rng.random() < chance.get(key, 0.45):
            args[key] = rng.choice(values)
    if args.get("strategy") == "block" and rng.random() < 0.7:
        args["block_structure"] = [128, 64]
    return args


def known_difference(args):
    """llmc refuses a size of 0 always, and float widths other than 4 and 8 always."""
    is_odd_float = str(args.get("type", "")).lower() == "float" and args.get("num_bits", 8) not in (4, 8)
    return args.get("group_size") == 0 or is_odd_float


def verdict(build):
    try:
        return True, build()
    except Exception:
        return False, None


def args_case(rng):
    args = random_args(rng)
    accepted, parsed = verdict(lambda: QuantizationArgs(**args))
    case = {"args": args, "accepted": accepted, "strict": known_difference(args)}
    if accepted:
        case["dump"] = json.loads(parsed.model_dump_json())
        case["as_input"] = verdict(lambda: QuantizationScheme(targets=["a"], input_activations=args))[0]
    return case


class ToyAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, torch.nn.Linear(1, 1))


class ToyMLP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(self, name, torch.nn.Linear(1, 1))


def toy_model():
    model = torch.nn.Module()
    model.embed_tokens = torch.nn.Embedding(2, 1)
    model.layers = torch.nn.ModuleList()
    for _ in range(2):
        layer = torch.nn.Module()
        layer.self_attn, layer.mlp = ToyAttention(), ToyMLP()
        model.layers.append(layer)
    model.lm_head = torch.nn.Linear(1, 1)
    return model


POOL = ["Linear", "Embedding", "ToyMLP", "ToyAttention", "Module", "lm_head", "embed_tokens", "linear",
        "layers.0.mlp.up_proj", "layers.1.self_attn.q_proj", "mlp.down_proj", "re:.*", "re:", "re:.*mlp.*",
        "re:.*down_proj", "re:.*down_proj$", "re:mlp", "re:layers", r"re:layers\.0\..*", "re:.*[qk]_proj$",
        r"re:.*\.(gate|up)_proj$", "re:.*v_proj", "re:^layers.1", "re:.*lm_head", "re:(?i).*LM_HEAD",
        r"re:.*layers\.[0-9]+\.self_attn\.o_proj$", "re:.*(?<!up)_proj$", "re:.*_proj\\Z", "re:l.*?d$"]


def match_case(rng, modules):
    targets = rng.sample(POOL, rng.randint(1, 6))
    groups = [[] for _ in range(rng.randint(1, 3))]
    for target in targets:
        rng.choice(groups).append(target)
    ignore = rng.sample(POOL, rng.randint(0, 2))
    owner = {target: g for g, group in enumerate(groups) for target in group}
    owners = []
    for name, module in modules:
        if is_match(name, module, targets, ignore):
            owners.append(owner[match_targets(name, module, targets)[0]])
        else:
            owners.append(-1)
    return {"groups": groups, "ignore": ignore, "owners": owners}


def main():
    rng = random.Random(7)
    modules = [(n, m) for n, m in toy_model().named_modules() if n]
    json.dump({"args": [args_case(rng) for _ in range(NUM_ARGS)],
               "modules": [[n, type(m).__name__] for n, m in modules],
               "matches": [match_case(rng, modules) for _ in range(NUM_MATCHES)]}, sys.stdout)


main()
