"""Makes two small random models and their perplexity as transformers gives it.

Usage: make_perplexity.py OUTPUT_DIR
OUTPUT_DIR/{model,other}/ are model directories; expected.json holds the
windows, the mean negative log-likelihood of both and KL(other || model).
"""

import json
import pathlib
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

WINDOWS = [50, 50, 33, 2, 150]


def make(path, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=160,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(path)
    return model


def main():
    output = pathlib.Path(sys.argv[1])
    model, other = make(output / "model", 1), make(output / "other", 2)
    windows = [torch.randint(0, 160, (1, length)) for length in WINDOWS]
    nll, other_nll, kl, same, tokens = 0.0, 0.0, 0.0, 0, 0
    with torch.no_grad():
        for window in windows:
            predicted = window.shape[1] - 1
            nll += model(window, labels=window).loss.double().item() * predicted
            other_nll += other(window, labels=window).loss.double().item() * predicted
            q = model(window).logits[0, :-1].double().log_softmax(-1)
            p = other(window).logits[0, :-1].double().log_softmax(-1)
            kl += torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum").item()
            same += (p.argmax(-1) == q.argmax(-1)).sum().item()
            tokens += predicted
    expected = {
        "windows": [window[0].tolist() for window in windows],
        "num_tokens": tokens,
        "mean_nll": nll / tokens,
        "other_mean_nll": other_nll / tokens,
        "kl_mean": kl / tokens,
        "top1_agreement": same / tokens,
    }
    (output / "expected.json").write_text(json.dumps(expected))


main()
